"""The directory of a sweep: the outcomes of its runs, its table, its report."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.report.groups import group_runs
from aetrain.report.metrics import main_metrics, metric_name
from aetrain.report.natural_order import Key, natural_key
from aetrain.report.numbers import format_number
from aetrain.report.page import write_page
from aetrain.report.run_folders import read_runs
from aetrain.report.search import count_trials, repeat_command
from aetrain.report.tables import to_csv
from aetrain.storage import atomic
from aetrain.storage.locks import is_locked
from aetrain.storage.run_directory import OUTCOMES, RunDirectory, display_path
from aetrain.storage.search_file import SEARCH_FILE, read_search
from aetrain.sweeps.devices import LOCKS
from aetrain.sweeps.search.optuna_study import JOURNAL, SEARCH_LOCK
from aetrain.views.tensorboard_link import tensorboard_command, tensorboard_link

log = logging.getLogger("aetrain")

UNSUCCESSFUL = ("failed", "refused", "interrupted")  # a sweep with such an outcome is no success

MAX_CAUSE_LENGTH = 100  # characters of a cause in the table


@dataclass(frozen=True)
class Outcome:
    """The end of a run of this sweep."""

    name: str  # of the run's directory
    status: str  # finished, failed, pruned, interrupted or refused
    cause: str


class Sweep:
    """The directory of a sweep, from before its first run; it may hold runs of an earlier one."""

    def __init__(self, directory: Path, is_search: bool = False) -> None:
        self.directory = directory
        self.is_search = is_search  # whether its runs are trials, of which some may fail
        shutil.rmtree(directory / OUTCOMES, ignore_errors=True)  # left by a killed command

    def clean(self) -> None:
        """Remove the recorded outcomes, the locks of devices, and the files of a sweep without runs."""
        for name in (OUTCOMES, LOCKS):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        if not self.runs() and not is_locked(self.directory / SEARCH_LOCK):
            for name in ("multirun.yaml", SEARCH_FILE, SEARCH_LOCK, JOURNAL):
                (self.directory / name).unlink(missing_ok=True)

    def runs(self) -> list[RunDirectory]:
        """Return the runs in the directory by name, numbers in it by value."""
        paths = sorted((folder.parent for folder in self.directory.glob("*/.hydra")), key=_natural_name)
        folders = [RunDirectory(path) for path in paths]
        return [run for run in folders if run.status != "new"]

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the runs of this sweep by name, numbers in it by value."""
        outcomes = []
        for file in sorted((self.directory / OUTCOMES).glob("*"), key=_natural_name):
            content = json.loads(file.read_text(encoding="utf-8"))
            outcomes.append(Outcome(file.name, content["status"], content["cause"]))
        return outcomes

    def raise_failures(self, continuing_command: str) -> None:
        """Raise ConfigError with the number of runs of this sweep that failed, were refused or interrupted.

        `continuing_command` continues runs whose jobs were killed. Trials of a search may fail where one is finished.
        """
        search = read_search(self.directory) if self.is_search else None
        may_fail = search is not None and bool(search.finished())
        outcomes = self.outcomes()
        failed, refused, interrupted = ([o for o in outcomes if o.status == status] for status in UNSUCCESSFUL)
        messages = []
        if (failed or refused) and not may_fail:
            where = f" (see {self.directory / failed[0].name / 'aetrain.log'})" if failed else ""
            cause = _first_line(failed[0].cause) if failed else refused[0].cause
            messages.append(f"{len(failed) + len(refused)} of {len(outcomes)} runs failed{where}:\n  {cause}")
        if interrupted:
            cause = f"{interrupted[0].name}: {_first_line(interrupted[0].cause)}"
            count = f"{len(interrupted)} of {len(outcomes)} runs did not reach their end"
            messages.append(f"{count} ({cause}); this command continues:\n  {continuing_command}")
        if messages:
            raise ConfigError("\n".join(messages))

    def summarise(self) -> None:
        """Log a table of the runs, write all their metrics to sweep.csv and a page about them to report.html."""
        runs = self.runs()
        if not runs:
            return
        log.info("\n%s\n", _format_table(runs))
        table, page = self.directory / "sweep.csv", self.directory / "report.html"
        try:
            groups = group_runs(read_runs(self.directory, self.directory))
            atomic.replace_text(table, to_csv(groups))
            log.info("table:   %s", table)
            write_page(page, display_path(self.directory), groups, table.name, self.directory)
            log.info("report:  %s", page)
        except Exception as error:  # a failed report must not fail the sweep
            log.warning("report:  %s could not be written: %s: %s", page, type(error).__name__, error)
        log.info("compare: %s\nthen at: %s", tensorboard_command(self.directory), tensorboard_link())
        self._log_best()

    def _log_best(self) -> None:
        """Log the best trial of a search and the command that repeats it."""
        search = read_search(self.directory) if self.is_search else None
        best = search.best() if search else []
        if search is None or not best:
            return
        values = zip(search.objective, best[0].values or (), strict=True)
        text = ", ".join(f"{name} {format_number(value)}" for name, value in values)
        log.info("search:  %s", count_trials(search))
        more = "" if len(search.objective) == 1 else f" (first of {len(best)} that no other beats in all metrics)"
        log.info("best:    trial %d%s: %s, in %s", best[0].number, more, text, best[0].run)
        log.info("repeat:  %s", repeat_command(search, best[0]))


def _natural_name(path: Path) -> Key:
    return natural_key(path.name)


def _format_table(runs: Sequence[RunDirectory]) -> str:
    """Return a table with a row for each run: its name, main metrics and status."""
    metrics = [run.metrics() for run in runs]
    tags = main_metrics(tag for values in metrics for tag in values)
    rows = [["run", *map(metric_name, tags), "status"]]
    rows += [_table_row(run, values, tags) for run, values in zip(runs, metrics, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = map(str.rjust, middle, widths[1:-1])
        lines.append("  ".join(["", first.ljust(widths[0]), *cells, last]))
    return "\n".join(lines)


def _table_row(run: RunDirectory, metrics: dict[str, Any], tags: Sequence[str]) -> list[str]:
    cells = [f"{metrics[tag]:.4g}" if isinstance(metrics.get(tag), int | float) else "-" for tag in tags]
    cause = f": {_first_line(str(metrics['cause']))}" if "cause" in metrics else ""
    return [run.path.name, *cells, f"{run.status}{cause}"]


def _first_line(cause: str) -> str:
    line = cause.partition("\n")[0]
    return line if len(line) <= MAX_CAUSE_LENGTH else line[: MAX_CAUSE_LENGTH - 3] + "..."
