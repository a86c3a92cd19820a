"""The number of threads follows what a process may use and what the network needs; waiting threads sleep early."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from command import process
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from aetrain import api, cli
from aetrain.config.errors import ConfigError
from aetrain.config.settings import role_of
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.checkpoint_state import latest_state
from aetrain.sweeps.devices import SHARED_VARIABLE
from aetrain.sweeps.workers import announce_workers, count_workers
from aetrain.training.backend import threads, waiting
from aetrain.training.backend.threads import available_threads, choose_threads, count_multiply_adds
from aetrain.utils import wait_policy
from aetrain.utils.cores import WORKERS_VARIABLE, Limit, first_number, usable_cores, user_threads

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP and control groups are Linux's")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process have two cores, two threads of torch, and no number of threads of the user."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: Limit(2, "the cores of this process"))
    torch.set_num_threads(2)


# --- Cores ------------------------------------------------------------------------------------------------------------


def allow_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


def write_groups(root: Path, own: str, files: Mapping[str, str]) -> Path:
    """Write the line of a process's control group, and files of groups, below a folder."""
    for name, text in {"proc/self/cgroup": own, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


V1 = "4:memory:/job\n3:cpu,cpuacct:/job/step\n0::/"
V1_GROUP = "sys/fs/cgroup/cpu,cpuacct/job"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, 8),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ("0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "350000 100000"}, 3),
        ("0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        ("0::/user/run", {"sys/fs/cgroup/user/run/cpu.max": "300000 100000"}, 3),
        ("0::/user/run", {"sys/fs/cgroup/user/cpu.max": "400000 100000"}, 4),
        ("0::/of/the/host", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),  # a container without its own namespace
        ("0::/", {"sys/fs/cgroup/cpu.max": "damaged"}, 8),
        (V1, {f"{V1_GROUP}/cpu.cfs_quota_us": "-1", f"{V1_GROUP}/cpu.cfs_period_us": "100000"}, 8),
        (V1, {f"{V1_GROUP}/cpu.cfs_quota_us": "250000", f"{V1_GROUP}/cpu.cfs_period_us": "50000"}, 5),
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "60000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "20000"}, 3),
        ("", {"sys/fs/cgroup/cpu.max": "100000 100000"}, 8),
    ],
)
def test_quota_of_control_groups_is_kept(
    own: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_cores(monkeypatch, 8)
    assert usable_cores({}, write_groups(tmp_path, own, files)).number == expected


QUOTAS = st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 10**7), st.integers(1000, 10**6))), min_size=1)


