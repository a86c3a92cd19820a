"""Run the command `aetrain`: in this process, which saves the imports, or in a new process."""

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
    """The exit code of a command and its output on the terminal."""

    code: int
    out: str
    err: str


def command(arguments: Sequence[str], folder: Path) -> Outcome:
    """Run `aetrain arguments...` in a folder, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, _restored_logging():
        patch.setattr(sys, "argv", ["aetrain", *arguments])
        patch.chdir(folder)
        GlobalHydra.instance().clear()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as error:
                code = error.code or 0
    if "hydra/launcher=joblib" in arguments:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)  # its workers stay in the folder in which they began
    if isinstance(code, str):  # the interpreter prints it and exits with 1
        err.write(code + "\n")
        code = 1
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _restored_logging() -> Iterator[None]:
    root, raise_exceptions = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], logging.raiseExceptions = handlers, raise_exceptions
        root.setLevel(level)


def process(arguments: Sequence[str], folder: Path, *, program: Sequence[str] = (), **environment: str) -> Outcome:
    """Run `aetrain arguments...` in a folder, in a new process."""
    completed = subprocess.run(
        [*(program or aetrain()), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(completed.returncode, completed.stdout, completed.stderr)


def aetrain() -> list[str]:
    """Return the console script of the interpreter that runs the tests."""
    return [str(Path(sys.executable).with_name("aetrain"))]


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file below `folder` by its relative path; None for a folder."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
