"""`hydra/launcher=packed`, in the one package where Hydra looks for launchers."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

log = logging.getLogger(__name__)


class PackedLauncher(Launcher):
    """Collects the runs of a sweep, and has those trained together that can be."""

    def __init__(self, size: int = 32) -> None:
        self.size = size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's words before `launch`. What to do with a run is known here: the task is not needed."""
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them all."""
        from aetrain import sweeps
        from aetrain.config.compose import words_of
        from aetrain.config.errors import ConfigError

        if not isinstance(self.size, int) or self.size < 2:
            raise ConfigError(f"hydra.launcher.size={self.size} packs nothing: use 2 or more")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        log.info("Launching %d jobs, packed", len(job_overrides))
        asked: list[sweeps.Asked] = []

        def ask(config: DictConfig) -> None:
            hydra = HydraConfig.get()
            asked.append(sweeps.Asked(config, Path(hydra.runtime.output_dir), words_of(hydra.overrides.task)))

        returns = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            returns.append(
                run_job(
                    hydra_context=self.context,
                    task_function=ask,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
        sweeps.packed(asked, self.size)
        return returns
