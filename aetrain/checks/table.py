"""`mode=check`: every check in turn, a line each, and what to make of them."""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aetrain.attempt import Job
from aetrain.checks.answers import CHECKS, Place
from aetrain.checks.expect import Skipped, Wrong
from aetrain.checks.replay import replayed
from aetrain.config.errors import ConfigError

log = logging.getLogger("aetrain.checks")


def check(job: Job) -> dict[str, Any]:
    """Verify the software on this machine, or with `run=` that the run's training can be interrupted and gone on with.

    ConfigError, and so exit code 1, where a check fails.
    """
    failed: list[str] = []
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="aetrain-check-") as folder:
        place = Place(Path(folder), job.plain["data_dir"])
        if job.plain["run"] is not None:
            run = Path(job.plain["run"])
            checks = [("resume", lambda _: replayed(job.config, Path(folder), job.plain["epochs"], str(run)))]
        else:
            checks = list(CHECKS.items())
        width = max(len(name) for name, _ in checks)
        for name, function in checks:
            began = time.perf_counter()
            try:
                with _silence():
                    result, text = "pass", function(place)
            except Skipped as reason:
                result, text = "skip", str(reason)
            except Wrong as error:
                result, text = "FAIL", str(error)
            except Exception as error:  # a check that cannot be done is one that fails
                result, text = "FAIL", f"{type(error).__name__}: {error}"
            if result == "FAIL":
                failed.append(name)
            seconds = time.perf_counter() - began
            log.info("  %s  %s  %5.1f s  %s", result, name.ljust(width), seconds, text.partition("\n")[0])
    if failed:
        raise ConfigError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    return {"checks": len(checks)}


@contextmanager
def _silence() -> Iterator[None]:
    """Without the lines that the runs of a check would print."""
    runs = logging.getLogger("aetrain")
    before = runs.level
    runs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        runs.setLevel(before)
