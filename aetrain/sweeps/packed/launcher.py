"""Launch the runs of a sweep in packs; a run that fits no pack, or whose pack failed, runs by itself."""

import logging
import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from aetrain.runs import process
from aetrain.runs.request import RunRequest
from aetrain.sweeps.launch import run_isolated

log = logging.getLogger("aetrain")


def run_packed(requests: Sequence[RunRequest], size: int) -> None:
    """Do all runs, in packs of at most `size` runs where possible.

    A pack is trained in its own process, on a CPU in one for each core with a share of the runs. Runs that a pack
    leaves unfinished, as after an error, run individually, where each records its own failure.
    """
    remaining = list(requests)
    while remaining:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        sys.stdout.flush()
        codes = [process.run(_plan, remaining, size, sender)]
        shares: list[list[int]] = []
        planned = list(range(len(remaining)))
        if receiver.poll():
            planned, shares, threads = receiver.recv()
            codes += process.run_all([(_train, [remaining[i] for i in share], threads) for share in shares])
        for code in codes:
            if code != process.FINISHED:
                cause = process.describe_exit(code)
                log.warning("a packed process ended (%s): its unfinished runs continue individually", cause)
        for i in planned:
            if not remaining[i].run_dir.outcome_file.is_file():
                run_isolated(remaining[i])
        remaining = [request for i, request in enumerate(remaining) if i not in planned]


def _plan(requests: Sequence[RunRequest], size: int, sender: Connection) -> None:
    from aetrain.sweeps.packed.plan import plan

    sender.send(plan(requests, size))


def _train(requests: Sequence[RunRequest], threads: int) -> None:
    from aetrain.sweeps.packed.packed_training import train_requests

    train_requests(requests, threads)
