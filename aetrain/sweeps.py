"""How the runs of a sweep are run: each in a process of its own, or many in one that trains them together.

Torch is imported in those processes alone.
"""

import logging
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from omegaconf import DictConfig

from aetrain import apart
from aetrain.directory import RunDirectory

log = logging.getLogger("aetrain")


@dataclass(frozen=True)
class Asked:
    """A run of a sweep: its config, where it goes, and the overrides that make it."""

    config: DictConfig
    directory: Path
    overrides: list[str]


def alone(run: Asked) -> None:
    """One of many, in a process of its own: whatever becomes of it is on record, and the others go on."""
    home = RunDirectory(run.directory)
    sys.stdout.flush()
    code = apart.run(_alone, run)
    if code != apart.FINISHED and home.status not in ("failed", "finished") and not home.alive:
        home.record_failure(run.config, run.overrides, "failed", apart.cause_of_death(code))
        home.release()


def _alone(run: Asked) -> None:
    from aetrain import experiment

    experiment.run(run.config, run.directory, run.overrides, single=False)


def packed(runs: Sequence[Asked], size: int) -> None:
    """All of them, those together that can be, up to `size` at once, and the others one by one.

    A pack is a process of its own, or on a CPU one for each core, with a share of the runs. Whatever it leaves undone,
    as it does when something breaks in it, is then gone on with one by one, where each run meets its own fate.
    """
    left = list(runs)
    while left:
        before = [RunDirectory(run.directory).written for run in left]
        ours, theirs = multiprocessing.Pipe(duplex=False)
        sys.stdout.flush()
        codes = [apart.run(_plan, left, size, theirs)]
        packs: list[list[int]] = []
        taken = list(range(len(left)))
        if ours.poll():
            taken, packs, threads = ours.recv()
            codes += apart.run_all([(_pack, [left[i] for i in pack], threads) for pack in packs])
        for code in codes:
            if code != apart.FINISHED:
                cause = apart.cause_of_death(code)
                log.warning("a pack is no more: %s; what it has left undone goes on one by one", cause)
        for i in taken:
            home = RunDirectory(left[i].directory)
            if home.written == before[i] or home.status not in ("finished", "failed"):
                alone(left[i])
        left = [run for i, run in enumerate(left) if i not in taken]


def _plan(runs: Sequence[Asked], size: int, answer: Connection) -> None:
    from aetrain import packs

    answer.send(packs.plan(runs, size))


def _pack(runs: Sequence[Asked], threads: int) -> None:
    from aetrain import packs

    packs.run(runs, threads)
