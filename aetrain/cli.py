"""The entry point: Hydra's command line around `experiment`, and one clear message for whatever goes wrong.

Torch is imported inside the job, so that help, completion and `--cfg job` answer at once.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aetrain import apart, sweeps
from aetrain.config import compose
from aetrain.config.errors import ConfigError, Terminated
from aetrain.config.explain import explain, explained
from aetrain.config.paths import CONFIG_DIR, groups
from aetrain.config.validate import locate, validate
from aetrain.report.sweep import Sweep

compose.register_resolvers()  # here, because a sweep's worker processes import this module


def main() -> None:
    """`aetrain [flags] [group=option] [setting=value] ...`: exit code 0, 1 for a mistake or failure, 130 for Ctrl-C."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    logging.raiseExceptions = False  # a line that `| head` does not take is no reason for a traceback
    try:
        with _errors_as_exceptions(), _no_empty_folders(), _stoppable():
            command()
        sys.stdout.flush()
    except Terminated:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `aetrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if full:
            raise
        sys.exit(f"aetrain: {explain(error)}")


def command() -> None:
    """What the command line says: a run, a sweep, or one of Hydra's answers such as `--help`."""
    sys.argv[1:] = prepared(sys.argv[1:])
    jobs = Jobs()
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(jobs)()
    finally:
        if Begun.sweep:
            Begun.sweep.summarise()
    if jobs.failure is not None:
        raise jobs.failure
    if Begun.sweep:
        Begun.sweep.refuse_failures()


@dataclass
class Jobs:
    """What Hydra calls for every run, here or in a worker process.

    A failure is kept for later: Hydra would print around it, and give up the runs of a sweep that come after it.
    """

    failure: Exception | None = None  # of the only run; those of a sweep are in the directories of its runs

    def __call__(self, config: DictConfig) -> None:
        """One run, of a single command or of a sweep."""
        hydra_config = HydraConfig.get()
        directory, overrides = Path(hydra_config.runtime.output_dir), compose.words_of(hydra_config.overrides.task)
        reads = hydra_config.runtime.choices.get("mode") in compose.READERS
        if hydra_config.mode == RunMode.RUN:
            try:
                _read(config) if reads else _experiment(config, directory, overrides)
            except Exception as error:
                self.failure = error
        elif reads:
            raise ConfigError("-m is for runs: leave it out with a mode that reads what they have left")
        else:
            sweeps.alone(sweeps.Asked(config, directory, overrides))


def _read(config: DictConfig) -> None:
    """What a mode does that looks at the directories of runs: without torch, so that it begins at once."""
    with explained():
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    validate({key: {} if key in groups() and key != "mode" else value for key, value in plain.items()})
    mode = dict(plain["mode"])
    locate(mode.pop("_target_"))(run=plain["run"], **mode)


def _experiment(config: DictConfig, directory: Path, overrides: list[str]) -> None:
    from aetrain import experiment

    experiment.run(config, directory, overrides)


class Begun(Callback):
    """What Hydra is about to begin. It makes this from `hydra.callbacks`, so only the class can be asked later."""

    folders: ClassVar[list[Path]]  # that were not there before, innermost first
    sweep: ClassVar[Sweep | None]

    @classmethod
    def nothing(cls) -> None:
        """Said at the beginning of a command."""
        cls.folders, cls.sweep = [], None

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Called before the directory of a single run is made."""
        with suppress(OmegaConfBaseException):  # Hydra will say so itself
            Begun.folders = _missing(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called before the directory of a sweep is made."""
        directory = Path(config.hydra.sweep.dir)
        Begun.folders, Begun.sweep = _missing(directory), Sweep(directory)


def _missing(place: Path) -> list[Path]:
    return [folder for folder in (place, *place.parents) if not folder.exists()]


@contextmanager
def _no_empty_folders() -> Iterator[None]:
    """Leave no folder that Hydra has made, and nothing was written to: a refused command leaves no trace."""
    Begun.nothing()
    try:
        yield
    finally:
        if Begun.folders and Begun.sweep and not Begun.sweep.runs():
            (Begun.sweep.directory / "multirun.yaml").unlink(missing_ok=True)
        for folder in Begun.folders:
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM is as Ctrl-C, as long as the command runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hook = threading.excepthook
    apart.stoppable()
    try:
        yield
    finally:
        threading.excepthook = hook
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _errors_as_exceptions() -> Iterator[None]:
    """Let errors come here, instead of into Hydra's own printer."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}\n  aetrain --help lists groups and settings, aetrain --hydra-help the flags")


def prepared(arguments: list[str]) -> list[str]:
    """The command line with paths quoted, `run=` spelled out, and a sweep's runs named by what differs."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # its own prints all of the usage, and exits with 2
    said = parser.parse_intermixed_args(arguments)
    if said.shell_completion:
        return arguments
    flags = [argument for argument in arguments if argument not in said.overrides]
    overrides = compose.starting_from_run(compose.quoted_paths(said.overrides))
    if said.multirun:
        same = ",".join(compose.constant_keys(overrides))
        overrides.append(f"hydra.job.config.override_dirname.exclude_keys=[{same}]")
    return [*flags, *overrides]
