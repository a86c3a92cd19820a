"""Sweeps on Slurm and on Ray: a job that is killed ends no other, and the same command continues its run exactly.

The tests on a real Slurm are skipped where slurm-wlm, munge or submitit is not installed, those on Ray without ray.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import Outcome, command
from conftest import TINY
from slow_runs import RUN, problems_of_devices, read_records, write_slow_noise
from slurm_cluster import missing, slurm_cluster

from aetrain.config.errors import ConfigError
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.search_file import read_search
from aetrain.sweeps.clusters import slurm
from aetrain.sweeps.clusters.jobs import Lost

SEEDS = tuple(f"seed={seed}" for seed in range(4))
SWEEP = (*RUN, "epochs=20", "seed=0,1,2,3")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=2", "hydra.launcher.gpus_per_node=1")
RAY = (
    *("hydra/launcher=ray", "hydra.launcher.ray.remote.num_cpus=2", "+hydra.launcher.ray.init.num_cpus=4"),
    *("hydra.launcher.ray.remote.num_gpus=1", "+hydra.launcher.ray.init.num_gpus=2"),  # names of devices alone
)
TIMEOUT_S = 600  # enough for a busy machine

needs_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
needs_slurm = pytest.mark.skipif(bool(missing()), reason=missing())
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


# --- Without an engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("launcher", "target"), [("slurm", "SlurmLauncher"), ("ray", "RayLauncher")])
def test_the_option_composes(launcher: str, target: str, tmp_path: Path) -> None:
    outcome = command([f"hydra/launcher={launcher}", "--cfg", "hydra", "--package", "hydra.launcher"], tmp_path)
    assert f"_target_: hydra_plugins.aetrain_clusters.{target}" in outcome.out


@pytest.mark.parametrize(("launcher", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named_with_its_extra(
    launcher: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_package(monkeypatch, package)
    outcome = command(["-m", *TINY, f"hydra/launcher={launcher}", "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path)
    message = f"hydra/launcher={launcher} needs the package {package}: pip install 'aetrain[{launcher}]'"
    assert (outcome.code, outcome.err) == (1, f"aetrain: {message}\n")
    assert not (tmp_path / "sweep").exists()


def hide_package(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == hidden else find_spec(name, *rest)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "there is no command sbatch here"),
        (("hydra.launcher.timeout_min=2",), "hydra.launcher.timeout_min=2 leaves no time to train"),
    ],
)
def test_settings_of_slurm_are_checked(
    settings: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "check_package", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda name: name if settings else None)
    outcome = command(["-m", *TINY, "hydra/launcher=slurm", "hydra.sweep.dir=sweep", *settings], tmp_path)
    assert outcome.code == 1
    assert message in outcome.err
    assert not (tmp_path / "sweep").exists()


class Engine:
    """An engine that does jobs one after another and loses some."""

    def __init__(self) -> None:
        self.lost: Mapping[int, str] = {}
        self.killed: tuple[int, ...] = ()

    def __call__(self, jobs: Sequence[Any], *_: Any) -> list[Any]:
        return [self.do(number, job) for number, job in enumerate(jobs)]

    def do(self, number: int, job: Any) -> Any:
        if number in self.lost:
            return Lost(self.lost[number])
        result = job()
        if number in self.killed:  # as if its process had been killed before the record of its end
            run = RunDirectory(Path(result.hydra_cfg.hydra.runtime.output_dir))
            run.outcome_file.unlink()
            run.write_metrics({"status": "running"})
        return result


def test_a_lost_job_ends_no_other_and_the_command_that_continues_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine()
    monkeypatch.setattr(slurm, "run_on_slurm", engine)
    arguments = ["-m", *TINY, "model=linear", "hydra/launcher=slurm", "seed=0,1,2"]
    engine.lost = {1: "its Slurm job 7_1 ended: cancelled"}
    outcome = command(arguments, tmp_path)
    assert outcome.code == 1
    assert "1 of 3 runs did not reach their end (seed=1: its Slurm job 7_1 ended: cancelled)" in outcome.err
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    statuses = {run.path.name: run.status for run in map(RunDirectory, sweep.glob("seed=*"))}
    assert statuses == {"seed=0": "finished", "seed=1": "interrupted", "seed=2": "finished"}
    assert (sweep / "report.html").is_file()
    assert "interrupted" in (sweep / "sweep.csv").read_text()
    continuing = outcome.err.splitlines()[-1].split()
    assert continuing[-1] == f"hydra.sweep.dir={sweep.relative_to(tmp_path)}"
    engine.lost = {}
    assert command(continuing[1:], tmp_path).code == 0
    assert RunDirectory(sweep / "seed=1").status == "finished"


def test_a_job_without_a_recorded_end_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.killed = (0,)
    monkeypatch.setattr(slurm, "run_on_slurm", engine)
    arguments = ["-m", *TINY, "model=linear", "hydra/launcher=slurm", "seed=0,1", "hydra.sweep.dir=sweep"]
    outcome = command(arguments, tmp_path)
    assert "1 of 2 runs did not reach their end (seed=0: its process was killed)" in outcome.err


def test_a_lost_job_of_a_finished_run_keeps_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    monkeypatch.setattr(slurm, "run_on_slurm", engine)
    arguments = ["-m", *TINY, "model=linear", "hydra/launcher=slurm", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert command(arguments, tmp_path).code == 0
    finished = RunDirectory(tmp_path / "sweep" / "seed=1").metrics()
    engine.lost = {1: "its Slurm job 7_1 ended: cancelled"}
    assert command(arguments, tmp_path).code == 0
    outcome = command([*arguments, "epochs=2"], tmp_path)
    assert "1 of 2 runs did not reach their end (seed=1: its Slurm job 7_1 ended: cancelled)" in outcome.err
    assert RunDirectory(tmp_path / "sweep" / "seed=1").metrics() == finished


@pytest.mark.parametrize("sweeper", ["random", "optuna"])
def test_a_trial_whose_job_is_lost_is_continued_by_the_same_search(
    sweeper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sweeper == "optuna":
        pytest.importorskip("optuna")
    engine = Engine()
    monkeypatch.setattr(slurm, "run_on_slurm", engine)
    engine.lost = {1: "its Slurm job 7_1 ended: cancelled"}
    search = [f"hydra/sweeper={sweeper}", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3", "seed=0,1,2,3"]
    settings = [*TINY, "model=linear", "dataset.validation=8", "optimizer.lr=1e-3,1e-2"]
    arguments = ["-m", "hydra/launcher=slurm", *search, *settings, "hydra.sweep.dir=sweep"]
    outcome = command(arguments, tmp_path)
    assert outcome.code == 1
    assert "1 of 3 runs did not reach their end" in outcome.err
    assert "this command continues" in outcome.err
    first = read_search(tmp_path / "sweep")
    assert first is not None
    assert [trial.status for trial in first.trials] == ["finished", "running", "finished"]
    engine.lost = {}
    assert command(arguments, tmp_path).code == 0
    second = read_search(tmp_path / "sweep")
    assert second is not None
    assert [trial.status for trial in second.trials] == ["finished"] * 3
    assert [trial.settings for trial in second.trials] == [trial.settings for trial in first.trials]


@pytest.mark.parametrize(
    ("code", "out", "err", "expected"),
    [
        (0, "5_0 RUNNING\n5_1 CANCELLED\n", "", ("RUNNING", "CANCELLED", slurm.GONE)),
        (1, "", "slurm_load_jobs error: Invalid job id specified\n", (slurm.GONE,) * 3),
        (1, "", "slurm_load_jobs error: Unable to contact slurm controller\n", ("RUNNING",) * 3),
    ],
)
def test_states_of_jobs(
    code: int, out: str, err: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    completed = subprocess.CompletedProcess((), code, out, err)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: completed)
    states = slurm.read_states(["5"])
    assert tuple(states[f"5_{number}"] for number in range(3)) == expected


SHIELDED = """
import os, signal, sys, time
from multiprocessing import forkserver
from aetrain.runs import process

