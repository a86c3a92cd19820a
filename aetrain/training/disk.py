"""Files that are on the disk once they are written, and are never seen half."""

import os
from contextlib import suppress
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a reader sees the old content or the new, also after a power cut.

    A file that says so already is not touched. An OSError, such as on a full disk, leaves what was there before.
    """
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")  # always the same, so that a kill leaves one at most
    try:
        write(new, content)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def write(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def settle(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, so that a power cut cannot reorder writes and renames."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
