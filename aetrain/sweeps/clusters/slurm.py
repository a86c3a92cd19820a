"""Jobs of Slurm, by submitit: one array of jobs for the runs of a sweep, watched by `squeue`.

submitit itself waits by `sacct`, which needs a database of accounting: without one, a job that is cancelled would be
waited for without end.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetrain.config.errors import ConfigError
from aetrain.runs import process
from aetrain.sweeps.clusters.jobs import Job, Lost, check_package

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission

log = logging.getLogger("aetrain")

FOLDER = ".slurm"  # in the sweep's directory: the scripts and the logs of the jobs; their pickles until they end
GONE = "forgotten by Slurm"  # some minutes after its end
COMMON_SETTINGS = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")  # of all executors of submitit
FINAL_STATES = {
    GONE,
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
SIGNAL_RESOLUTION_S = 60  # that the signal before the time limit may be early (sbatch --signal)
POLL_S = (1.0, 15.0)  # shortest and longest time between two questions to Slurm
RESULT_DELAY_S = 20  # in which the result of a job appears in a shared file system after the job's end


@dataclass
class RequeuedJob:
    """A job that stops its run before the time limit; the same job, requeued, continues from the last epoch."""

    job: Job

    def __call__(self) -> Any:
        """Do the job; the signal before the time limit is for this process alone, not for the run's."""
        process.shield(_usr_signal())
        return self.job()

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the run, which has a checkpoint of its last epoch, and return the job for submitit to requeue."""
        from submitit.helpers import DelayedSubmission

        for child in multiprocessing.active_children():
            child.terminate()
        for child in multiprocessing.active_children():
            child.join()
        return DelayedSubmission(self)


def _usr_signal() -> signal.Signals:
    from submitit.core.job_environment import JobEnvironment

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]


def run_on_slurm(jobs: Sequence[Job], directory: Path, settings: Mapping[str, Any]) -> list[Any]:
    """Submit jobs, wait for them, and return the result of each, or `Lost`. An interruption cancels them."""
    _check(settings)
    executor = _make_executor(directory, settings)
    with _outside_of_jobs():
        submitted = executor.submit_array([RequeuedJob(job) for job in jobs])
    log.info("Slurm:   job %s, logs in %s", ", ".join(_array_ids(submitted)), directory / FOLDER)
    try:
        return _wait(submitted)
    except BaseException:
        subprocess.run(["scancel", *_array_ids(submitted)], check=False)
        raise
    finally:
        for job in submitted:  # the logs stay
            job.paths.submitted_pickle.unlink(missing_ok=True)
            job.paths.result_pickle.unlink(missing_ok=True)


def _check(settings: Mapping[str, Any]) -> None:
    check_package("submitit", "slurm")
    if shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm needs Slurm, but there is no command sbatch here")
    if settings["timeout_min"] * 60 < settings["signal_delay_s"] + SIGNAL_RESOLUTION_S:
        raise ConfigError(
            f"hydra.launcher.timeout_min={settings['timeout_min']} leaves no time to train: a run stops "
            f"hydra.launcher.signal_delay_s={settings['signal_delay_s']} seconds before the limit, or a minute earlier"
        )


def _make_executor(directory: Path, settings: Mapping[str, Any]) -> "submitit.AutoExecutor":
    from submitit import AutoExecutor

    parameters = {_executor_name(key): value for key, value in settings.items() if value is not None}
    # Since Slurm 22.05, srun takes this number from its own variable alone.
    setup = [*(settings["setup"] or ()), 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"']
    timeouts = parameters.pop("slurm_max_num_timeout")
    executor = AutoExecutor(directory / FOLDER, cluster="slurm", slurm_max_num_timeout=timeouts)
    try:
        executor.update_parameters(**parameters | {"slurm_setup": setup})
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise ConfigError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
    return executor


def _executor_name(setting: str) -> str:
    return setting if setting in COMMON_SETTINGS else f"slurm_{setting}"


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of a job of Slurm in which the sweep itself may run."""
    from submitit.helpers import clean_env

    config = os.environ.get("SLURM_CONF")
    with clean_env():
        if config is not None:
            os.environ["SLURM_CONF"] = config
        yield


def _array_ids(jobs: Sequence["submitit.Job[Any]"]) -> list[str]:
    return sorted({job.job_id.partition("_")[0] for job in jobs})


def _wait(jobs: Sequence["submitit.Job[Any]"]) -> list[Any]:
    """Return the results of jobs, or `Lost`, once all have ended."""
    results: dict[str, Any] = {}
    ended: dict[str, float] = {}  # by id: when a job without a result was first seen in a final state
    pause, longest_pause = POLL_S
    while True:
        states = read_states(_array_ids(jobs))
        for job in jobs:
            state = states[job.job_id]
            if job.job_id in results:
                continue
            if job.paths.result_pickle.exists():
                results[job.job_id] = _read_result(job)
            elif state not in FINAL_STATES:
                ended.pop(job.job_id, None)
            elif time.monotonic() > ended.setdefault(job.job_id, time.monotonic()) + RESULT_DELAY_S:
                results[job.job_id] = Lost(f"its Slurm job {job.job_id} ended: {state.lower()}")
        if len(results) == len(jobs):
            return [results[job.job_id] for job in jobs]
        time.sleep(pause)
        pause = min(longest_pause, pause * 1.2)


def read_states(array_ids: Sequence[str]) -> Mapping[str, str]:
    """Return the states of jobs by their ids.

    Where Slurm does not answer, as while it restarts, all jobs count as running.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(array_ids)}", "--format=%i %T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        return defaultdict(lambda: "RUNNING")
    states: dict[str, str] = defaultdict(lambda: GONE)
    for line in done.stdout.splitlines():
        number, state = line.split(maxsplit=1)
        states[number] = state
    return states


def _read_result(job: "submitit.Job[Any]") -> Any:
    """Return the result that a job has written, or `Lost` with the last line of its traceback."""
    from submitit.core.utils import pickle_load

    outcome, result = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return result
    return Lost(f"its Slurm job {job.job_id} failed: {str(result).strip().splitlines()[-1]}; see {job.paths.stderr}")
