"""The command as a user meets it: in this process, which saves the imports, or in one of its own."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from aetrain import cli


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal, and its exit code."""

    code: int
    out: str
    err: str


def command(arguments: Sequence[str], folder: Path) -> Outcome:
    """`aetrain arguments...` in a folder, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, _own_logging():
        patch.setattr(sys, "argv", ["aetrain", *arguments])
        patch.chdir(folder)
        GlobalHydra.instance().clear()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
    if isinstance(code, str):  # as the interpreter does
        err.write(code + "\n")
        code = 1
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    root, loud = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], logging.raiseExceptions = handlers, loud
        root.setLevel(level)


def process(arguments: Sequence[str], folder: Path, *, program: Sequence[str] = (), **environment: str) -> Outcome:
    """`aetrain arguments...` in a folder, in a process of its own."""
    ended = subprocess.run(
        [*(program or aetrain()), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def aetrain() -> list[str]:
    """The console script of the interpreter that runs the tests."""
    return [str(Path(sys.executable).with_name("aetrain"))]


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with what the files hold."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
