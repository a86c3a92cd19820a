"""The entry point: Hydra's command line around `experiment`, and one clear message for whatever goes wrong.

Torch is imported inside the job, so that help, completion and `--cfg job` answer at once.
"""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from aetrain.config import compose
from aetrain.config.errors import ConfigError
from aetrain.config.explain import explain, is_about_config
from aetrain.config.paths import CONFIG_DIR

log = logging.getLogger("aetrain")

compose.register_resolvers()  # here, because a sweep's worker processes import this module


def job(config: DictConfig) -> None:
    """One run: of a single command, or of a sweep."""
    from aetrain import experiment

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    single = hydra_config.mode == RunMode.RUN
    try:
        experiment.run(config, directory, overrides=list(hydra_config.overrides.task), single=single)
    except Exception as error:
        if not single:  # a sweeper wants to know which of its jobs failed
            raise
        job.failure = error  # type: ignore[attr-defined]  # raised again by `main`: Hydra would print around it


class Sweep(Callback):
    """Remembers where the sweep of this process went."""

    directory: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called once, before the first job."""
        Sweep.directory = Path(config.hydra.sweep.dir)


def main() -> None:
    """`aetrain [flags] [group=option] [setting=value] ...`: exit code 0, 1 for a mistake or failure, 130 for Ctrl-C."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, instead of into Hydra's own printer
    try:
        sys.argv[1:] = _prepared(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(job)()
        if failure := getattr(job, "failure", None):
            raise failure
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `aetrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if full:
            raise
        sys.exit(f"aetrain: {_message(error)}")
    finally:
        if Sweep.directory is not None:
            from aetrain.evaluation import sweep

            sweep.summarise(Sweep.directory)


def _message(error: Exception) -> str:
    if isinstance(error, ConfigError) or is_about_config(error):
        return explain(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}\n  the whole traceback: HYDRA_FULL_ERROR=1 aetrain ..."


def _prepared(arguments: list[str]) -> list[str]:
    """The command line with paths quoted, `run=` spelled out, and a sweep's runs named by what differs."""
    flags = [a for a in arguments if a.startswith("-") and "=" not in a]
    overrides = [a for a in arguments if _is_override(a)]
    others = [a for a in arguments if a not in overrides]
    if not overrides or any(flag in flags for flag in ("-sc", "--shell-completion", "--shell_completion")):
        return arguments
    overrides = compose.starting_from_run(compose.quoted_paths(overrides))
    if {"-m", "--multirun"} & set(flags):
        same = ",".join(compose.constant_keys(overrides))
        overrides.append(f"hydra.job.config.override_dirname.exclude_keys=[{same}]")
    return [*others, *overrides]


def _is_override(argument: str) -> bool:
    return ("=" in argument and not argument.startswith("-")) or argument.startswith("~")
