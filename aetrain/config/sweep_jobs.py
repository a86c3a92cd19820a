"""The jobs of a sweep: what is in their names, and how Hydra's own launchers compose them."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from aetrain.config.settings import role_of


def unnamed_keys(overrides: Sequence[Override], typed: Sequence[Override]) -> list[str]:
    """Return the keys that are not in the names of a sweep's runs: those that are the same in every job.

    Several sweeps evaluate one run below its eval/: there, settings of the command line (`typed`) that change the
    result of an evaluation are in the names, as they are in that of a single evaluation.
    """
    values = {override.key_or_group: override.value() for override in overrides}
    folder, run = (Path(str(values.get(key))) for key in ("hydra.sweep.dir", "run"))
    in_eval = folder == run / "eval"
    named = {item.key_or_group for item in typed if in_eval and role_of(item.key_or_group).in_evaluation_name}
    return [item.key_or_group for item in overrides if not (item.is_sweep_override() or item.key_or_group in named)]


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
