"""Runs that are killed: at a named moment, of all the moments that the same run passes through."""

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

from aetrain import apart

Place = tuple[str, int]  # a line of aetrain's, or a kind of file operation of anybody's (then the number is 0)

PACKAGE = str(Path(__file__).resolve().parent.parent)

# Where the moments that matter lie: an epoch, what is written of it, and who may write.
ROOMS = ("experiment.py", "attempt.py", "directory.py", "training/checkpoint.py", "training/fit.py", "views/logbook.py")
OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "shutil.rmtree", "os.truncate"}


@dataclass(frozen=True)
class Moment:
    """The `count`th time that a place is passed."""

    place: Place
    count: int
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        name, line = self.place
        return f"{signal.Signals(self.signal).name} at {name}{f':{line}' if line else ''} ({self.count})"


def run(overrides: Sequence[str], kill: Moment | None = None) -> int:
    """`aetrain overrides...` in a process of its own, killed at a moment; its exit code, or minus the signal."""
    return _ended(_run, list(overrides), kill)


def run_of(config: DictConfig, directory: Path, kill: Moment | None = None) -> int:
    """The same from a config, as a run of no words."""
    return _ended(_run_of, config, directory, kill)


def moments(overrides: Sequence[str], note: Path) -> "Counter[Place]":
    """All places that a run passes, and how often; `note` is a file to hand them over in."""
    return _noted(_ended(_count, list(overrides), note), note)


def moments_of(config: DictConfig, directory: Path, note: Path) -> "Counter[Place]":
    """The same from a config."""
    return _noted(_ended(_count_of, config, directory, note), note)


def _ended(task: Callable[..., None], *arguments: Any) -> int:
    process = apart.start(task, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _noted(code: int, note: Path) -> "Counter[Place]":
    if code != apart.FINISHED:
        raise RuntimeError(f"the run that is only watched ended with exit code {code}")
    return Counter({(name, int(line)): int(n) for name, line, n in map(str.split, note.read_text().splitlines())})


def any_moment(passed: "Counter[Place]", chance: random.Random, signals: Sequence[int] = (signal.SIGKILL,)) -> Moment:
    """A moment at random: any place as likely as any other, however often it is passed."""
    place = chance.choice(sorted(passed))
    return Moment(place, chance.randint(1, passed[place]), chance.choice(signals))


def damage_newest(run: Path, chance: random.Random) -> str:
    """What a power cut may do to the file that was written last: nothing, cut it off, or lose it. Says which."""
    files = [file for file in run.rglob("*") if file.is_file()]
    if not files:
        return "nothing there"
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    how = chance.choice(["kept", "cut", "deleted"])
    if how == "cut":
        os.truncate(newest, chance.randint(0, newest.stat().st_size))
    elif how == "deleted":
        newest.unlink()
    return f"{how} {newest.relative_to(run)}"


def _run(overrides: list[str], kill: Moment | None) -> None:
    from aetrain import experiment, library

    _die_at(kill)
    experiment.run(*library.composed(overrides))


def _run_of(config: DictConfig, directory: Path, kill: Moment | None) -> None:
    from aetrain import experiment

    logging.getLogger().setLevel(logging.ERROR)
    _die_at(kill)
    experiment.run(config, directory)


def _count(overrides: list[str], note: Path) -> None:
    from aetrain import library

    _counted(note, lambda: library.composed(overrides))


def _count_of(config: DictConfig, directory: Path, note: Path) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    _counted(note, lambda: (config, directory, []))


def _counted(note: Path, composed: Callable[[], tuple[DictConfig, Path, list[str]]]) -> None:
    from aetrain import experiment

    passed: Counter[Place] = Counter()
    _watch(lambda place: passed.update([place]))
    experiment.run(*composed())
    sys.settrace(None)
    note.write_text("".join(f"{name} {line} {n}\n" for (name, line), n in list(passed.items())))


def _die_at(kill: Moment | None) -> None:
    if kill is None:
        return
    left = kill.count

    def count_down(place: Place) -> None:
        nonlocal left
        if place == kill.place:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), kill.signal)

    _watch(count_down)


def _watch(passing: Callable[[Place], None]) -> None:
    """Have every line of the rooms that matter, and every file operation, told before it is done."""

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            passing((os.path.relpath(frame.f_code.co_filename, PACKAGE), frame.f_lineno))
        return line

    def call(frame: FrameType, *_: Any) -> Any:
        name = frame.f_code.co_filename
        return line if name.startswith(PACKAGE) and name.endswith(ROOMS) else None

    def operation(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in OPERATIONS and writes:
            passing((event, 0))

    sys.addaudithook(operation)
    sys.settrace(call)
