"""A sweep at a glance: every run's differences and main figures, failures with their cause."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError
from aetrain.directory import RunDirectory, flat, tensorboard_command, write

log = logging.getLogger("aetrain")

COLUMNS = ("test/sse", "test/bce", "test/nll", "test/neg_elbo", "test/kl", "test/ssim", "train/seconds_per_epoch")


class Sweep:
    """The directory of a sweep, from before its first run; it may hold runs of an earlier one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.before = [_written(run) for run in self.runs()]

    def runs(self) -> list[RunDirectory]:
        """Its runs, by name."""
        return [RunDirectory(file.parent.parent) for file in sorted(self.directory.glob("*/.hydra/config.yaml"))]

    def refuse_failures(self) -> None:
        """A ConfigError that counts the runs of this sweep that failed, if any did."""
        runs = [run for run in self.runs() if _written(run) not in self.before]
        failed = [run for run in runs if run.status == "failed"]
        if failed:
            raise ConfigError(
                f"{len(failed)} of {len(runs)} runs failed, as {failed[0].path / 'aetrain.log'} tells:\n"
                f"  {_cause(failed[0].metrics())}"
            )

    def summarise(self) -> None:
        """Print a table of the runs, and write all of their figures to sweep.csv."""
        runs = self.runs()
        if not runs:
            return
        write(self.directory / "sweep.csv", _csv(runs))
        log.info(
            "\n%s\n\ntable:   %s\ncompare: %s",
            _table(runs),
            self.directory / "sweep.csv",
            tensorboard_command(self.directory),
        )


def _written(run: RunDirectory) -> tuple[str, int]:
    """A run by name and the time of its end, which tells a sweep's own runs from those that were there before."""
    return run.path.name, run.written


def _csv(runs: Sequence[RunDirectory]) -> str:
    settings, metrics = [_settings(run) for run in runs], [run.metrics() for run in runs]
    keys = {key: None for one in settings for key in one}
    varying = [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
    figures = [key for key in _figures(metrics) if key not in ("status", "cause")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *varying, "status", *figures, "cause"])
    for run, one, known in zip(runs, settings, metrics, strict=True):
        cells = [one.get(key, "") for key in varying], [known.get(key, "") for key in figures]
        writer.writerow([run.path.name, *cells[0], run.status, *cells[1], known.get("cause", "")])
    return text.getvalue()


def _figures(metrics: Sequence[dict[str, Any]]) -> list[str]:
    return list({key: None for one in metrics for key in one})


def _table(runs: Sequence[RunDirectory]) -> str:
    metrics = [run.metrics() for run in runs]
    shown = [key for key in COLUMNS if key in _figures(metrics)]
    rows = [["run", *(key.rpartition("/")[2] for key in shown), "status"]]
    for run, known in zip(runs, metrics, strict=True):
        cells = [f"{known[key]:.4g}" if isinstance(known.get(key), int | float) else "-" for key in shown]
        rows.append([run.path.name, *cells, run.status + (f": {_cause(known)}" if "cause" in known else "")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]) for row in rows
    )


def _settings(run: RunDirectory) -> dict[str, Any]:
    try:
        return {key: value for key, value in flat(saved_config(run.path)).items() if not key.startswith("views.")}
    except ConfigError:
        return {}


def _cause(metrics: dict[str, Any]) -> str:
    """Why a run failed, in a line."""
    line = str(metrics.get("cause", "")).partition("\n")[0]
    return line if len(line) <= 100 else line[:97] + "..."
