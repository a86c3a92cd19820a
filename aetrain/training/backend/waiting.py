"""Waiting threads of OpenMP: they spin on a free machine and sleep at once while other programs want the cores."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aetrain.utils.wait_policy import is_set_by_user

INTERVAL_S = 0.2  # between two looks at the machine
BUSY_SHARE, CALM_SHARE = 0.1, 0.02  # of the time, in which the training thread was ready and waited for a core
PARALLEL_SIZE = 1 << 17  # elements, for which torch uses all of its threads


@contextmanager
def sleep_where_busy() -> Iterator[None]:
    """Let waiting threads sleep at once, inside and while the machine is busy; no number changes.

    A thread that spins for another one takes the core that the other needs: runs that share their cores collapse. A
    thread that sleeps takes longer to wake up, which costs a run on a free machine a third of its speed. GNU OpenMP
    spins hardly at all while a process has more OpenMP threads than cores (GOMP_SPINCOUNT in its manual). Idle threads
    are therefore added where the training thread has to wait for a core, and removed where it has not.

    Nothing is done for one thread, where the user has set a wait policy, or where the system does not tell the time
    that a thread has waited for a core.
    """
    waited = waiting_clock()
    threads = torch.get_num_threads()
    if threads == 1 or waited is None or is_set_by_user():
        yield
        return
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(waited, stop, IdleTeams(threads)), daemon=True)
    watch.start()
    try:
        yield
    finally:
        stop.set()
        watch.join()


def waiting_clock() -> Callable[[], float] | None:
    """Return a function that tells for how many seconds the calling thread has waited for a core; None without one."""
    file = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def waited() -> float:
        return int(file.read_text().split()[1]) * 1e-9

    try:
        waited()
    except (OSError, ValueError, IndexError):  # another system than Linux, or one without these statistics
        return None
    return waited


class IdleTeams:
    """Teams of OpenMP threads without work, which make a process have more of them than cores."""

    def __init__(self, threads: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self.count = max(1, math.ceil(cores / (threads - 1)) - 1)  # the calling thread of a team does not count
        self._release: threading.Event | None = None
        self._holders: list[threading.Thread] = []

    @property
    def exist(self) -> bool:
        """Tell whether the teams exist."""
        return self._release is not None

    def create(self) -> None:
        """Create the teams; return when they exist."""
        self._release = threading.Event()
        created = threading.Barrier(self.count + 1)
        arguments = (created, self._release)
        self._holders = [threading.Thread(target=_hold_team, args=arguments, daemon=True) for _ in range(self.count)]
        for holder in self._holders:
            holder.start()
        created.wait()

    def remove(self) -> None:
        """Remove the teams, where they exist."""
        if self._release is not None:
            self._release.set()
            for holder in self._holders:
                holder.join()
        self._release = None


def _hold_team(created: threading.Barrier, release: threading.Event) -> None:
    """Keep the team that OpenMP makes for each thread with parallel work, until it ends."""
    torch.zeros(PARALLEL_SIZE).add_(1)
    created.wait()
    release.wait()


def _watch(waited: Callable[[], float], stop: threading.Event, teams: IdleTeams) -> None:
    """Have idle teams while the share of time spent waiting for a core is large."""
    before = time.perf_counter(), waited()
    while not stop.wait(INTERVAL_S):
        now = time.perf_counter(), waited()
        share = (now[1] - before[1]) / (now[0] - before[0])
        before = now
        if share > BUSY_SHARE and not teams.exist:
            teams.create()
        elif share < CALM_SHARE:
            teams.remove()
    teams.remove()
