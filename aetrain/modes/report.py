"""`mode=report`: write one page about a run, a sweep or a folder of runs, to be opened from disk."""

import logging
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.report.page import write_report
from aetrain.storage.run_directory import display_path

log = logging.getLogger("aetrain")


def report(run: str | None, out: str | None = None) -> None:
    """Write report.html and report.csv about the runs in and below `run` (outputs/ where it is null), or into `out`.

    Raise ConfigError where there is no run, or the page cannot be written.
    """
    folder = Path(run or "outputs")
    try:
        page, count = write_report(folder, Path(out) if out else folder)
    except OSError as error:
        path = error.filename or out or folder
        raise ConfigError(f"{path} cannot be written to: {error.strerror}; use another folder, mode.out=") from error
    if not count:
        raise ConfigError(f"run={folder} holds no runs: use a run, a sweep or a folder of runs, such as outputs")
    table = display_path(page.with_suffix(".csv"))
    plural = "s"[: count > 1]
    log.info("report: %s (%d run%s)\ntable:  %s", display_path(page), count, plural, table)
