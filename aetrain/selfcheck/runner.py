"""`mode=check`: do the checks and log one line per check."""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.runs.request import RunRequest
from aetrain.selfcheck.expect import CheckFailed, CheckSkipped
from aetrain.selfcheck.known_answers import CHECKS, Check, CheckContext
from aetrain.selfcheck.resume import check_resume_of_run

log = logging.getLogger("aetrain.selfcheck")


def check(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Do all checks of the software on this machine; with `run=`, check that the training of that run resumes exactly.

    Return the number of checks. Raise ConfigError, which gives exit code 1, if a check fails.
    """
    with tempfile.TemporaryDirectory(prefix="aetrain-check-") as folder, _log_level(log, logging.INFO):
        context = CheckContext(Path(folder), settings.data_dir)
        checks = _select_checks(request, settings)
        width = max(map(len, checks))
        failed: list[str] = []
        for name, function in checks.items():
            start = time.perf_counter()
            result, text = _result(function, context)
            seconds = time.perf_counter() - start
            log.info("  %s  %s  %5.1f s  %s", result, name.ljust(width), seconds, text.partition("\n")[0])
            if result == "FAIL":
                failed.append(name)
    if failed:
        raise ConfigError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    return {"checks": len(checks)}


def _select_checks(request: RunRequest, settings: Settings) -> Mapping[str, Check]:
    """Return all checks by name, or with `run=` the one check of that run."""
    if settings.run is None:
        return CHECKS
    run = Path(settings.run)

    def check_run(context: CheckContext) -> str:
        return check_resume_of_run(request.config, context.folder, settings.epochs, run)

    return {"resume": check_run}


def _result(check_function: Check, context: CheckContext) -> tuple[str, str]:
    """Do a check; return `pass`, `skip` or `FAIL`, and the text of its line."""
    try:
        with _log_level(logging.getLogger("aetrain"), logging.ERROR):  # without the lines of the runs that it does
            return "pass", check_function(context)
    except CheckSkipped as reason:
        return "skip", str(reason)
    except CheckFailed as error:
        return "FAIL", str(error)
    except Exception as error:  # a check that cannot be done has failed
        return "FAIL", f"{type(error).__name__}: {error}"


@contextmanager
def _log_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Give a logger another level inside."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
