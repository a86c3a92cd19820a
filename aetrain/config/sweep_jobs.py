"""A job of a sweep, composed as Hydra's own launchers compose it."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


def compose_and_run(
    context: HydraContext, sweep_config: DictConfig, overrides: Sequence[str], number: int, function: TaskFunction
) -> JobReturn:
    """Compose the config of job `number` of a sweep and call a function with it, in Hydra's surroundings of a job."""
    config = context.config_loader.load_sweep_config(sweep_config, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    return run_job(
        hydra_context=context,
        task_function=function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
