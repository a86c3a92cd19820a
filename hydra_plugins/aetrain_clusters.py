"""`hydra/launcher=slurm` and `hydra/launcher=ray`, in the package where Hydra looks for launchers."""

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from aetrain.runs.request import RunRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepJob:
    """A run of a sweep that Hydra composes and does on another machine, in this one's folder."""

    context: HydraContext
    master: DictConfig
    task_function: TaskFunction
    overrides: list[str]
    number: int
    folder: str
    state: Mapping[type, Singleton]

    def __call__(self) -> JobReturn:
        """Do the run."""
        from aetrain.sweeps.clusters.jobs import wait_until_released

        os.chdir(self.folder)
        Singleton.set_state(self.state)
        setup_globals()

        def do_run(config: DictConfig) -> Any:
            wait_until_released(_request(config).run_dir)
            return self.task_function(config)

        return self.run(do_run)

    def run(self, function: TaskFunction) -> JobReturn:
        """Call a function with the config of the run, in Hydra's surroundings of a job."""
        from aetrain.config.sweep_jobs import compose_and_run

        return compose_and_run(self.context, self.master, self.overrides, self.number, function)


class ClusterLauncher(Launcher):
    """Give the runs of a sweep to an engine as jobs; a job that is killed does not end the sweep."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the jobs need."""
        self.context = hydra_context
        self.config = config
        self.task_function = task_function

    @abstractmethod
    def run_jobs(self, jobs: Sequence[SweepJob], directory: Path) -> list[Any]:
        """Return the result of each job, or why there is none (`Lost`), once all have ended."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do all runs."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        directory = Path(str(self.config.hydra.sweep.dir)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            state = Singleton.get_state()
            jobs.append(
                SweepJob(self.context, self.config, self.task_function, list(overrides), number, os.getcwd(), state)
            )
        results = self.run_jobs(jobs, directory)
        return [_settle(job, result) for job, result in zip(jobs, results, strict=True)]


def _settle(job: SweepJob, result: Any) -> JobReturn:
    """Return the result of a job. Record the run of a job that was killed, which the same sweep continues."""
    from aetrain.storage.run_directory import RunDirectory
    from aetrain.sweeps.clusters.jobs import Lost, record_lost

    if isinstance(result, JobReturn):
        assert result.hydra_cfg is not None
        run_dir = RunDirectory(Path(result.hydra_cfg.hydra.runtime.output_dir))
        completed = result.status == JobStatus.COMPLETED
        if completed == run_dir.outcome_file.is_file():  # without either, it was refused before its run began
            return result
    cause = result.cause if isinstance(result, Lost) else "its process was killed"

    def record(config: DictConfig) -> float:
        record_lost(_request(config), cause)
        return math.nan

    return job.run(record)


def _request(config: DictConfig) -> "RunRequest":
    """Return the request of the job that Hydra is about to do."""
    from aetrain.config.overrides import task_overrides
    from aetrain.runs.request import RunRequest
    from aetrain.storage.run_directory import RunDirectory

    hydra: Any = HydraConfig.get()
    return RunRequest(config, RunDirectory(Path(hydra.runtime.output_dir)), task_overrides(hydra.overrides.task), False)


class SlurmLauncher(ClusterLauncher):
    """Train each run in a job of Slurm. The settings have the names of hydra-submitit-launcher's."""

    def __init__(self, **settings: Any) -> None:
        self.settings = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in settings.items()}

    def run_jobs(self, jobs: Sequence[SweepJob], directory: Path) -> list[Any]:
        """Run an array of jobs of Slurm."""
        from aetrain.sweeps.clusters.slurm import run_on_slurm

        return run_on_slurm(jobs, directory, self.settings)


class RayLauncher(ClusterLauncher):
    """Train each run in a task of Ray. The settings have the names of hydra-ray-launcher's."""

    def __init__(self, ray: DictConfig) -> None:
        self.settings: Any = OmegaConf.to_container(ray)

    def run_jobs(self, jobs: Sequence[SweepJob], directory: Path) -> list[Any]:
        """Run tasks of Ray."""
        from aetrain.sweeps.clusters.ray_tasks import run_on_ray

        return run_on_ray(jobs, self.settings)
