"""The number of cores that this process may use: the smallest of several limits, each with its reason."""

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import NamedTuple

# Set by the command for the processes of a sweep: the number of runs that are trained side by side on this machine.
WORKERS_VARIABLE = "AETRAIN_WORKERS"

THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Limit(NamedTuple):
    """A number of cores or threads, and its reason."""

    number: int
    reason: str


def usable_cores(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Limit:
    """Return the number of cores that this process may use, at least 1. `root` is the folder of `proc` and `sys`.

    The processes that a launcher runs side by side share the cores of the machine, or of the job of Slurm.
    """
    limits = [*_machine_limits(root), *_job_limits(environment)]
    limit = min(limits, key=lambda limit: limit.number)
    if workers := _workers(environment):
        limit = Limit(limit.number // workers.number, f"{limit.number} cores for {workers.reason}")
    return limit._replace(number=max(1, limit.number))


def _machine_limits(root: Path) -> Iterator[Limit]:
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    yield Limit(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1, "the cores of this process")
    quota = min(_quotas(root), default=None)
    if quota is not None:
        yield Limit(int(quota), f"the quota of its control group, {quota:g} cores")


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each control group that this process is in, from its own to the outermost.

    Linux documents the files in admin-guide/cgroup-v2.rst (`cpu.max`) and scheduler/sched-bwc.rst (version 1).
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":  # version 2
            files, mounts = ["cpu.max"], ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            files, mounts = (
                ["cpu.cfs_quota_us", "cpu.cfs_period_us"],
                ["sys/fs/cgroup/cpu", f"sys/fs/cgroup/{controllers}"],
            )
        else:
            continue
        for mount in mounts:
            for group in (Path(path.strip("/")), *Path(path.strip("/")).parents):
                numbers = " ".join(_read(root / mount / group / name) for name in files).split()
                if len(numbers) == 2 and all(number.isdigit() for number in numbers) and int(numbers[1]):
                    yield int(numbers[0]) / int(numbers[1])


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _workers(environment: Mapping[str, str]) -> Limit | None:
    """Return the number of processes that a launcher runs side by side on this machine; None for a single one."""
    for name, reason in ((WORKERS_VARIABLE, "{} runs at a time"), ("LOCAL_WORLD_SIZE", "{} processes of torchrun")):
        count = first_number(environment.get(name, ""))
        if count and count > 1:
            return Limit(count, reason.format(count))
    return None


def _job_limits(environment: Mapping[str, str]) -> Iterator[Limit]:
    """Yield the cores that a job of Slurm has: those of its task, else its share of those on its machine."""
    if count := first_number(environment.get("SLURM_CPUS_PER_TASK", "")):
        yield Limit(count, f"SLURM_CPUS_PER_TASK={count}")
    elif count := first_number(environment.get("SLURM_CPUS_ON_NODE", "")):
        tasks = first_number(environment.get("SLURM_TASKS_PER_NODE", "")) or 1  # such as 2(x3): 2 on each of 3 machines
        yield Limit(count // tasks, f"SLURM_CPUS_ON_NODE={count}, tasks on this machine: {tasks}")


def user_threads(environment: Mapping[str, str] = os.environ) -> Limit | None:
    """Return the number of threads that the user's environment asks for, in the order of torch; None where it is unset.

    In the workers of a sweep, joblib has set the variables itself: they are an upper limit, which torch has read.
    """
    if WORKERS_VARIABLE in environment:
        return None
    for name in THREAD_VARIABLES:
        if count := first_number(environment.get(name, "")):
            return Limit(count, f"{name}={environment[name]}")
    return None


def forget_default_of_torchrun(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove OMP_NUM_THREADS=1, which `torchrun` sets where the user has set nothing: processes share the cores.

    OpenMP reads the variable when torch is loaded.
    """
    several = (first_number(environment.get("LOCAL_WORLD_SIZE", "")) or 1) > 1
    if several and "TORCHELASTIC_RUN_ID" in environment and environment.get("OMP_NUM_THREADS") == "1":
        del environment["OMP_NUM_THREADS"]


def first_number(text: str) -> int | None:
    """Return the positive number with which a text begins; None where there is none."""
    digits = re.match(r"\s*0*([1-9]\d*)", text)
    return int(digits[1]) if digits else None
