"""One GPU for each of the runs that a launcher trains side by side on a machine with several."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("aetrain")

CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"

SHARED_VARIABLE = "AETRAIN_SHARED_MACHINE"  # set by the command for the processes of a sweep that trains side by side
LOCKS = ".devices"  # folder of the locks of devices, in the sweep's directory

POLL_S = 0.2


@contextmanager
def own_device(device: str, sweep: Path) -> Iterator[None]:
    """Let this process see one CUDA device alone, which no other run of a sweep has; wait until one is free.

    Nothing changes for a run that trains alone, for `device` other than auto and cuda, and where there is only one
    CUDA device, which all runs share. The kernel returns a device when its process dies.
    """
    devices = visible_devices() if SHARED_VARIABLE in os.environ and device in ("auto", "cuda") else []
    if len(devices) < 2:
        yield
        return
    name, lock = _lock_one(sweep / LOCKS, devices)
    os.environ[CUDA_VARIABLE] = name  # before CUDA is initialised, which reads it once
    log.info("GPU:     %s=%s, one of %s", CUDA_VARIABLE, name, ",".join(devices))
    try:
        yield
    finally:
        lock.release()


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the CUDA devices that this process may use: the user's list, as CUDA reads it, or all of the machine."""
    if CUDA_VARIABLE in environment:
        names = (name.strip() for name in environment[CUDA_VARIABLE].split(","))
        return list(dict.fromkeys(takewhile(lambda name: name not in ("", "-1"), names)))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _lock_one(folder: Path, devices: Sequence[str]) -> tuple[str, FileLock]:
    """Return a device and its lock, which is held."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for name in devices:
            lock = FileLock(folder / f"{name.replace('/', '-')}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            return name, lock
        time.sleep(POLL_S)
