"""Runs on a small file system of their own that is full, or can only be read: what comes of them, and after that.

    python smalldisk.py filled|read_only FOLDER [aetrain's words...]

To be started by `small_disk`, in a namespace where the file system is nobody else's and goes with the process.
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

MEBI = 2**20


def namespace() -> list[str]:
    """The beginning of a command that may mount what it likes; empty where nothing of the kind is to be had."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        with_mount = [*words, "sh", "-c", 'mount -t tmpfs none "$1"', "sh"]
        if shutil.which("unshare") and subprocess.run([*with_mount, "/mnt"], capture_output=True).returncode == 0:
            return words
    return []


def small_disk(words: list[str], folder: Path, task: str, *said: str) -> list[dict[str, Any]]:
    """What `task` found, one of those below, in a namespace that `words` begin."""
    program = [*words, sys.executable, "-W", "ignore", __file__, task, str(folder), *said]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout.splitlines()[-1]))


def filled(disk: Path, said: list[str]) -> list[dict[str, Any]]:
    """A run on a disk with room for some part of what it writes, then the same with room enough."""
    whole = disk.parent / "whole"
    needed = _used(_fine(said, disk.parent, whole))
    rooms = [needed * part // 5 for part in range(5)]
    return [_twice(said, disk, whole, partial(_ballast, disk, room)) for room in rooms]


def read_only(disk: Path, said: list[str]) -> list[dict[str, Any]]:
    """A run that is to go on with on a disk that can only be read, then the same where it can be written to again."""
    whole = disk.parent / "whole"
    _fine([*said, "epochs=4"], disk.parent, whole)
    _fine(said, disk.parent, disk / "run")

    def seal() -> Callable[[], None]:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        return lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True) and None

    return [_twice([*said, "epochs=4"], disk, whole, seal)]


def _twice(said: list[str], disk: Path, whole: Path, hinder: Callable[[], Callable[[], None]]) -> dict[str, Any]:
    """The same command hindered and then not, and what it came to."""
    from command import command, everything_in

    from aetrain import api
    from aetrain.selfcheck.fingerprint import differences, fingerprint

    run, words = disk / "run", [*said, f"hydra.run.dir='{disk / 'run'}'"]
    free = hinder()
    first = command(words, disk.parent)
    left = everything_in(disk)
    free()
    if any(name.endswith("checkpoint/state.json") for name in left):
        api.load(run)
    again = command(words, disk.parent)
    differ = differences(fingerprint(whole), fingerprint(run))
    shutil.rmtree(run)
    unfinished = [name for name in left if name.endswith(".new")]
    return {"first": asdict(first), "again": asdict(again), "differ": differ, "unfinished": unfinished}


def _fine(said: list[str], folder: Path, run: Path) -> Path:
    from command import command

    outcome = command([*said, f"hydra.run.dir='{run}'"], folder)
    assert outcome.code == 0, outcome.err
    return run


def _used(run: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in run.rglob("*"))


def _ballast(disk: Path, room: int) -> Callable[[], None]:
    """Leave so much room and no more."""
    ballast, free = disk / "ballast", os.statvfs(disk)
    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room)))
    return ballast.unlink


def main(task: str, folder: str, *said: str) -> None:
    disk = Path(folder) / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={8 * MEBI}", "none", disk], check=True)
    try:
        found = {"filled": filled, "read_only": read_only}[task](disk, list(said))
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
