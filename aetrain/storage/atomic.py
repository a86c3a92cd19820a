"""Write files so that a reader sees the old content or the new, never half of it, also after a power cut."""

import os
from contextlib import suppress
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole, also across a power cut. A file that has this content already is not touched.

    An OSError, such as on a full disk, leaves the old file in place.
    """
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")  # a fixed name, so that a kill leaves at most one
    try:
        write(new, content)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def replace_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) as a whole."""
    replace(path, text.encode())


def write(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, so that a power cut cannot reorder writes and renames."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
