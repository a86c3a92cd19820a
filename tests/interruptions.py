"""Sweeps that are interrupted as a whole, by signals to one of their processes or to all: nothing of them is lost."""

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

# Who is signalled, with what, and what the sweep then ends with: Ctrl-C in a terminal goes to all of its processes.
INTERRUPTIONS = {
    "the sweep is killed": ("sweep", signal.SIGKILL, (-signal.SIGKILL,)),
    "the sweep gets SIGTERM": ("sweep", signal.SIGTERM, (143,)),
    "Ctrl-C": ("all", signal.SIGINT, (130,)),
    "all of it is killed": ("all", signal.SIGKILL, (-signal.SIGKILL,)),
    "a worker is killed": ("worker", signal.SIGKILL, (0, 1)),
}


def whole(folder: Path) -> dict[str, dict[str, str]]:
    """What the runs of the sweep come to when nothing happens to them."""
    folder.mkdir()
    outcome = process(SWEEP, folder)
    assert outcome.code == 0, outcome.err
    return {run: fingerprint(folder / "sweep" / run) for run in RUNS}


def interrupted(folder: Path, launcher: str, interruption: str, wanted: dict[str, dict[str, str]]) -> list[str]:
    """Interrupt a sweep while it trains, say the same again at once, and tell what is not as it should be."""
    whom, number, codes = INTERRUPTIONS[interruption]
    said = [*SWEEP, *LAUNCHERS[launcher]]
    with (folder / "errors").open("wb") as errors:
        sweep = subprocess.Popen(
            [*aetrain(), *said], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    begun = folder / "sweep" / RUNS[1] / "checkpoint"
    deadline = time.monotonic() + 200
    while not begun.is_dir() and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if sweep.poll() is not None:
        return [f"it ended with {sweep.returncode} before anything was done to it"]
    match whom:
        case "sweep":
            sweep.send_signal(number)
        case "all":
            os.killpg(sweep.pid, number)
        case "worker":
            os.kill(_worker(sweep.pid), number)
    code = sweep.wait(100)
    found = [] if code in codes else [f"exit code {code}"]
    if (err := (folder / "errors").read_text()).count("\n") > 4 or "Traceback" in err:
        found.append(f"no short message: {err[:300]}")
    finished = {run: _written(folder, run) for run in RUNS if _is_finished(folder, run)}
    again = process(said, folder)
    if again.code != 0:
        return [*found, f"the same again: exit code {again.code}, {again.err}"]
    for run in RUNS:
        if differ := differences(wanted[run], fingerprint(folder / "sweep" / run)):
            found.append(f"{run} differs in {', '.join(differ)}")
        if run in finished and _written(folder, run) != finished[run]:
            found.append(f"{run} was finished, and was done again")
    return found


def _worker(sweep: int) -> int:
    """The process of joblib's in which a run was begun: the parent of one that holds a run's lock."""
    for pid in _children(sweep):
        if b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes() and _children(pid):
            return pid
    raise AssertionError("there is no worker")


def _children(pid: int) -> Sequence[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_finished(folder: Path, run: str) -> bool:
    return b'"finished"' in _written(folder, run)


def _written(folder: Path, run: str) -> bytes:
    metrics = folder / "sweep" / run / "metrics.json"
    return metrics.read_bytes() if metrics.is_file() else b""
