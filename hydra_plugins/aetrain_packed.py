"""`hydra/launcher=packed`, in the package where Hydra looks for launchers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from aetrain.runs.request import RunRequest

log = logging.getLogger(__name__)


class PackedLauncher(Launcher):
    """Train the runs of a sweep together where they differ only in numbers that change no shape."""

    def __init__(self, size: int = 32) -> None:
        self.size = size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context for `launch`; the task function is not needed."""
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do all runs."""
        from aetrain.config.errors import ConfigError
        from aetrain.sweeps.packed.launcher import run_packed

        if not isinstance(self.size, int) or self.size < 2:
            raise ConfigError(f"hydra.launcher.size={self.size} packs nothing: use 2 or more")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        log.info("Launching %d jobs, packed", len(job_overrides))
        requests: list[RunRequest] = []
        returns = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            returns.append(self._collect(number, overrides, requests))
        run_packed(requests, self.size)
        return returns

    def _collect(self, number: int, overrides: Sequence[str], requests: "list[RunRequest]") -> JobReturn:
        """Compose the config of a job as Hydra does, and append its request instead of running it."""
        from aetrain.config.overrides import task_overrides
        from aetrain.config.sweep_jobs import compose_and_run
        from aetrain.runs.request import RunRequest
        from aetrain.storage.run_directory import RunDirectory
        from aetrain.sweeps.search.pruning import is_search, make_pruning

        def collect(config: DictConfig) -> None:
            hydra: Any = HydraConfig.get()
            run_dir = RunDirectory(Path(hydra.runtime.output_dir))
            task, prune = task_overrides(hydra.overrides.task), make_pruning(hydra, config)
            requests.append(RunRequest(config, run_dir, task, False, is_search(hydra), prune))

        return compose_and_run(self.context, self.config, overrides, number, collect)
