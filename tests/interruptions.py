"""Interrupt sweeps by signals to one of their processes or to all: no result may be lost."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from command import aetrain, process
from conftest import TINY

from aetrain.selfcheck.fingerprint import differences, fingerprint

SWEEP = ("-m", *TINY, "model=linear", "epochs=40", "seed=0,1,2", "hydra.sweep.dir=sweep")
RUNS = tuple(f"seed={seed}" for seed in range(3))
LAUNCHERS = {"basic": [], "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}

# The process that gets the signal, the signal, and the exit codes of the sweep. Ctrl-C in a terminal reaches all.
INTERRUPTIONS = {
    "the sweep is killed": ("sweep", signal.SIGKILL, (-signal.SIGKILL,)),
    "the sweep gets SIGTERM": ("sweep", signal.SIGTERM, (143,)),
    "Ctrl-C": ("all", signal.SIGINT, (130,)),
    "all of it is killed": ("all", signal.SIGKILL, (-signal.SIGKILL,)),
    "a worker is killed": ("worker", signal.SIGKILL, (0, 1)),
}


def whole(folder: Path) -> dict[str, dict[str, str]]:
    """Return the fingerprints of the runs of a sweep that is not interrupted."""
    folder.mkdir()
    outcome = process(SWEEP, folder)
    assert outcome.code == 0, outcome.err
    return {run: fingerprint(folder / "sweep" / run) for run in RUNS}


def interrupted(folder: Path, launcher: str, interruption: str, expected: dict[str, dict[str, str]]) -> list[str]:
    """Interrupt a sweep while it trains and repeat its command at once; return the problems."""
    target, number, codes = INTERRUPTIONS[interruption]
    arguments = [*SWEEP, *LAUNCHERS[launcher]]
    with (folder / "errors").open("wb") as errors:
        sweep = subprocess.Popen(
            [*aetrain(), *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    second_checkpoint = folder / "sweep" / RUNS[1] / "checkpoint"
    deadline = time.monotonic() + 200
    while not second_checkpoint.is_dir() and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if sweep.poll() is not None:
        return [f"the sweep ended with {sweep.returncode} before it was interrupted"]
    match target:
        case "sweep":
            sweep.send_signal(number)
        case "all":
            os.killpg(sweep.pid, number)
        case "worker":
            os.kill(_worker(sweep.pid), number)
    code = sweep.wait(100)
    problems = [] if code in codes else [f"exit code {code}"]
    if (err := (folder / "errors").read_text()).count("\n") > 4 or "Traceback" in err:
        problems.append(f"no short message: {err[:300]}")
    finished_before = {run: _metrics_file(folder, run) for run in RUNS if _is_finished(folder, run)}
    repeated = process(arguments, folder)
    if repeated.code != 0:
        return [*problems, f"the repeated command: exit code {repeated.code}, {repeated.err}"]
    for run in RUNS:
        if differing := differences(expected[run], fingerprint(folder / "sweep" / run)):
            problems.append(f"{run} differs in {', '.join(differing)}")
        if run in finished_before and _metrics_file(folder, run) != finished_before[run]:
            problems.append(f"{run} was finished, and was trained again")
    return problems


def _worker(sweep: int) -> int:
    """Return the worker process of joblib that has started a run: the parent of the process that trains it."""
    for pid in _children(sweep):
        if b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes() and _children(pid):
            return pid
    raise AssertionError("no worker was found")


def _children(pid: int) -> Sequence[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_finished(folder: Path, run: str) -> bool:
    return b'"finished"' in _metrics_file(folder, run)


def _metrics_file(folder: Path, run: str) -> bytes:
    metrics = folder / "sweep" / run / "metrics.json"
    return metrics.read_bytes() if metrics.is_file() else b""
