"""Locks between processes: a folder in which one process at a time builds something."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive_work_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty private folder inside `folder`, to one process at a time, and remove it afterwards.

    Raise OSError where `folder` is read-only. The lock is released by the kernel when its holder dies.
    """
    created = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.stat().st_mode & 0o222:  # the superuser could write, but the mark is meant for them, too
        raise PermissionError(errno.EACCES, "it is marked read-only")
    lock, work = folder / ".building.lock", folder / ".building"
    try:
        with FileLock(lock):
            try:
                shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
                work.mkdir()
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
                # Last, and still locked: a process that waits for a lock file that is gone creates a new one.
                with suppress(OSError):
                    lock.unlink()
    finally:
        for path in created:
            with suppress(OSError):  # not empty, as expected
                path.rmdir()


def is_locked(lock_file: Path) -> bool:
    """Return whether another process holds a lock file; False where there is none or it cannot be opened."""
    if not lock_file.is_file():
        return False
    try:
        with FileLock(lock_file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a directory that cannot be written to
        return False
