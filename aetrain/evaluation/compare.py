"""How to open what a run or a sweep has left in TensorBoard."""

import os
import shutil
import sys
from pathlib import Path


def tensorboard_command(logdir: Path) -> str:
    """What opens TensorBoard on a folder, to be typed where this process was started.

    TensorBoard keeps 10 pictures of a tag by default, drawn by lot: more are asked for, so that none is missing.
    """
    beside = Path(sys.executable).with_name("tensorboard")
    found = shutil.which("tensorboard")
    on_path = found is not None and Path(found) == beside
    program = "tensorboard" if on_path or not beside.is_file() else _short(beside)
    return f"{program} --logdir {_short(logdir)} --samples_per_plugin images=500,scalars=50000"


def _short(path: Path) -> str:
    """Relative to the working directory where it is below it."""
    path = path.absolute()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
