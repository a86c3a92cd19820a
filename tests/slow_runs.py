"""Runs that are slow where the environment says so, and record in which surroundings they train."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

RUN = (
    *("--config-dir", "mine", "-m", "dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "batch_size=32"),
    *("views=none", "model=linear", "noise=slow", "hydra.sweep.dir=sweep"),
)

MODULE = '''
import json, os, time
from pathlib import Path
from aetrain.data.noise import NoNoise

START = time.time()


class Slow(NoNoise):
    """Wait, and record the surroundings."""

    def __call__(self, x, generator=None):
        time.sleep(float(os.environ.get("SLOW_S", "0")))
        file = Path("records") / f"{os.environ.get('SLURM_JOB_ID', '')}-{os.getpid()}"
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_suffix(".new")
        times = {"start": START, "end": time.time(), "pid": os.getpid()}
        unfinished.write_text(json.dumps(times | {"environment": dict(os.environ)}))
        unfinished.replace(file)
        return x
'''


@dataclass(frozen=True)
class Record:
    """The surroundings of the process of a run."""

    start: float
    end: float
    pid: int
    environment: dict[str, str]


def write_slow_noise(folder: Path) -> dict[str, str]:
    """Write a noise that changes nothing into a folder; return the environment of the commands that use it."""
    (folder / "mine" / "noise").mkdir(parents=True)
    (folder / "slow_noise.py").write_text(MODULE)
    (folder / "mine" / "noise" / "slow.yaml").write_text("# Delay.\n_target_: slow_noise.Slow\n")
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


def read_records(folder: Path) -> list[Record]:
    """Return the records of runs, in the order of their starts."""
    files = [file for file in (folder / "records").glob("*") if file.suffix != ".new"]
    return sorted((Record(**json.loads(file.read_text())) for file in files), key=lambda record: record.start)


def problems_of_devices(records: list[Record], devices: set[str]) -> list[str]:
    """Return which runs did not see one of some devices alone, or shared it with another run at the same time."""
    used = [(record, record.environment.get("CUDA_VISIBLE_DEVICES", "")) for record in records]
    problems = [f"{record.pid} has {device!r}" for record, device in used if device not in devices]
    for one, device in used:
        for other, other_device in used:
            together = one.pid < other.pid and one.start < other.end and other.start < one.end
            if together and device == other_device:
                problems.append(f"{one.pid} and {other.pid} have {device}")
    return problems
