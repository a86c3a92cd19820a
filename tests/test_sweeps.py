"""Sweeps with runs that fail: failures are recorded, other runs finish, and the same command resumes the rest."""

import csv
import importlib
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
from aetrain.runs import entry
from aetrain.runs import process as run_process
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.launch import run_isolated

# A noise that fails in its first epoch as `fault` says, except in a folder with a file called `mended`.
MODULE = '''
import os, signal, sys
from pathlib import Path
from aetrain.data.noise import NoNoise


class Faulty(NoNoise):
    """Fail."""

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


def write_faulty_noise(folder: Path) -> None:
    """Write a noise of the user, which fails, and its config into a folder."""
    (folder / "mine" / "noise").mkdir(parents=True)
    (folder / "faulty_noise.py").write_text(MODULE)
    (folder / "mine" / "noise" / "faulty.yaml").write_text("# Failure.\n_target_: faulty_noise.Faulty\nfault: none\n")


def sweep_over_faults(folder: Path, launcher: str, *overrides: str) -> Outcome:
    """Run a sweep over the faults in a new process."""
    faults = f"noise.fault=none,{','.join(CAUSES)},other"
    arguments = ["-m", *TINY, "model=linear", "noise=faulty", faults, "hydra.sweep.dir=sweep", *LAUNCHERS[launcher]]
    program = [sys.executable, "-m", "aetrain", "--config-dir", "mine"]
    path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    return process([*arguments, *overrides], folder, program=program, PYTHONPATH=path)


def metrics(folder: Path, fault: str) -> dict[str, object]:
    return metrics_of(folder / "sweep" / f"noise.fault={fault}")


def metrics_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


def problems_of_sweep(folder: Path, outcome: Outcome) -> list[str]:
    """Return all that is wrong after a sweep over the faults: a fault without its cause, another run unfinished."""
    finished = {fault: metrics(folder, fault) for fault in ("none", "other")}
    problems = [f"{fault}: {values}" for fault, values in finished.items() if "test/sse" not in values]
    for fault, cause in CAUSES.items():
        recorded = metrics(folder, fault)
        if recorded["status"] != "failed" or cause not in str(recorded["cause"]):
            problems.append(f"{fault}: {recorded}")
    if outcome.code != 1 or f"{len(CAUSES)} of {len(CAUSES) + 2} runs failed" not in outcome.err:
        problems.append(f"exit code {outcome.code}: {outcome.err}")
    return problems


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_failures_are_recorded_and_the_other_runs_finish(launcher: str, tmp_path: Path) -> None:
    if launcher in NEEDS and importlib.util.find_spec(NEEDS[launcher]) is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    write_faulty_noise(tmp_path)
    assert not problems_of_sweep(tmp_path, sweep_over_faults(tmp_path, launcher))
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        table = {row["run"]: row for row in csv.DictReader(file)}
    assert all(cause in table[f"noise.fault={fault}"]["cause"] for fault, cause in CAUSES.items())
    if launcher != "basic":
        return
    finished = metrics(tmp_path, "none")
    (tmp_path / "mended").touch()
    repeated = sweep_over_faults(tmp_path, launcher)
    assert not problems_of_sweep(tmp_path, repeated), "failed runs are not repeated, but are still counted"
    assert "retry=true" in repeated.out
    mended = sweep_over_faults(tmp_path, launcher, "retry=true")
    assert mended.code == 0, mended.err
    assert all(metrics(tmp_path, fault)["status"] == "finished" for fault in CAUSES)
    assert metrics(tmp_path, "none") == finished, "the finished run is not repeated"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
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
def test_interrupted_sweep_is_resumed(
    launcher: str, interruption: str, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """The same command resumes it at once and repeats no finished run."""
    if launcher in NEEDS and importlib.util.find_spec(NEEDS[launcher]) is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    assert not interruptions.interrupted(tmp_path, launcher, interruption, expected)


INTERRUPTED_CALLBACK = """
import os, signal, sys, time, weakref
from aetrain.runs import process

def callback(_):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.1)

class Object:
    pass

process.install_signal_handlers()
try:
    value = Object()
    reference = weakref.ref(value, callback)
    del value
    time.sleep(20)
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SigTerm")])
def test_interruption_during_a_callback_is_not_lost(number: signal.Signals, name: str) -> None:
    """Python prints an error of such a callback and continues; imports have such callbacks."""
    completed = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_CALLBACK, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (completed.stdout.strip(), completed.stderr) == (name, "")


@pytest.mark.slow
def test_refused_run_is_no_success(tmp_path: Path) -> None:
    """A directory with another config, or one that another process writes to, is refused; the other runs finish."""
    arguments = ["-m", *TINY, "model=linear", "hydra.sweep.dir=sweep"]
    assert command([*arguments, "seed=0,1"], tmp_path).code == 0
    unfinished = tmp_path / "sweep" / "seed=1" / "metrics.json"
    unfinished.unlink()
    before = everything_in(tmp_path / "sweep" / "seed=0")
    outcome = command([*arguments, "seed=0,1,2", "batch_size=16"], tmp_path)
    assert outcome.code == 1
    assert "2 of 3 runs failed" in outcome.err
    assert "batch_size: 32 there, 16 here" in outcome.err
    assert everything_in(tmp_path / "sweep" / "seed=0") == before
    assert not unfinished.exists()
    assert metrics_of(tmp_path / "sweep" / "seed=2")["status"] == "finished"
    run_dir = RunDirectory(tmp_path / "sweep" / "seed=1")
    config, _, overrides = api.compose_config([*TINY, "model=linear", "seed=1", f"hydra.run.dir='{run_dir.path}'"])
    run_dir.claim(config, overrides)
    try:
        outcome = command([*arguments, "seed=0,1"], tmp_path)
    finally:
        run_dir.release()
    assert outcome.code == 1
    assert "1 of 2 runs failed" in outcome.err
    assert "seed=1 is being written to by another process" in outcome.err
    assert command([*arguments, "seed=0,1"], tmp_path).code == 0
    assert not list((tmp_path / "sweep").glob(".*"))


def claim_directory(folder: Path, number: int, overrides: list[str]) -> None:
    """Wait for the other processes, claim a directory, and keep it until all have tried."""
    os.chdir(folder)
    (folder / f"ready{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    config, directory, full_overrides = api.compose_config([*TINY, "model=linear", *overrides])
    run_dir = RunDirectory(directory)
    try:
        run_dir.claim(config, full_overrides)
        (folder / f"result{number}").write_text(str(directory))
    except ConfigError:
        (folder / f"result{number}").write_text("refused")
    while len(list(folder.glob("result*"))) < NUM_PROCESSES:
        time.sleep(0.01)


def record_imports(file: Path, overrides: list[str]) -> None:
    """Do a run, and write the names of the modules that it imports."""
    config, directory, full_overrides = api.compose_config(overrides)
    before = set(sys.modules)
    entry.run(config, directory, full_overrides)
    file.write_text(" ".join(sorted(set(sys.modules) - before)))


def test_the_server_has_imported_what_every_run_needs(tmp_path: Path) -> None:
    arguments = [*TINY, "model=vae", f"hydra.run.dir='{tmp_path / 'run'}'"]
    assert run_process.run(record_imports, tmp_path / "imports", arguments) == run_process.FINISHED
    imported = (tmp_path / "imports").read_text().split()
    assert not [name for name in imported if not name.startswith("aetrain.data.")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), []),
        (("views=none", "views.format=svg"), []),
        (("views=default",), run_process.FIGURE_MODULES),
        (("dataset=wine",), run_process.VECTOR_MODULES),
        (
            ("dataset=ratings", "dataset.path=a.csv", "views=default"),
            run_process.FIGURE_MODULES + run_process.VECTOR_MODULES,
        ),
    ],
)
def test_the_server_imports_matplotlib_and_scikit_learn_for_runs_that_need_them(
    settings: tuple[str, ...], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preloaded: list[str] = []
    monkeypatch.setattr(run_process, "PRELOADED", preloaded)
    monkeypatch.setattr(run_process, "run", lambda *_: run_process.FINISHED)
    config, directory, overrides = api.compose_config([*TINY, *settings])
    for _ in range(2):
        run_isolated(RunRequest(config, RunDirectory(directory), overrides, single=False))
    assert preloaded == expected
    for module in expected:
        importlib.import_module(module)


NUM_PROCESSES = 8


@pytest.mark.slow
@pytest.mark.parametrize("same", [False, True])
def test_runs_that_start_together_do_not_share_a_directory(same: bool, tmp_path: Path) -> None:
    """Each run gets its own directory; of runs that name the same directory only one gets it."""
    overrides = ["hydra.run.dir=same"] if same else []
    processes = [run_process.start(claim_directory, tmp_path, number, overrides) for number in range(NUM_PROCESSES)]
    while len(list(tmp_path.glob("ready*"))) < NUM_PROCESSES and all(started.is_alive() for started in processes):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    for started in processes:
        started.join(100)
    results = [file.read_text() for file in tmp_path.glob("result*")]
    assert len(results) == NUM_PROCESSES
    claimed = [text for text in results if text != "refused"]
    assert len(set(claimed)) == len(claimed) == (1 if same else NUM_PROCESSES)
