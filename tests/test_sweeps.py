"""Sweeps that lose runs: each is recorded with its cause, the others go on, and the same command takes up the rest."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import interruptions
import pytest
from command import Outcome, command, everything_in, process
from conftest import TINY

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.runs import process
from aetrain.storage.run_directory import RunDirectory

# A noise that does what it is told to in its first epoch, but not where a file called `mended` lies.
MODULE = '''
import os, signal, sys
from pathlib import Path
from aetrain.data.noise import NoNoise


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
    return metrics_of(folder / "sweep" / f"noise.fault={fault}")


def metrics_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


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


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    return interruptions.whole(tmp_path_factory.mktemp("sweeps") / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "interruption"),
    [
        ("basic", "the sweep is killed"),
        ("basic", "the sweep gets SIGTERM"),
        ("basic", "Ctrl-C"),
        ("joblib", "Ctrl-C"),
        ("joblib", "a worker is killed"),
    ],
)
def test_interrupted_sweep_is_taken_up(
    launcher: str, interruption: str, wanted: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """By the same command, at once; what was finished is left alone."""
    if launcher in NEEDS and importlib.util.find_spec(NEEDS[launcher]) is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    assert not interruptions.interrupted(tmp_path, launcher, interruption, wanted)


STRUCK = """
import os, signal, sys, time, weakref
from aetrain import apart
from aetrain.config.errors import SigTerm

def callback(_):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.1)

class Thing:
    pass

process.install_signal_handlers()
try:
    thing = Thing()
    watched = weakref.ref(thing, callback)
    del thing
    time.sleep(20)
except KeyboardInterrupt as stop:
    print(type(stop).__name__)
"""


@pytest.mark.parametrize(("number", "heard"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SigTerm")])
def test_interruption_amid_a_callback_is_not_lost(number: signal.Signals, heard: str) -> None:
    """Python prints such an error and goes on; imports have callbacks of that kind."""
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, str(int(number))], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (heard, "")


def test_run_that_is_refused_is_no_success(tmp_path: Path) -> None:
    """Its directory is another run's, finished or not, or somebody is writing there: said, and the others go on."""
    said = ["-m", *TINY, "model=linear", "hydra.sweep.dir=sweep"]
    assert command([*said, "seed=0,1"], tmp_path).code == 0
    unfinished = tmp_path / "sweep" / "seed=1" / "metrics.json"
    unfinished.unlink()
    before = everything_in(tmp_path / "sweep" / "seed=0")
    outcome = command([*said, "seed=0,1,2", "batch_size=16"], tmp_path)
    assert outcome.code == 1
    assert "2 of 3 runs failed" in outcome.err
    assert "batch_size: 32 there, 16 here" in outcome.err
    assert everything_in(tmp_path / "sweep" / "seed=0") == before
    assert not unfinished.exists()
    assert metrics_of(tmp_path / "sweep" / "seed=2")["status"] == "finished"
    home = RunDirectory(tmp_path / "sweep" / "seed=1")
    config, _, words = api.composed([*TINY, "model=linear", "seed=1", f"hydra.run.dir='{home.path}'"])
    home.claim(config, words)
    try:
        outcome = command([*said, "seed=0,1"], tmp_path)
    finally:
        home.release()
    assert outcome.code == 1
    assert "1 of 2 runs failed" in outcome.err
    assert "seed=1 is being written to by another process" in outcome.err
    assert command([*said, "seed=0,1"], tmp_path).code == 0
    assert not list((tmp_path / "sweep").glob(".*"))


def begin(folder: Path, number: int, overrides: list[str]) -> None:
    """Wait for the others, claim a directory, and keep it until all have tried; in a process of its own."""
    os.chdir(folder)
    (folder / f"ready{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    config, directory, said = api.composed([*TINY, "model=linear", *overrides])
    home = RunDirectory(directory)
    try:
        home.claim(config, said)
        (folder / f"told{number}").write_text(str(directory))
    except ConfigError:
        (folder / f"told{number}").write_text("refused")
    while len(list(folder.glob("told*"))) < MANY:
        time.sleep(0.01)


MANY = 8


@pytest.mark.slow
@pytest.mark.parametrize("same", [False, True])
def test_runs_of_one_instant_do_not_share_a_directory(same: bool, tmp_path: Path) -> None:
    """Each has its own, or where they were given one only one of them has it."""
    overrides = ["hydra.run.dir=same"] if same else []
    processes = [process.start(begin, tmp_path, number, overrides) for number in range(MANY)]
    while len(list(tmp_path.glob("ready*"))) < MANY and all(each.is_alive() for each in processes):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    for each in processes:
        each.join(100)
    told = [file.read_text() for file in tmp_path.glob("told*")]
    assert len(told) == MANY
    kept = [text for text in told if text != "refused"]
    assert len(set(kept)) == len(kept) == (1 if same else MANY)