def task():
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getppid(), signal.SIGUSR2)
    time.sleep(0.5)

if __name__ == "__main__":
    process.shield(signal.SIGUSR2)
    print(process.run(task), process.run(task))
    signal.signal(signal.SIGUSR2, lambda *_: print("here"))
    os.kill(os.getpid(), signal.SIGUSR2)
"""


def test_the_signal_before_a_time_limit_is_for_the_process_of_the_job_alone(tmp_path: Path) -> None:
    """Slurm may send it to all processes of a job; by default it ends a process."""
    (tmp_path / "shielded.py").write_text(SHIELDED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "shielded.py")], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("0 0\nhere\n", "")


# --- On an engine -----------------------------------------------------------------------------------------------------


def start(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a sweep with its output in `output` and `errors`."""
    program = [sys.executable, "-m", "aetrain", *arguments]
    inherited = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with (folder / "output").open("w") as out, (folder / "errors").open("w") as err:
        return subprocess.Popen(
            program,
            cwd=folder,
            env={**inherited, **environment},
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def run(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> Outcome:
    return finish(start(folder, arguments, environment), folder)


def finish(sweep: "subprocess.Popen[str]", folder: Path) -> Outcome:
    try:
        code = sweep.wait(TIMEOUT_S)
    finally:
        sweep.kill()
        sweep.wait()
    return Outcome(code, (folder / "output").read_text(), (folder / "errors").read_text())


def wait_for(condition: Callable[[], Any], sweep: "subprocess.Popen[str]") -> Any:
    """Return the first true value of a condition while a sweep trains."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert sweep.poll() is None, "the sweep has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the fingerprints of the runs of the sweep by Hydra's own launcher, without an interruption."""
    folder = tmp_path_factory.mktemp("expected")
    outcome = run(folder, SWEEP, write_slow_noise(folder))
    assert outcome.code == 0, outcome.err
    return {seed: fingerprint(folder / "sweep" / seed) for seed in SEEDS}


def differences_of(folder: Path, expected: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return in what the runs of a sweep differ from those without an interruption."""
    problems = []
    for seed, values in expected.items():
        problems += [f"{seed}: {name}" for name in differences(values, fingerprint(folder / "sweep" / seed))]
    return problems


def assert_whole(folder: Path, outcome: Outcome, expected: Mapping[str, Mapping[str, str]]) -> None:
    """Assert that a sweep succeeded, with its table and report, and that its runs are what they are elsewhere."""
    assert outcome.code == 0, outcome.err
    assert not differences_of(folder, expected)
    table = (folder / "sweep" / "sweep.csv").read_text()
    assert all(seed in table for seed in expected)
    assert (folder / "sweep" / "report.html").is_file()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "files") as environment:
        yield environment


@pytest.mark.slow
@needs_submitit
@needs_slurm
def test_slurm_trains_jobs_side_by_side_and_loses_only_a_cancelled_one(
    cluster: dict[str, str], expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    environment = write_slow_noise(tmp_path) | cluster
    sweep = start(tmp_path, [*SWEEP, *SLURM], environment | {"SLOW_S": "0.2"})
    job = wait_for(lambda: re.search(r"Slurm:   job (\d+)", (tmp_path / "output").read_text()), sweep)[1]
    wait_for((tmp_path / "sweep" / "seed=1" / "checkpoint").is_dir, sweep)
    subprocess.run(["scancel", f"{job}_1"], env=os.environ | cluster, check=True)
    outcome = finish(sweep, tmp_path)
    assert outcome.code == 1
    assert "1 of 4 runs did not reach their end (seed=1: " in outcome.err
    statuses = [RunDirectory(tmp_path / "sweep" / seed).status for seed in SEEDS]
    assert statuses == ["finished", "interrupted", "finished", "finished"]
    records = read_records(tmp_path)
    assert not problems_of_devices(records, {"0", "1"})
    assert any(one.end > other.start for one, other in pairwise(records)), "side by side"
    assert {record.environment["SLURM_CPUS_PER_TASK"] for record in records} == {"2"}
    logs = [(tmp_path / "sweep" / seed / "aetrain.log").read_text() for seed in SEEDS]
    assert all("too few for 2 threads" in log or "SLURM_CPUS_PER_TASK=2" in log for log in logs)
    assert_whole(tmp_path, run(tmp_path, [*SWEEP, *SLURM], environment), expected)
    assert not list((tmp_path / "sweep" / ".slurm").glob("*.pkl"))


@pytest.mark.slow
@needs_submitit
@needs_slurm
def test_slurm_requeues_a_run_before_its_time_limit_and_the_run_is_exact(
    cluster: dict[str, str], expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """A run of 40 slow batches takes 120 seconds, and a job may take as long, with its start and its end.

    Slurm sends the signal 30 to 90 seconds before the limit.
    """
    environment = write_slow_noise(tmp_path) | cluster | {"SLOW_S": "3"}
    limits = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30")
    runs = dict(list(expected.items())[:2])
    outcome = run(
        tmp_path, [*RUN, "epochs=20", ",".join(runs).replace(",seed=", ","), *SLURM[:1], *limits], environment
    )
    assert_whole(tmp_path, outcome, runs)
    for number in range(len(runs)):
        logs = (tmp_path / "sweep" / ".slurm").glob(f"*_{number}_0_log.*")
        assert "Requeued job" in "".join(log.read_text() for log in logs)


@pytest.mark.slow
@needs_submitit
@needs_slurm
def test_an_interrupted_sweep_cancels_its_jobs(cluster: dict[str, str], tmp_path: Path) -> None:
    environment = write_slow_noise(tmp_path) | cluster
    sweep = start(tmp_path, [*SWEEP, *SLURM], environment | {"SLOW_S": "0.5"})
    wait_for((tmp_path / "sweep" / "seed=0" / "checkpoint").is_dir, sweep)
    sweep.send_signal(signal.SIGINT)
    outcome = finish(sweep, tmp_path)
    assert outcome.code == 130
    assert "this command continues" in outcome.err
    deadline = time.monotonic() + 60
    while queued(cluster) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not queued(cluster)


def queued(cluster: Mapping[str, str]) -> str:
    command = ["squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING"]
    return subprocess.run(command, env=os.environ | cluster, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("max_retries", [0, 2])
def test_ray_continues_a_run_whose_worker_is_killed(
    max_retries: int, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Ray starts the task again; without retries, the sweep names the command that continues."""
    environment = write_slow_noise(tmp_path) | {"RAY_worker_niceness": "0"}
    arguments = [*SWEEP, *RAY, f"hydra.launcher.ray.remote.max_retries={max_retries}"]
    sweep = start(tmp_path, arguments, environment | {"SLOW_S": "0.2"})
    wait_for((tmp_path / "sweep" / "seed=1" / "checkpoint").is_dir, sweep)
    pids = wait_for(lambda: ray_workers(tmp_path), sweep)
    assert len(pids) <= 2
    os.kill(pids[0], signal.SIGKILL)
    outcome = finish(sweep, tmp_path)
    logs = [(tmp_path / "sweep" / seed / "aetrain.log").read_text() for seed in SEEDS]
    assert all("threads: 2 (OMP_NUM_THREADS=2)" in log for log in logs)
    assert not problems_of_devices(read_records(tmp_path), {"0", "1"})
    if max_retries == 0:
        assert outcome.code == 1
        assert "1 of 4 runs did not reach their end (seed=" in outcome.err
        assert sum(RunDirectory(tmp_path / "sweep" / seed).status == "finished" for seed in SEEDS) == 3
        outcome = run(tmp_path, arguments, environment)
    assert_whole(tmp_path, outcome, expected)


def ray_workers(folder: Path) -> list[int]:
    """Return the workers of Ray that do a task in a folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::_run") and (process / "cwd").resolve() == folder:
                pids.append(int(process.name))
        except OSError:  # it has ended
            continue
    return pids


def test_the_interpreter_reports_errors_of_the_launcher_as_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Any]:
        raise ConfigError("hydra.launcher: no such option")

    monkeypatch.setattr(slurm, "run_on_slurm", fail)
    outcome = command(["-m", *TINY, "hydra/launcher=slurm", "hydra.sweep.dir=sweep"], tmp_path)
    assert (outcome.code, outcome.err) == (1, "aetrain: hydra.launcher: no such option\n")
