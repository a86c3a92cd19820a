"""Sweeps that lose runs: each is recorded with its cause, the others go on, and the same command takes up the rest."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import Outcome, aetrain, process
from conftest import TINY

# A noise that does what it is told to in its first epoch, but not where a file called `mended` lies.
MODULE = '''
import os, signal, sys
from pathlib import Path
from aetrain.data.noise import Clean


class Faulty(Clean):
    """Does harm."""

    def __init__(self, fault: str) -> None:
        object.__setattr__(self, "fault", fault)

    def __call__(self, x, generator=None):
        if Path("mended").exists():
            return x
        match self.fault:
            case "raise":
                raise RuntimeError("something broke")
            case "diverge":
                return x * float("nan")
            case "memory":
                raise MemoryError("no more of it")
            case "exit":
                sys.exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
        return x
'''

CAUSES = {
    "raise": "RuntimeError: something broke",
    "diverge": "is nan",
    "memory": "MemoryError: no more of it",
    "exit": "SystemExit: 0",
    "kill": "killed by SIGKILL",
    "segfault": "killed by SIGSEGV",
}
NEEDS = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
    "packed": ["hydra/launcher=packed"],
}


def place(folder: Path) -> Path:
    """A folder with a noise of the user's own, which does harm."""
    (folder / "mine" / "noise").mkdir(parents=True)
    (folder / "faulty_noise.py").write_text(MODULE)
    (folder / "mine" / "noise" / "faulty.yaml").write_text("# Harm.\n_target_: faulty_noise.Faulty\nfault: none\n")
    return folder


def sweep(folder: Path, launcher: str, *overrides: str) -> Outcome:
    """A sweep over the faults, in a process of its own."""
    faults = f"noise.fault=none,{','.join(CAUSES)},other"
    said = ["-m", *TINY, "model=linear", "noise=faulty", faults, "hydra.sweep.dir=sweep", *LAUNCHERS[launcher]]
    program = [sys.executable, "-m", "aetrain", "--config-dir", "mine"]
    return process(
        [*said, *overrides], folder, program=program, PYTHONPATH=f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    )


def metrics(folder: Path, fault: str) -> dict[str, object]:
    return dict(json.loads((folder / "sweep" / f"noise.fault={fault}" / "metrics.json").read_text()))


def unsound(folder: Path, outcome: Outcome) -> list[str]:
    """What is not as it should be after a sweep of faults: each with its cause, and the others finished."""
    found = [
        f"{fault}: {metrics(folder, fault)}" for fault in ("none", "other") if "test/sse" not in metrics(folder, fault)
    ]
    for fault, cause in CAUSES.items():
        known = metrics(folder, fault)
        if known["status"] != "failed" or cause not in str(known["cause"]):
            found.append(f"{fault}: {known}")
    if outcome.code != 1 or f"{len(CAUSES)} of {len(CAUSES) + 2} runs failed" not in outcome.err:
        found.append(f"exit code {outcome.code}: {outcome.err}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_faults_are_recorded_and_the_rest_goes_on(launcher: str, tmp_path: Path) -> None:
    if launcher in NEEDS and importlib.util.find_spec(NEEDS[launcher]) is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    place(tmp_path)
    assert not unsound(tmp_path, sweep(tmp_path, launcher))
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        table = {row["run"]: row for row in csv.DictReader(file)}
    assert all(cause in table[f"noise.fault={fault}"]["cause"] for fault, cause in CAUSES.items())
    if launcher != "basic":
        return
    finished = metrics(tmp_path, "none")
    (tmp_path / "mended").touch()
    again = sweep(tmp_path, launcher)
    assert not unsound(tmp_path, again), "failed ones are left alone, and still counted"
    assert "retry=true" in again.out
    mended = sweep(tmp_path, launcher, "retry=true")
    assert mended.code == 0, mended.err
    assert all(metrics(tmp_path, fault)["status"] == "finished" for fault in CAUSES)
    assert metrics(tmp_path, "none") == finished, "the finished one was left alone"


def interrupted(folder: Path, arguments: Sequence[str], number: int) -> int:
    """Begin a sweep, and signal it while its second run trains; its exit code."""
    running = subprocess.Popen(
        [*aetrain(), *arguments], cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while not (folder / "sweep" / "seed=1" / "checkpoint").is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    return running.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_sweep_is_taken_up(number: int, code: int, tmp_path: Path) -> None:
    from aetrain.checks.fingerprint import fingerprint

    said = ["-m", *TINY, "model=linear", "epochs=40", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    assert interrupted(tmp_path, said, number) == code
    first = fingerprint(tmp_path / "sweep" / "seed=0")
    written = (tmp_path / "sweep" / "seed=0" / "metrics.json").read_text()
    assert not (tmp_path / "sweep" / "seed=2").exists()
    time.sleep(0.5)  # what the kill leaves must be gone by itself
    outcome = process(said, tmp_path)
    assert outcome.code == 0, outcome.err
    assert "seed=0 is finished: nothing to do" in outcome.out
    assert (tmp_path / "sweep" / "seed=0" / "metrics.json").read_text() == written
    assert fingerprint(tmp_path / "sweep" / "seed=0") == first
    assert process([*TINY, "model=linear", "epochs=40", "seed=1", "hydra.run.dir=whole"], tmp_path).code == 0
    assert fingerprint(tmp_path / "sweep" / "seed=1") == fingerprint(tmp_path / "whole")


@pytest.mark.slow
def test_runs_of_one_instant_do_not_share_a_directory(tmp_path: Path) -> None:
    said = [*aetrain(), *TINY, "model=linear", "epochs=60", "hydra.run.dir=same"]
    runs = [subprocess.Popen(said, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(3)]
    ended = [(run.communicate(timeout=100)[1].decode(), run.returncode) for run in runs]
    assert sum(code == 0 for _, code in ended) >= 1
    for err, code in ended:
        assert code == 0 or "is being written to by another process" in err, err
    history = [json.loads(line)["epoch"] for line in (tmp_path / "same" / "history.jsonl").read_text().splitlines()]
    assert history == list(range(61))
