"""A sweep at a glance: every run's differences and main figures, failures with their cause."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.directory import REFUSED, RunDirectory, shown, tensorboard_command, tensorboard_link, write
from aetrain.report.page import write_page
from aetrain.report.runs import entries
from aetrain.report.settings import grouped
from aetrain.report.tables import as_csv, main_figures, name_of

log = logging.getLogger("aetrain")


class Sweep:
    """The directory of a sweep, from before its first run; it may hold runs of an earlier one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.before = [(run.path, run.written) for run in self.runs()]  # which tells them from its own
        shutil.rmtree(directory / REFUSED, ignore_errors=True)

    def runs(self) -> list[RunDirectory]:
        """Its runs, by name."""
        found = [RunDirectory(folder.parent) for folder in sorted(self.directory.glob("*/.hydra"))]
        return [run for run in found if run.status != "new"]

    def refused(self) -> dict[str, str]:
        """Why runs of this sweep did not begin, by name: their directories are other runs'."""
        return {note.name: note.read_text(encoding="utf-8") for note in sorted(self.directory.glob(f"{REFUSED}/*"))}

    def refuse_failures(self) -> None:
        """A ConfigError that counts the runs of this sweep that failed or were refused, if any did."""
        refused = self.refused()
        shutil.rmtree(self.directory / REFUSED, ignore_errors=True)
        runs = [
            run for run in self.runs() if (run.path, run.written) not in self.before and run.path.name not in refused
        ]
        failed = [run for run in runs if run.status == "failed"]
        if failed or refused:
            tells = f", as {failed[0].path / 'aetrain.log'} tells" if failed else ""
            raise ConfigError(
                f"{len(failed) + len(refused)} of {len(runs) + len(refused)} runs failed{tells}:\n"
                f"  {_cause(failed[0].metrics()) if failed else next(iter(refused.values()))}"
            )

    def summarise(self) -> None:
        """Print a table of the runs, write all of their figures to sweep.csv, and a page about them to report.html."""
        runs = self.runs()
        if not runs:
            return
        log.info("\n%s\n", _table(runs))
        table, page = self.directory / "sweep.csv", self.directory / "report.html"
        try:
            groups = grouped(entries(self.directory, self.directory))
            write(table, as_csv(groups))
            log.info("table:   %s", table)
            write_page(page, shown(self.directory), groups, table.name)
            log.info("report:  %s", page)
        except Exception as error:  # the runs are what counts
            log.warning("report:  %s could not be written: %s: %s", page, type(error).__name__, error)
        log.info("compare: %s\nthen at: %s", tensorboard_command(self.directory), tensorboard_link())


def _table(runs: Sequence[RunDirectory]) -> str:
    metrics = [run.metrics() for run in runs]
    shown = main_figures(key for known in metrics for key in known)
    rows = [["run", *map(name_of, shown), "status"]]
    for run, known in zip(runs, metrics, strict=True):
        cells = [f"{known[key]:.4g}" if isinstance(known.get(key), int | float) else "-" for key in shown]
        rows.append([run.path.name, *cells, run.status + (f": {_cause(known)}" if "cause" in known else "")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]) for row in rows
    )


def _cause(metrics: dict[str, Any]) -> str:
    """Why a run failed, in a line."""
    line = str(metrics.get("cause", "")).partition("\n")[0]
    return line if len(line) <= 100 else line[:97] + "..."
