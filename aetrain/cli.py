"""The command: Hydra's command line around `runs.entry`, and one clear message for every error.

torch is imported inside the job, so that help, completion and `--cfg job` answer at once.
"""

import logging
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from aetrain import __version__
from aetrain.config import overrides as command_line
from aetrain.config.composition import reuse_compositions
from aetrain.config.errors import ConfigError, SigTerm
from aetrain.config.paths import CONFIG_DIR, groups
from aetrain.config.sweep_jobs import unnamed_keys
from aetrain.runs import process
from aetrain.storage.run_directory import RunDirectory, display_path, resume_command
from aetrain.sweeps.search.pruning import is_search
from aetrain.sweeps.sweep import Sweep
from aetrain.sweeps.workers import announce_workers, forget_workers
from aetrain.utils import processes

command_line.register_resolvers()  # here, because the worker processes of a sweep import this module


def main() -> None:
    """Run `aetrain [flags] [group=option] [setting=value] ...`; exit code 1 for an error, 130 for Ctrl-C."""
    full_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    logging.raiseExceptions = False  # a closed pipe, as in `| head`, is no reason for a traceback
    try:
        with (
            _other_processes(),
            _errors_as_exceptions(),
            _no_empty_folders(),
            _signal_handlers(),
            reuse_compositions(),
        ):
            run_command()
        sys.stdout.flush()
    except SigTerm:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `aetrain --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if full_traceback:
            raise
        from aetrain.config.error_messages import explain

        processes.exit_with_message(explain(error))
    finally:
        processes.leave()


def run_command() -> None:
    """Do what sys.argv says: a run, a sweep, or an answer such as `--help`."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(describe_version())
        return
    sys.argv[1:] = preprocess_argv(arguments)
    jobs = Jobs()
    try:
        _run_jobs(jobs)
    except KeyboardInterrupt:
        if (command := continuing_command(arguments, jobs)) and processes.is_first_message():
            print(f"aetrain: interrupted; this command continues:\n  {command}", file=sys.stderr)
        raise
    if jobs.error is not None:
        raise jobs.error
    if SweepCallback.sweep:
        SweepCallback.sweep.raise_failures(continuing_command(arguments, jobs))


def _run_jobs(jobs: "Jobs") -> None:
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(jobs)()
    finally:
        if SweepCallback.sweep:
            SweepCallback.sweep.summarise()


def describe_version() -> str:
    """Return the versions of aetrain and of the packages on which its results depend most, without importing torch."""
    return f"aetrain {__version__} (hydra {version('hydra-core')}, torch {version('torch')})"


def continuing_command(arguments: Sequence[str], jobs: "Jobs") -> str:
    """Return the shell command that continues what `aetrain arguments...` was doing; empty where nothing has begun.

    The default directories hold the time of the start, so that the same command would begin again in others.
    """
    if SweepCallback.sweep:
        fixed = any(text.startswith("hydra.sweep.dir=") for text in sys.argv)  # typed, or that of a saved run
        directory = [] if fixed else [f"hydra.sweep.dir={display_path(SweepCallback.sweep.directory)}"]
        return shlex.join(["aetrain", *arguments, *directory])
    if jobs.interrupted is None:
        return ""
    permission = [text for text in arguments if command_line.key_of(text) == "trust" and command_line.sets_true(text)]
    return " ".join([resume_command(jobs.interrupted), *permission])


@dataclass
class Jobs:
    """The function that Hydra calls for every run, in this process or in a worker.

    The error of a single run is kept and raised later: Hydra would print it in its own way. Errors of the runs of a
    sweep are in the directories of the runs.
    """

    error: Exception | None = None
    interrupted: Path | None = None  # directory of a training that was interrupted, with a record of it

    def __call__(self, config: DictConfig) -> float | tuple[float, ...] | None:
        """Do one run, of a single command or of a sweep; return the objective of a run of a sweep that trains."""
        hydra_config = HydraConfig.get()
        directory = Path(hydra_config.runtime.output_dir)
        overrides = command_line.task_overrides(hydra_config.overrides.task)
        mode = hydra_config.runtime.choices.get("mode")
        reads_runs = mode in command_line.READERS
        if hydra_config.mode == RunMode.RUN:
            try:
                _refuse_several_processes(mode)
                _read_runs(config) if reads_runs else _run(config, directory, overrides)
            except Exception as error:
                self.error = error
            except KeyboardInterrupt:
                if mode == "train" and RunDirectory(directory).status == "interrupted":
                    self.interrupted = directory
                raise
        elif reads_runs:
            raise ConfigError("-m is for runs: leave it out with a mode that reads finished runs")
        else:
            _launch(config, directory, overrides)
            return _objective(config, directory) if mode == "train" else None
        return None


def _refuse_several_processes(mode: str | None) -> None:
    """Raise ConfigError where several processes run a mode that does not train."""
    if mode != "train" and not processes.is_alone():
        raise ConfigError(f"mode={mode} runs in one process, and torchrun has started more: leave out torchrun")


def _read_runs(config: DictConfig) -> None:
    """Call a mode that reads run directories: without torch, so that it starts at once."""
    from aetrain.config.validate import locate, validate
    from aetrain.runs.entry import resolve

    plain = resolve(config)
    checked = {key: {} if key in groups() and key != "mode" else value for key, value in plain.items()}
    runs = checked["run"] if isinstance(checked["run"], list) else []
    for run in runs or [None]:  # each of a list is a run
        validate(checked | ({"run": run} if runs else {}), components=("mode",))
    mode = dict(plain["mode"])
    locate(mode.pop("_target_"))(run=plain["run"], **mode)


def _run(config: DictConfig, directory: Path, overrides: list[str]) -> None:
    """Do a single run in this process."""
    from aetrain.runs import entry

    entry.run(config, directory, overrides)


def _launch(config: DictConfig, directory: Path, overrides: list[str]) -> None:
    """Do a run of a sweep in its own process."""
    from aetrain.runs.request import RunRequest
    from aetrain.sweeps.launch import run_isolated
    from aetrain.sweeps.search.pruning import make_pruning

    hydra_config: Any = HydraConfig.get()
    prune = make_pruning(hydra_config, config)
    run_isolated(RunRequest(config, RunDirectory(directory), overrides, False, is_search(hydra_config), prune))


def _objective(config: DictConfig, directory: Path) -> float | tuple[float, ...]:
    """Return the objective of a run for Hydra's sweepers: a number, or several; NaN if the run did not finish."""
    from aetrain.evaluation.model_selection import objective_names
    from aetrain.sweeps.search.study import read_outcome

    names = objective_names(config.objective)
    values = read_outcome(RunDirectory(directory), names).values or (math.nan,) * len(names)
    return values[0] if len(values) == 1 else values


class SweepCallback(Callback):
    """Remember the folders and the sweep that Hydra is about to begin.

    Hydra creates the instance from `hydra.callbacks`, so the state is in the class.
    """

    folders: ClassVar[list[Path]]  # that did not exist before, innermost first
    sweep: ClassVar[Sweep | None]

    @classmethod
    def reset(cls) -> None:
        """Forget the folders and the sweep of an earlier command of this process."""
        cls.folders, cls.sweep = [], None

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Note the folders that Hydra creates for a single run."""
        with suppress(OmegaConfBaseException):  # Hydra reports it
            SweepCallback.folders = _missing_folders(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Note the sweep and the folders that Hydra creates for it."""
        directory = Path(config.hydra.sweep.dir)
        sweep = Sweep(directory, is_search(config.hydra))
        SweepCallback.folders, SweepCallback.sweep = _missing_folders(directory), sweep
        announce_workers(config.hydra)


def _missing_folders(path: Path) -> list[Path]:
    return [folder for folder in (path, *path.parents) if not folder.exists()]


@contextmanager
def _other_processes() -> Iterator[None]:
    """Lead the other processes of `torchrun` inside; a process that is not the first one follows it, and ends here."""
    if not processes.are_launched():
        yield
        return
    processes.join()
    if processes.rank() > 0:
        from aetrain.runs.follower import follow

        follow()
    yield
    processes.broadcast(None)  # the others, which wait for a training to follow, end


@contextmanager
def _no_empty_folders() -> Iterator[None]:
    """Remove folders that Hydra has created and that stayed empty: a refused command leaves no trace."""
    SweepCallback.reset()
    try:
        yield
    finally:
        forget_workers()
        if SweepCallback.sweep:
            SweepCallback.sweep.clean()
        for folder in SweepCallback.folders:
            with suppress(OSError):  # not empty, or never created
                folder.rmdir()


@contextmanager
def _signal_handlers() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while the command runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hook = threading.excepthook
    process.install_signal_handlers()
    try:
        yield
    finally:
        threading.excepthook = hook
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _errors_as_exceptions() -> Iterator[None]:
    """Let Hydra raise errors instead of printing them in its own way."""
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


def preprocess_argv(arguments: list[str]) -> list[str]:
    """Return the command line with paths quoted, `run=` expanded, and a sweep's runs named by their differences."""
    from aetrain.utils.compat import hydra_argument_parser

    parser = hydra_argument_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # argparse prints the whole usage and exits with 2
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.shell_completion:
        return arguments
    flags = [command_line.expand_config_dir(text) for text in arguments if text not in parsed.overrides]
    overrides = command_line.normalize(parsed.overrides)
    parsed_overrides = typed = command_line.parse(overrides)
    if parsed.multirun and not processes.is_alone():
        raise ConfigError("-m trains many runs, and the processes of torchrun train one run: leave out -m or torchrun")
    if not parsed.multirun:
        command_line.refuse_space(parsed_overrides)
    command_line.forget_saved_options()
    if any(override.key_or_group in command_line.RUN_KEYS for override in parsed_overrides):
        from aetrain.runs.from_saved_run import start_from_run

        overrides = start_from_run(overrides, parsed_overrides, parsed.multirun)
        parsed_overrides = command_line.parse(overrides)
    if parsed.multirun:
        unnamed = ",".join(unnamed_keys(parsed_overrides, typed))
        overrides.append(f"hydra.job.config.override_dirname.exclude_keys=[{unnamed}]")
    return [*flags, *overrides]