@given(levels=QUOTAS.filter(lambda levels: len(levels) < 6), allowed=st.integers(1, 200))
def test_smallest_quota_of_nested_groups_counts(
    levels: list[tuple[int, int] | None], allowed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folders = ["/".join(["sys/fs/cgroup", *(f"g{i}" for i in range(level))]) for level in range(len(levels))]
    texts = [" ".join(map(str, pair or ("max", 10**5))) for pair in levels]
    files = {f"{folder}/cpu.max": text for folder, text in zip(folders, texts, strict=True)}
    path = "/".join(f"g{i}" for i in range(len(levels) - 1))
    root = write_groups(tmp_path_factory.mktemp("root"), f"0::/{path}", files)
    with pytest.MonkeyPatch.context() as patch:
        allow_cores(patch, allowed)
        expected = min([allowed, *(quota // period for quota, period in filter(None, levels))])
        assert usable_cores({}, root).number == max(1, expected)


@pytest.mark.parametrize(
    ("environment", "expected", "reason"),
    [
        ({}, 8, "the cores of this process"),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3, "SLURM_CPUS_PER_TASK=3"),
        ({"SLURM_CPUS_PER_TASK": "16"}, 8, "the cores of this process"),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_TASKS_PER_NODE": "2(x3)"}, 3, "SLURM_CPUS_ON_NODE=6"),
        ({"SLURM_CPUS_ON_NODE": "1"}, 1, "SLURM_CPUS_ON_NODE=1"),
        ({WORKERS_VARIABLE: "3"}, 2, "8 cores for 3 runs at a time"),
        ({WORKERS_VARIABLE: "20"}, 1, "8 cores for 20 runs at a time"),
        ({"LOCAL_WORLD_SIZE": "4"}, 2, "8 cores for 4 processes of torchrun"),
        ({"LOCAL_WORLD_SIZE": "2", "SLURM_CPUS_PER_TASK": "4"}, 2, "4 cores for 2 processes of torchrun"),
    ],
)
def test_launchers_are_obeyed(
    environment: dict[str, str], expected: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_cores(monkeypatch, 8)
    limit = usable_cores(environment, tmp_path)
    assert limit.number == expected
    assert limit.reason.startswith(reason)


@given(st.text())
def test_first_number_is_positive_or_none(text: str) -> None:
    number = first_number(text)
    assert number is None or (number > 0 and str(number) in text)


@given(st.integers(1, 10**6), st.sampled_from(["", ",2", "(x3)", " "]))
def test_first_number_is_read(number: int, rest: str) -> None:
    assert first_number(f"{number}{rest}") == number


def test_affinity_of_this_process_is_read(tmp_path: Path) -> None:
    code = "from aetrain.utils.cores import usable_cores; print(usable_cores().number)"
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    first = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{first}]); {code}"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).strip() == "1"


# --- The number of a run ----------------------------------------------------------------------------------------------


def settings_and_model(*overrides: str) -> tuple[Any, Any]:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    settings = entry.check(config, full_overrides)
    return settings, build(settings).model


@pytest.mark.usefixtures("two_threads")
def test_small_network_gets_one_thread_and_a_large_one_all_cores() -> None:
    small = choose_threads(*settings_and_model("model=linear"))
    assert small.number == 1
    assert "multiply-adds" in small.reason
    assert choose_threads(*settings_and_model("model=deep", "batch_size=128")).number == 2


@pytest.mark.usefixtures("two_threads")
def test_word_of_the_user_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, model = settings_and_model("model=linear")
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(settings, model) == (3, "OMP_NUM_THREADS=3")
    monkeypatch.setenv("MKL_NUM_THREADS", "2")  # torch prefers it
    assert choose_threads(settings, model) == (2, "MKL_NUM_THREADS=2")
    assert choose_threads(*settings_and_model("model=linear", "threads=7")) == (7, "threads=7")


@pytest.mark.usefixtures("two_threads")
def test_number_of_the_calling_program_is_not_exceeded() -> None:
    torch.set_num_threads(1)
    assert available_threads() == (1, "torch's number of threads")


def test_numbers_that_joblib_sets_are_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OMP_NUM_THREADS": "2"}
    assert user_threads(environment) == (2, "OMP_NUM_THREADS=2")
    assert user_threads({**environment, WORKERS_VARIABLE: "4"}) is None
    assert user_threads({"OMP_NUM_THREADS": "many"}) is None


@pytest.mark.parametrize("value", ["0", "-1", "True", "many", "1.5"])
def test_wrong_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"threads={value}"):
        settings_and_model(f"threads={value}")


def test_number_is_no_part_of_the_identity_of_a_run() -> None:
    role = role_of("threads")
    assert not any((role.identity, role.in_name, role.in_evaluation_name, role.hparam, role.compared))


@pytest.mark.parametrize("model", ["deep", "vae", "tied", "conv", "conv_unpool", "vqvae"])
def test_multiply_adds_are_those_that_torch_counts(model: str) -> None:
    _, network = settings_and_model(f"model={model}")
    x = torch.zeros(32, *network.image_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x, x)
    assert count_multiply_adds(network, 32) == counter.get_total_flops() // 2  # torch counts two for each


def test_multiply_adds_of_an_lstm_are_those_of_its_products() -> None:
    _, network = settings_and_model("model=lstm")
    lstms = [layer for layer in network.modules() if isinstance(layer, torch.nn.LSTM)]
    others = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    rows = network.image_shape[1]
    recurrent = sum(weight.numel() for layer in lstms for weight in layer.parameters() if weight.dim() == 2)
    linear = sum(layer.weight.numel() for layer in others)
    count = count_multiply_adds(network, 1)
    assert recurrent * rows + linear <= count <= (recurrent + linear) * rows


def test_count_leaves_the_mode_of_the_model() -> None:
    _, network = settings_and_model("model=deep")
    for training in (True, False):
        network.train(training)
        count_multiply_adds(network, 1)
        assert all(module.training is training for module in network.modules())


# --- Runs -------------------------------------------------------------------------------------------------------------

DEEP = ("model=deep", "batch_size=64", "model.hidden=[512,512]")  # large enough for two threads


@pytest.mark.usefixtures("two_threads")
def test_log_says_how_many_and_why_and_torch_has_its_number_again(
    tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tiny("model=linear")
    lines = [line for line in caplog.messages if line.startswith("threads: ")]
    assert len(lines) == 1
    assert lines[0].startswith("threads: 1 (a batch takes 0.1 million multiply-adds, too few for 2 threads")
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_resumed_run_is_exact_on_another_number_of_cores(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = tiny(*DEEP, "epochs=2", "schedule=constant", name="whole")
    half = tiny(*DEEP, "epochs=1", "schedule=constant", name="half")
    assert trained_with(whole) == trained_with(half) == 2
    monkeypatch.setattr(threads, "usable_cores", lambda: Limit(1, "another machine"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    tiny(*DEEP, "epochs=2", "schedule=constant", name="half")
    assert "threads: 2 (as the run began" in caplog.text
    assert trained_with(half) == 2
    assert torch.get_num_threads() == 1
    assert not differences(fingerprint(whole), fingerprint(half))
    tiny(*DEEP, "epochs=3", "schedule=constant", "threads=1", name="half")
    assert trained_with(half) == 1


@pytest.mark.usefixtures("two_threads")
def test_run_of_0_1_is_resumed_with_the_number_that_0_1_had(tiny: Callable[..., Path]) -> None:
    settings, model = settings_and_model("model=linear")
    state = latest_state(tiny("model=linear"))
    assert state is not None
    assert state.threads == 1
    old = type(state)(state.epoch, state.sha256, state.config, state.overrides, state.data)
    assert choose_threads(settings, model, old).number == 2  # 0.1 used all cores for every network


def trained_with(run_dir: Path) -> int | None:
    state = latest_state(run_dir)
    assert state is not None
    assert json.loads((run_dir / "checkpoint" / "state.json").read_text())["threads"] == state.threads
    return state.threads


# --- Sweeps -----------------------------------------------------------------------------------------------------------

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def hydra_section(launcher: str, *task: str, n_jobs: int = -1, sweeper: str = BASIC_SWEEPER) -> dict[str, Any]:
    section = {"_target_": f"plugins.{launcher}", "n_jobs": n_jobs}
    return {"launcher": section, "sweeper": {"_target_": sweeper}, "overrides": {"task": [*task]}}


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "task", "expected"),
    [
        ("BasicLauncher", 1, ["seed=1,2,3"], 1),
        ("JoblibLauncher", 2, ["seed=1,2,3"], 2),
        ("JoblibLauncher", 8, ["seed=1,2,3"], 3),
        ("JoblibLauncher", 8, ["seed=range(1,4)", "model=vae,deep", "epochs=3"], 6),
        ("LocalLauncher", 1, ["seed=1,2", "optimizer.lr=1e-3,1e-4"], 4),
        ("SlurmLauncher", 1, ["seed=1,2"], 1),
    ],
)
def test_workers_of_a_launcher_are_counted(launcher: str, n_jobs: int, task: list[str], expected: int) -> None:
    assert count_workers(hydra_section(launcher, *task, n_jobs=n_jobs)) == expected


def test_sweep_of_unknown_size_has_a_run_for_each_core() -> None:
    assert count_workers(hydra_section("LocalLauncher", "model=glob(*)")) == os.cpu_count()
    assert count_workers(hydra_section("LocalLauncher", "seed=1,2", sweeper="OptunaSweeper")) == os.cpu_count()


def test_workers_are_announced_unless_the_user_has_set_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*THREAD_VARIABLES, WORKERS_VARIABLE, SHARED_VARIABLE):
        monkeypatch.setenv(name, "1")  # so that it is restored
        monkeypatch.delenv(name)
    local = hydra_section("LocalLauncher", "seed=1,2,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    announce_workers(local)
    assert WORKERS_VARIABLE not in os.environ
    assert os.environ[SHARED_VARIABLE] == "1", "GPUs are given out in any case"
    monkeypatch.delenv("OMP_NUM_THREADS")
    announce_workers(local)
    assert os.environ[WORKERS_VARIABLE] == "3"


@pytest.mark.slow
def test_runs_of_joblib_share_the_cores(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ["-m", *TINY, *DEEP, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s"]
    outcome = process(sweep, tmp_path, OMP_NUM_THREADS="")
    assert outcome.code == 0, outcome.err
    count = max(1, usable_cores().number // 2)
    logs = [file.read_text() for file in tmp_path.glob("s/*/aetrain.log")]
    assert len(logs) == 2
    assert all(f"threads: {count} (" in log and "2 runs at a time" in log for log in logs), logs


def test_workers_are_announced_during_a_sweep_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    section = hydra_section("LocalLauncher", "seed=1,2,3") | {"sweep": {"dir": str(tmp_path / "sweep")}}
    with cli._no_empty_folders():
        cli.SweepCallback().on_multirun_start(OmegaConf.create({"hydra": section}))
        assert os.environ[WORKERS_VARIABLE] == "3"
    assert dict(os.environ) == before


# --- The wait policy --------------------------------------------------------------------------------------------------

OWN_VARIABLES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    for name in wait_policy.USER_VARIABLES:
        monkeypatch.setenv(name, "1")  # so that it is restored
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("without_torch")
def test_wait_policy_is_set_before_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait_policy.set_wait_policy()
    assert [os.environ[name] for name in OWN_VARIABLES] == [str(wait_policy.SPIN_COUNT), str(wait_policy.BLOCK_TIME_MS)]


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("name", wait_policy.USER_VARIABLES)
def test_wait_policy_of_the_user_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "the user's")
    assert not wait_policy.set_wait_policy()
    assert {key: os.environ[key] for key in wait_policy.USER_VARIABLES if key in os.environ} == {name: "the user's"}


def test_wait_policy_comes_too_late_where_torch_is_loaded() -> None:
    before = dict(os.environ)
    assert not wait_policy.set_wait_policy()
    assert dict(os.environ) == before


def display(folder: Path, *program: str, **environment: str) -> str:
    """Return the settings that GNU OpenMP prints when a program loads it."""
    kept = {name: value for name, value in os.environ.items() if name not in wait_policy.USER_VARIABLES}
    return subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stderr


SWEEP = ("-m", "aetrain", "-m", *TINY, "model=linear", "seed=1", "hydra.sweep.dir=s")


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("program", [("-c", "from aetrain import run"), SWEEP], ids=["api", "sweep"])
def test_openmp_reads_the_wait_policy(program: tuple[str, ...], tmp_path: Path) -> None:
    if not any("libgomp" in line for line in Path("/proc/self/maps").read_text().splitlines()):
        pytest.skip("torch does not use GNU OpenMP here")
    assert f"GOMP_SPINCOUNT = '{wait_policy.SPIN_COUNT}'" in display(tmp_path, *program)
    if program is not SWEEP:
        assert "GOMP_SPINCOUNT = '77'" in display(tmp_path, *program, GOMP_SPINCOUNT="77")


# --- Waiting threads --------------------------------------------------------------------------------------------------


class Clock:
    """The time that the training thread has waited for a core: a share of the time, which a test sets."""

    def __init__(self) -> None:
        self.share, self.waited, self.last = 0.0, 0.0, time.perf_counter()

    def __call__(self) -> float:
        now = time.perf_counter()
        self.waited += self.share * (now - self.last)
        self.last = now
        return self.waited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "waiting_clock", lambda: clock)
    monkeypatch.setattr(waiting, "INTERVAL_S", 0.005)
    for name in wait_policy.USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return clock


def holders() -> int:
    return sum(getattr(thread, "_target", None) is waiting._hold_team for thread in threading.enumerate())


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


@on_linux
def test_idle_teams_exist_while_the_machine_is_busy(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_cores(monkeypatch, 4)
    torch.set_num_threads(2)
    with waiting.sleep_where_busy():
        time.sleep(0.1)
        assert holders() == 0
        clock.share = 0.5
        assert wait_until(lambda: holders() == 3)
        assert torch.get_num_threads() == 2
        clock.share = 0.05  # between the bounds nothing changes
        time.sleep(0.1)
        assert holders() == 3
        clock.share = 0.0
        assert wait_until(lambda: holders() == 0)
        clock.share = 0.5
        assert wait_until(lambda: holders() == 3)
    assert holders() == 0


@pytest.mark.parametrize(("threads", "cores"), [(2, 2), (2, 3), (4, 16), (5, 16), (16, 16), (2, 64), (3, 2)])
def test_idle_teams_make_more_openmp_threads_than_cores(
    threads: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_cores(monkeypatch, cores)
    count = waiting.IdleTeams(threads).count
    assert 1 + (threads - 1) * (1 + count) > cores
    assert count == 1 or 1 + (threads - 1) * count <= cores  # no more of them than that takes


@on_linux
def test_one_thread_and_the_users_wait_policy_need_no_teams(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.share = 1.0
    with waiting.sleep_where_busy():  # one thread
        time.sleep(0.1)
        assert holders() == 0
    torch.set_num_threads(2)
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    with waiting.sleep_where_busy():
        time.sleep(0.1)
        assert holders() == 0


@on_linux
def test_waiting_clock_counts_the_time_without_a_core() -> None:
    """Two processes on one core: each waits about half of the time."""
    code = """
import os, subprocess, sys, time
from aetrain.training.backend.waiting import waiting_clock
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
waited = waiting_clock()
if waited is None:
    sys.exit("skip")
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
time.sleep(0.2)
start, before = time.perf_counter(), waited()
while time.perf_counter() < start + 1:
    pass
print((waited() - before) / (time.perf_counter() - start))
other.kill()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.stderr == "skip\n":
        pytest.skip("this kernel does not count the time that a thread waits")
    assert 0.3 < float(done.stdout) < 1
