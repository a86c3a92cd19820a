"""Run each task in its own process, so that a crash of one does not affect the rest of a sweep.

The processes are forked from a server that has torch imported, so that each starts at once.
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

from aetrain.config.errors import SigTerm

PRELOADED = [  # modules that every run imports
    "aetrain.api",
    "aetrain.runs.train",
    "aetrain.views.learning_curves",
    "aetrain.views.tensorboard",
    "aetrain.views.tensorboard_link",
    "aetrain.views.thumbnail_strip",
    "google_crc32c",
    "numpy.ctypeslib",
    "aetrain.model.dense",
    "aetrain.training.schedules",
    "aetrain.objective.sparsity",
    "torch.nested._internal.nested_tensor",  # by copies of tensors and checkpoints
    "torch.utils.serialization.config",
    "torch.utils.tensorboard",
    "tensorboard.plugins.hparams.summary_v2",
    "tensorboard.plugins.custom_scalar.layout_pb2",
    "tensorboard.backend.event_processing.event_file_loader",
]

FIGURE_MODULES = [  # modules that every run with figures imports
    "aetrain.views.figure",
    "aetrain.views.plots",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "matplotlib.font_manager",
]

VECTOR_MODULES = ["sklearn.datasets", "sklearn.preprocessing"]  # modules that runs on data other than images import

DEFAULT_UNRAISABLE_HOOK = sys.unraisablehook
RESEND_DELAY_S = 0.05

SHIELDED: set[signal.Signals] = set()  # signals that no other process than this one gets

FINISHED, FAILED, INTERRUPTED = 0, 1, 130


def preload(modules: Sequence[str]) -> None:
    """Import modules in the server, once for all tasks; without effect where the server has started."""
    PRELOADED.extend(module for module in modules if module not in PRELOADED)


def shield(number: signal.Signals) -> None:
    """Let the processes that start from now on, and their server, ignore a signal that an engine sends to all."""
    SHIELDED.add(number)


def start(task: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start `task(*arguments)` in its own process, with this one's folder, environment and log level."""
    process_arguments = (os.getcwd(), dict(os.environ), logging.getLogger().level, task, arguments)
    process: BaseProcess
    if sys.platform == "win32":
        process = multiprocessing.get_context("spawn").Process(target=_begin, args=process_arguments)
    else:
        if "joblib" in sys.modules:  # its workers have a start method of joblib, which the server has to know
            preload(["joblib"])
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=_begin, args=process_arguments)
        with _blocked(SHIELDED):
            resource_tracker.ensure_running()  # its start unblocks SIGINT, so it comes before that is blocked
    with _blocked({signal.SIGINT, *SHIELDED}):
        process.start()
    return process


@contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Deliver signals that arrive inside afterwards; a process that starts inside inherits the block.

    Block SIGINT while forking so that neither the fork server nor a half-started child is interrupted.
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
    """Run `task(*arguments)` in its own process and return its exit code, or minus the signal that killed it.

    An interruption of this process is passed on, and raised here once the task has handled it.
    """
    (code,) = run_all([(task, *arguments)])
    return code


def run_all(tasks: Sequence[tuple[Any, ...]]) -> list[int]:
    """Run several tasks in parallel, each a tuple of a function and its arguments; return their exit codes."""
    processes: list[BaseProcess] = []
    try:
        for task in tasks:
            processes.append(start(*task))  # noqa: PERF401  # an interruption must find those that have started
        for process in processes:
            process.join()
    except KeyboardInterrupt as stop:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM if isinstance(stop, SigTerm) else signal.SIGINT)
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
        install_signal_handlers()
        task(*arguments)
        code = FINISHED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:  # the task has logged it
        pass
    finally:
        logging.shutdown()
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)  # nothing may wait for threads of a failed task


def _die_with_parent() -> None:
    """End this process when its sweep is killed, so that the run's directory does not stay locked."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(FAILED)


def install_signal_handlers() -> None:
    """Let SIGTERM end a run as Ctrl-C does, with a record; further signals do not interrupt that record."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)
        sys.unraisablehook = _resend_signal
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked since before this process started
    threading.excepthook = _ignore_thread_errors


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for handled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(handled, signal.SIG_IGN)
    raise SigTerm if number == signal.SIGTERM else KeyboardInterrupt


def _resend_signal(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send an interruption again that arrived where Python discards exceptions, as in a callback of an import."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        DEFAULT_UNRAISABLE_HOOK(unraisable)
        return
    number = signal.SIGTERM if isinstance(unraisable.exc_value, SigTerm) else signal.SIGINT
    signal.signal(number, _stop)
    timer = threading.Timer(RESEND_DELAY_S, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _ignore_thread_errors(_: threading.ExceptHookArgs) -> None:
    """Print nothing: an error of TensorBoard's writing thread is also raised where the event is added."""


def describe_exit(code: int) -> str:
    """Describe the end of a process by a signal or for an unknown reason."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; a system that runs out of memory kills processes" if code == -signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
