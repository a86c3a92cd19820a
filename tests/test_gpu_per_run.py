"""Runs that a launcher trains side by side on a machine with several GPUs get one each; the devices are names alone."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from command import process
from slow_runs import RUN, problems_of_devices, read_records, write_slow_noise

from aetrain.sweeps.devices import CUDA_VARIABLE, LOCKS, SHARED_VARIABLE, own_device, visible_devices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2,0", ["2", "0"]),
        (" 3 , 5", ["3", "5"]),
        ("GPU-8932f937,MIG-GPU-1/0/1", ["GPU-8932f937", "MIG-GPU-1/0/1"]),
        ("1,-1,2", ["1"]),  # CUDA stops at an invalid device
        ("1,1", ["1"]),
        ("", []),
        ("-1", []),
    ],
)
def test_the_list_of_the_user_is_read_as_cuda_reads_it(text: str, expected: list[str]) -> None:
    assert visible_devices({CUDA_VARIABLE: text}) == expected


def test_without_a_list_all_devices_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_devices({}) == ["0", "1", "2"]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two devices be shared by the runs of a sweep."""
    monkeypatch.setenv(SHARED_VARIABLE, "1")
    monkeypatch.setenv(CUDA_VARIABLE, "4,7")


def test_each_run_gets_one_device_and_returns_it_after_a_failure(
    shared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_device("auto", tmp_path):
        assert os.environ[CUDA_VARIABLE] == "4"
        monkeypatch.setenv(CUDA_VARIABLE, "4,7")  # of another process
        with pytest.raises(RuntimeError, match="out of memory on 7"):
            fail_on_own_device(tmp_path)
        monkeypatch.setenv(CUDA_VARIABLE, "4,7")
        with own_device("auto", tmp_path):
            assert os.environ[CUDA_VARIABLE] == "7", "returned"


def fail_on_own_device(sweep: Path) -> None:
    with own_device("cuda", sweep):
        raise RuntimeError(f"out of memory on {os.environ[CUDA_VARIABLE]}")


@pytest.mark.parametrize(("device", "variable", "is_shared"), [("cpu", "4,7", 1), ("auto", "4", 1), ("auto", "4,7", 0)])
def test_nothing_is_given_out_where_no_run_needs_it(
    device: str, variable: str, is_shared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to a run on the CPU, not of a single device, and not to runs one after another."""
    monkeypatch.setenv(CUDA_VARIABLE, variable)
    monkeypatch.delenv(SHARED_VARIABLE, raising=False)
    if is_shared:
        monkeypatch.setenv(SHARED_VARIABLE, "1")
    with own_device(device, tmp_path):
        assert os.environ[CUDA_VARIABLE] == variable
    assert not (tmp_path / LOCKS).exists()


def keep_device(sweep: Path) -> None:
    with own_device("auto", sweep):
        (sweep / f"{os.environ[CUDA_VARIABLE]}-{os.getpid()}.txt").touch()
        time.sleep(60)


def test_a_run_waits_for_a_device_and_gets_that_of_a_killed_run(shared: None, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=keep_device, args=(tmp_path,)) for _ in range(3)]
    for started in processes:
        started.start()
    try:
        holders = wait_for_holders(tmp_path, 2)
        assert {device for device, _ in holders} == {"4", "7"}
        time.sleep(1)
        assert wait_for_holders(tmp_path, 2) == holders, "the third waits"
        device, pid = min(holders)
        os.kill(pid, signal.SIGKILL)
        [(free, other)] = wait_for_holders(tmp_path, 3) - holders
        assert free == device
        assert other != pid
    finally:
        for started in processes:
            started.kill()
            started.join()


def wait_for_holders(folder: Path, count: int) -> set[tuple[str, int]]:
    """Return the devices and the processes that have had them, once there are so many."""
    deadline = time.monotonic() + 100
    while len(files := list(folder.glob("*.txt"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    names = (file.stem.partition("-") for file in files)
    return {(device, int(pid)) for device, _, pid in names}


@pytest.mark.slow
def test_runs_of_joblib_get_one_device_each(tmp_path: Path) -> None:
    """Three workers have two devices of the user's list; a run that is killed returns its own."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    environment = write_slow_noise(tmp_path) | {CUDA_VARIABLE: "5,3", "SLOW_S": "0.05"}
    sweep = [*RUN, "epochs=2", "seed=0,1,2,3,4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]
    outcome = process(sweep, tmp_path, **environment)
    assert outcome.code == 0, outcome.err
    records = read_records(tmp_path)
    assert len(records) == 5
    assert not problems_of_devices(records, {"5", "3"})
    assert {record.environment[CUDA_VARIABLE] for record in records} == {"5", "3"}
    assert not (tmp_path / "sweep" / LOCKS).exists()


def test_runs_one_after_another_see_all_devices(tmp_path: Path) -> None:
    environment = write_slow_noise(tmp_path) | {CUDA_VARIABLE: "5,3"}
    outcome = process([*RUN, "seed=0,1", "epochs=1"], tmp_path, **environment)
    assert outcome.code == 0, outcome.err
    assert {record.environment[CUDA_VARIABLE] for record in read_records(tmp_path)} == {"5,3"}
