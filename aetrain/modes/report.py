"""`mode=report`: one page about a run, a sweep or a folder of runs, to be opened from disk."""

import logging
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.directory import shown
from aetrain.report.page import write_report

log = logging.getLogger("aetrain")


def report(run: str | None, out: str | None = None) -> None:
    """Write report.html and report.csv about the runs in and below `run` (outputs/ where it is null), or into `out`.

    ConfigError where there is no run, or the page cannot be written.
    """
    place = Path(run or "outputs")
    try:
        page, count = write_report(place, Path(out) if out else place)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or out or place} cannot be written to: {error.strerror}; give another folder, mode.out="
        ) from error
    if not count:
        raise ConfigError(f"run={place} holds no runs: give a run, a sweep or a folder of runs, such as outputs")
    log.info("report: %s (%d run%s)\ntable:  %s", shown(page), count, "s"[: count > 1], shown(page.with_suffix(".csv")))
