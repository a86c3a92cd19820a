"""Runs on a small file system that is full or read-only, and the same runs when it is not any longer.

    python smalldisk.py filled|read_only FOLDER [OVERRIDES...]

`small_disk` starts it in a mount namespace, which ends with the process.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

DISK_BYTES = 8 * 2**20
PAGE_BYTES = 4096  # a file of a tmpfs takes whole pages


def namespace() -> list[str]:
    """Return the beginning of a command that may mount file systems; empty where this system allows none."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        with_mount = [*words, "sh", "-c", 'mount -t tmpfs none "$1"', "sh"]
        if shutil.which("unshare") and subprocess.run([*with_mount, "/mnt"], capture_output=True).returncode == 0:
            return words
    return []


def small_disk(unshare: list[str], folder: Path, task: str, *overrides: str) -> list[dict[str, Any]]:
    """Run a task of TASKS in the namespace that the command `unshare` creates; return its outcomes."""
    program = [*unshare, sys.executable, "-W", "ignore", __file__, task, str(folder), *overrides]
    completed = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert completed.returncode == 0, completed.stderr
    return list(json.loads(completed.stdout.splitlines()[-1]))


def filled(disk: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Run on a disk with space for a part of the files of the run, then with enough space."""
    uninterrupted = disk.parent / "uninterrupted"
    needed = _used_bytes(_run(overrides, disk.parent, uninterrupted))
    free_sizes = [needed * part // 5 for part in range(5)]
    return [_run_twice(overrides, disk, uninterrupted, partial(_fill, disk, size)) for size in free_sizes]


def read_only(disk: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Resume a run on a read-only disk, then on the same disk when it can be written to."""
    uninterrupted = disk.parent / "uninterrupted"
    _run([*overrides, "epochs=4"], disk.parent, uninterrupted)
    _run(overrides, disk.parent, disk / "run")

    def remount_read_only() -> Callable[[], None]:
        _remount(disk, "ro")
        return partial(_remount, disk, "rw")

    return [_run_twice([*overrides, "epochs=4"], disk, uninterrupted, remount_read_only)]


TASKS = {"filled": filled, "read_only": read_only}


def _remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def _run_twice(
    overrides: list[str], disk: Path, uninterrupted: Path, block: Callable[[], Callable[[], None]]
) -> dict[str, Any]:
    """Run the same command on a blocked disk and on the unblocked disk; return both outcomes.

    `block` returns the function that unblocks the disk.
    """
    from command import command, everything_in

    from aetrain import api
    from aetrain.selfcheck.fingerprint import differences, fingerprint

    run = disk / "run"
    arguments = [*overrides, f"hydra.run.dir='{run}'"]
    unblock = block()
    first = command(arguments, disk.parent)
    files = everything_in(disk)
    unblock()
    if any(name.endswith("checkpoint/state.json") for name in files):
        api.load(run)
    repeated = command(arguments, disk.parent)
    differing = differences(fingerprint(uninterrupted), fingerprint(run))
    shutil.rmtree(run)
    unfinished = [name for name in files if name.endswith(".new")]
    return {
        "first": asdict(first),
        "repeated": asdict(repeated),
        "differences": differing,
        "unfinished": unfinished,
    }


def _run(overrides: list[str], folder: Path, run: Path) -> Path:
    from command import command

    outcome = command([*overrides, f"hydra.run.dir='{run}'"], folder)
    assert outcome.code == 0, outcome.err
    return run


def _used_bytes(run: Path) -> int:
    return sum(-(-file.stat().st_size // PAGE_BYTES) * PAGE_BYTES for file in run.rglob("*"))


def _fill(disk: Path, free_bytes: int) -> Callable[[], None]:
    """Fill the disk up to `free_bytes` with one file; return the function that removes it."""
    filler, status = disk / "filler", os.statvfs(disk)
    filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - free_bytes)))
    return filler.unlink


def main(task: str, folder: str, *overrides: str) -> None:
    disk = Path(folder) / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", disk], check=True)
    try:
        outcomes = TASKS[task](disk, list(overrides))
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
