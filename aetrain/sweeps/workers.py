"""The number of runs that a launcher trains side by side on this machine, for their threads and their devices."""

import os
from collections.abc import Mapping
from typing import Any

from aetrain.config import overrides as command_line
from aetrain.sweeps.devices import SHARED_VARIABLE
from aetrain.utils.cores import WORKERS_VARIABLE, user_threads


def announce_workers(hydra: Mapping[str, Any]) -> None:
    """Tell the processes of a sweep, by the environment, how many of them share this machine, and that each may take
    a GPU.

    The number is left out where the user's environment says how many threads a process has.
    """
    workers = count_workers(hydra)
    if workers > 1:
        os.environ[SHARED_VARIABLE] = "1"
        if user_threads() is None:
            os.environ[WORKERS_VARIABLE] = str(workers)


def forget_workers() -> None:
    """Remove from the environment what `announce_workers` has told."""
    for name in (WORKERS_VARIABLE, SHARED_VARIABLE):
        os.environ.pop(name, None)


def count_workers(hydra: Mapping[str, Any]) -> int:
    """Return the number of runs of a sweep that this machine trains at a time, from Hydra's own section of a config."""
    launcher = hydra["launcher"]
    match str(launcher["_target_"]).rpartition(".")[2]:
        case "JoblibLauncher":
            import joblib

            return min(joblib.effective_n_jobs(launcher["n_jobs"]), count_runs(hydra))
        case "LocalLauncher":  # of submitit, which starts all runs at once
            return count_runs(hydra)
        case _:  # one run after another, or on machines and cores that the launcher chooses
            return 1


def count_runs(hydra: Mapping[str, Any]) -> int:
    """Return the number of runs of a sweep; that of the cores where it is not known before the sweep."""
    is_basic = str(hydra["sweeper"]["_target_"]).endswith(".BasicSweeper")
    count = command_line.count_combinations(command_line.parse(hydra["overrides"]["task"])) if is_basic else None
    return count or os.cpu_count() or 1
