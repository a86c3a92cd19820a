"""A run in a process of its own, so that nothing that happens to it can happen to the rest of a sweep.

The processes are forked off one that has torch imported and has done nothing else, so that each begins at once.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

from aetrain.config.errors import Terminated

PRELOADED = [  # what every run imports sooner or later
    "aetrain.library",
    "aetrain.model.dense",
    "aetrain.training.schedules",
    "aetrain.objective.sparsity",
    "torch.utils.tensorboard",
    "tensorboard.plugins.hparams.summary_v2",
    "tensorboard.plugins.custom_scalar.layout_pb2",
    "tensorboard.backend.event_processing.event_file_loader",
    "sklearn.datasets",
]

UNRAISABLE = sys.unraisablehook  # what is said of other errors that cannot be raised
SOON = 0.05  # seconds

FINISHED, FAILED, INTERRUPTED = 0, 1, 130


def start(task: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Begin `task(*arguments)` in a process of its own, in this one's folder, environment and logging."""
    given = (os.getcwd(), dict(os.environ), logging.getLogger().level, task, arguments)
    process: BaseProcess
    if sys.platform == "win32":
        process = multiprocessing.get_context("spawn").Process(target=_begin, args=given)
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=_begin, args=given)
        resource_tracker.ensure_running()  # its beginning lets signals in again, and so comes before they are held back
    with _held_back({signal.SIGINT}):
        process.start()
    return process


@contextmanager
def _held_back(signals: set[signal.Signals]) -> Iterator[None]:
    """Signals that come inside are heard afterwards; processes that begin inside hear none until they say so.

    So a Ctrl-C neither ends the process that forks the others while it still imports, nor strikes a run before it is
    ready for it.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(task: Callable[..., Any], *arguments: Any) -> int:
    """Do `task(*arguments)` there and wait: its exit code, or minus the signal that killed it.

    An interruption of this process is passed on, and raised here once the task has seen to it.
    """
    (code,) = run_all([(task, *arguments)])
    return code


def run_all(tasks: Sequence[tuple[Any, ...]]) -> list[int]:
    """The same of several tasks, each with its arguments behind it, side by side."""
    processes: list[BaseProcess] = []
    try:
        for task in tasks:
            processes.append(start(*task))  # noqa: PERF401  # an interruption has to find those that have begun
        for process in processes:
            process.join()
    except KeyboardInterrupt as stop:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
        for process in processes:
            process.join()
        raise
    codes = [FAILED if process.exitcode is None else process.exitcode for process in processes]
    if INTERRUPTED in codes:
        raise KeyboardInterrupt
    return codes


def _begin(
    folder: str, environment: Mapping[str, str], level: int, task: Callable[..., Any], arguments: Sequence[Any]
) -> NoReturn:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    logging.raiseExceptions = False
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout, force=True)
    code = FAILED
    try:
        stoppable()
        task(*arguments)
        code = FINISHED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:  # the task has said so itself
        pass
    finally:
        logging.shutdown()
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)  # nothing that is left may wait for what has gone wrong


def _die_with_parent() -> None:
    """Do not go on alone when a sweep is killed: nobody would know, and its directory would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(FAILED)


def stoppable() -> None:
    """Let SIGTERM end a run as Ctrl-C does, with a record, and let neither disturb the making of that record."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)
        sys.unraisablehook = _stop_again
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back since before it began
    threading.excepthook = _quiet


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _stop_again(lost: "sys.UnraisableHookArgs") -> None:
    """An interruption that struck where Python lets nothing out of, as in a callback of an import, comes once more."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        UNRAISABLE(lost)
        return
    number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
    signal.signal(number, _stop)
    again = threading.Timer(SOON, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _quiet(_: threading.ExceptHookArgs) -> None:
    """What TensorBoard's writing thread runs into is raised where it is written to, too."""


def cause_of_death(code: int) -> str:
    """What to say of a process that ended by a signal, or for no known reason."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; a system that runs out of memory does that" if code == -signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
