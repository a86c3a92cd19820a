"""Fault injection: runs in processes of their own that are killed at a chosen line or file operation."""

import logging
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from aetrain.runs import process

CodeLocation = tuple[str, int]  # a file of the package and a line; or a kind of file operation and 0
ComposedRun = tuple[DictConfig, Path, Sequence[str]]  # config, directory, overrides

PACKAGE = Path(__file__).resolve().parent.parent

# The code of an epoch, of everything that is written after it, and of the locks.
TRACED_FILES = (
    "runs/entry.py",
    "runs/epoch_selection.py",
    "runs/train.py",
    "runs/training_run.py",
    "storage/run_directory.py",
    "storage/checkpoint.py",
    "training/weight_copies.py",
    "training/loop.py",
    "training/step.py",
    "views/tensorboard.py",
)
# Audit events of Python (PEP 578) that change files. `open` counts only for writing.
FILE_OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "shutil.rmtree", "os.truncate"}


@dataclass(frozen=True)
class KillPoint:
    """The `count`th execution of a code location, and the signal that the process then gets."""

    location: CodeLocation
    count: int
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        name, line = self.location
        position = f"{name}:{line}" if line else name
        return f"{signal.Signals(self.signal).name} at {position} ({self.count})"


def run(overrides: Sequence[str], kill_point: KillPoint | None = None) -> int:
    """Run `aetrain overrides...`, killed at a point; return the exit code, or minus the signal."""
    try:
        composed = _compose(overrides)
    except Exception:  # the config of a killed run may be damaged
        return process.FAILED
    return _exit_code(_run, composed, None, kill_point)


def run_config(config: DictConfig, directory: Path, kill_point: KillPoint | None = None) -> int:
    """Run a config without log lines, killed at a point; return the exit code, or minus the signal."""
    return _exit_code(_run, (config, directory, []), logging.ERROR, kill_point)


def trace(overrides: Sequence[str], file: Path) -> "Counter[CodeLocation]":
    """Run `aetrain overrides...`; return how often each location was executed. `file` passes the counts on."""
    return _traced(_compose(overrides), None, file)


def trace_config(config: DictConfig, directory: Path, file: Path) -> "Counter[CodeLocation]":
    """Run a config without log lines; return how often each location was executed. `file` passes the counts on."""
    return _traced((config, directory, []), logging.ERROR, file)


def random_kill_point(
    counts: "Counter[CodeLocation]", generator: random.Random, signals: Sequence[int] = (signal.SIGKILL,)
) -> KillPoint:
    """Draw a kill point: every location is equally likely, then every execution of it."""
    location = generator.choice(sorted(counts))
    return KillPoint(location, generator.randint(1, counts[location]), generator.choice(signals))


def damage_newest_file(run_dir: Path, generator: random.Random) -> str:
    """Keep, cut off or delete the newest file, as a power cut may; return a description."""
    files = [file for file in run_dir.rglob("*") if file.is_file()]
    if not files:
        return "no files"
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    damage = generator.choice(["kept", "cut", "deleted"])
    if damage == "cut":
        os.truncate(newest, generator.randint(0, newest.stat().st_size))
    elif damage == "deleted":
        newest.unlink()
    return f"{damage} {newest.relative_to(run_dir)}"


def _compose(overrides: Sequence[str]) -> ComposedRun:
    """Compose a run here, because a process composes its second config in a third of the time."""
    from aetrain import api

    return api.compose_config(overrides)


def _exit_code(task: Callable[..., None], *arguments: Any) -> int:
    child = process.start(task, *arguments)
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _traced(composed: ComposedRun, level: int | None, file: Path) -> "Counter[CodeLocation]":
    code = _exit_code(_count, composed, level, file)
    if code != process.FINISHED:
        raise RuntimeError(f"the traced run ended with exit code {code}")
    lines = (line.split() for line in file.read_text().splitlines())
    return Counter({(name, int(line)): int(count) for name, line, count in lines})


# The functions below run in the child process.


def _run(composed: ComposedRun, level: int | None, kill_point: KillPoint | None) -> None:
    from aetrain.runs import entry

    _set_log_level(level)
    if kill_point is not None:
        _kill_at(kill_point)
    entry.run(*composed)


def _count(composed: ComposedRun, level: int | None, file: Path) -> None:
    from aetrain.runs import entry

    _set_log_level(level)
    counts: Counter[CodeLocation] = Counter()
    _install_hooks(lambda location: counts.update([location]))
    entry.run(*composed)
    sys.settrace(None)
    file.write_text("".join(f"{name} {line} {count}\n" for (name, line), count in list(counts.items())))


def _set_log_level(level: int | None) -> None:
    if level is not None:
        logging.getLogger().setLevel(level)


def _kill_at(kill_point: KillPoint) -> None:
    """Have this process killed at a point."""
    remaining = kill_point.count

    def count_down(location: CodeLocation) -> None:
        nonlocal remaining
        if location == kill_point.location:
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), kill_point.signal)

    _install_hooks(count_down)


def _install_hooks(before: Callable[[CodeLocation], None]) -> None:
    """Call `before` ahead of every line of TRACED_FILES and of every file operation of any code."""
    traced_files = {str(PACKAGE / name): name for name in TRACED_FILES}

    def trace_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            before((traced_files[frame.f_code.co_filename], frame.f_lineno))
        return trace_line

    def trace_call(frame: FrameType, *_: Any) -> Any:
        return trace_line if frame.f_code.co_filename in traced_files else None

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_OPERATIONS:
            return
        if event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            before((event, 0))

    sys.addaudithook(audit)
    sys.settrace(trace_call)
