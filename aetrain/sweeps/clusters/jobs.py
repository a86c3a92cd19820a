"""The jobs of a sweep on an engine: their runs leave their outcomes in the sweep's directory, or were lost."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.launch import record_killed

RELEASE_TIMEOUT_S = 60  # in which the processes of a job that was stopped let go of its run's directory
POLL_S = 0.2

# An engine runs all jobs and returns for each its result, or a text: why it has none.
Job = Callable[[], Any]
RunJobs = Callable[[Sequence[Job]], list["Any | Lost"]]


@dataclass(frozen=True)
class Lost:
    """The end of a job that returned nothing."""

    cause: str


def check_package(package: str, launcher: str) -> None:
    """Raise ConfigError where the package of an engine is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"hydra/launcher={launcher} needs the package {package}: pip install 'aetrain[{launcher}]'")


def wait_until_released(run_dir: RunDirectory) -> None:
    """Wait while the process of an earlier job, which its engine has stopped, still writes to a run's directory."""
    deadline = time.monotonic() + RELEASE_TIMEOUT_S
    while run_dir.is_locked and time.monotonic() < deadline:
        time.sleep(POLL_S)


def record_lost(request: RunRequest, cause: str) -> None:
    """Record that the job of a run ended before the run did: the same sweep continues it."""
    wait_until_released(request.run_dir)
    if not request.run_dir.outcome_file.is_file():
        record_killed(request, "interrupted", cause)
