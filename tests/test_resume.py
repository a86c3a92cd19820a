"""Exact resume: killed and resumed runs equal runs without a kill, bit for bit."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command, everything_in
from conftest import TINY
from faults import CASES, FaultCase

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.selfcheck import kill
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory

LINEAR = (*TINY, "model=linear")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_run_resumes_exactly(case: str, tmp_path: Path) -> None:
    """The run is killed at a random line or file operation, and its second attempt at another."""
    differing, _, actions = FaultCase(f"{case} views=none", tmp_path).kill(seed=CASES.index(case), times=2)
    assert not differing, actions


@pytest.mark.slow
def test_run_killed_at_every_rename_resumes_exactly(tmp_path: Path) -> None:
    """The run is killed at its first rename, resumed and killed at the second, and thus between any two files."""
    case = FaultCase("model=linear views=none", tmp_path)
    for count in range(1, case.counts["os.rename", 0] + 1):
        kill.run(case.command_line("killed"), kill.KillPoint(("os.rename", 0), count, signal.SIGKILL))
    assert kill.run(case.command_line("killed")) == 0
    assert not differences(case.expected, fingerprint(tmp_path / "killed"))


def status(run: Path) -> str:
    return str(json.loads((run / "metrics.json").read_text())["status"])


def run_command(arguments: list[str], folder: Path) -> str:
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.mark.slow
def test_resume_needs_no_other_override(tmp_path: Path) -> None:
    run_command([*LINEAR, "seed=3", "hydra.run.dir=run"], tmp_path)
    before = fingerprint(tmp_path / "run")
    assert "nothing to do" in run_command(["resume=run"], tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    run_command(["resume=run"], tmp_path)
    assert fingerprint(tmp_path / "run") == before
    assert "seed=3" in (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()


@pytest.mark.slow
def test_resume_with_more_epochs_equals_a_run_of_as_many_epochs(tmp_path: Path) -> None:
    common = [*LINEAR, "views=all", "dataset.validation=40", "noise=masking"]
    run_command([*common, "epochs=5", "hydra.run.dir=uninterrupted"], tmp_path)
    run_command([*common, "epochs=3", "hydra.run.dir=extended"], tmp_path)
    run_command(["resume=extended", "epochs=5"], tmp_path)
    assert not differences(fingerprint(tmp_path / "uninterrupted"), fingerprint(tmp_path / "extended"))


def test_resume_with_fewer_epochs_is_refused(tmp_path: Path) -> None:
    run_command([*LINEAR, "epochs=3", "hydra.run.dir=run"], tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    before = everything_in(tmp_path)
    outcome = command(["resume=run", "epochs=2"], tmp_path)
    assert outcome.code == 1
    assert "at epoch 3 already: epochs=2 is too small, use 3 or more" in outcome.err
    assert everything_in(tmp_path) == before
    run_command(["resume=run", "epochs=3"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("resume=run seed=1", "seed: 0 there, 1 here"),
        ("resume=run model=deep", "another config"),
        ("resume=run hydra.run.dir=else", "drop"),
        ("resume=run run=run", "drop"),
        ("resume=nowhere", "no directory"),
        ("-m resume=run,else", "one run"),
    ],
)
def test_resume_of_another_config_is_refused(arguments: str, message: str, tmp_path: Path) -> None:
    run_command([*LINEAR, "hydra.run.dir=run"], tmp_path)
    before = everything_in(tmp_path)
    outcome = command(arguments.split(), tmp_path)
    assert outcome.code == 1
    assert message in outcome.err
    assert everything_in(tmp_path) == before


@pytest.mark.slow
def test_same_seed_gives_the_same_run_with_any_views(tiny: Callable[..., Path]) -> None:
    overrides = ("model=vae", "noise=gaussian", "epochs=2")
    first = fingerprint(tiny(*overrides, name="first"))
    same = fingerprint(tiny(*overrides, name="same"))
    with_views = fingerprint(tiny(*overrides, "views=all", name="with_views"))
    other = fingerprint(tiny(*overrides, "seed=1", name="other"))
    assert first == same
    assert set(differences(first, with_views)) <= {"pictures", "figures"}
    assert {"weights", "metrics", "history", "curves"} <= set(differences(first, other))


@pytest.mark.slow
def test_evaluation_and_loading_do_not_change_a_run(tmp_path: Path) -> None:
    run_command([*LINEAR, "hydra.run.dir=run"], tmp_path)
    before = fingerprint(tmp_path / "run")
    run_command(["mode=eval", "run=run"], tmp_path)
    run_command(["mode=eval", "run=run", "noise=gaussian"], tmp_path)
    api.load(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == before


@pytest.mark.slow
def test_directory_that_another_process_writes_to_is_refused(tmp_path: Path) -> None:
    run_command([*LINEAR, "hydra.run.dir=run"], tmp_path)
    run_dir = RunDirectory(tmp_path / "run")
    config, _, overrides = api.compose_config([*LINEAR, f"hydra.run.dir={run_dir.path}"])
    run_dir.claim(config, overrides)
    before = everything_in(tmp_path)
    try:
        for arguments in ([*LINEAR, "hydra.run.dir=run", "epochs=2"], ["resume=run", "epochs=2"]):
            outcome = command(arguments, tmp_path)
            assert outcome.code == 1
            assert "is being written to by another process" in outcome.err
            assert everything_in(tmp_path) == before
    finally:
        run_dir.release()
    run_command(["resume=run", "epochs=2"], tmp_path)


@pytest.mark.slow
def test_previous_checkpoint_replaces_a_damaged_one_and_two_damaged_ones_are_named(tmp_path: Path) -> None:
    run_command([*LINEAR, "epochs=3", "hydra.run.dir=run"], tmp_path)
    run = tmp_path / "run"
    before = fingerprint(run)
    weights = run / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (run / "metrics.json").unlink()
    (run / "history.jsonl").unlink()
    assert "using the previous checkpoint, of epoch 2" in run_command(["resume=run"], tmp_path)
    assert fingerprint(run) == before
    for state in run.glob("checkpoint*/state.json"):
        state.write_text(state.read_text().replace('"epoch": ', '"epoch": 1'))
    (run / "metrics.json").unlink()
    outcome = command(["resume=run"], tmp_path)
    assert outcome.code == 1
    assert "state.json does not match its digest" in outcome.err
    assert "train the run again" in outcome.err


def test_damaged_first_checkpoint_is_not_kept_as_the_previous_one(tmp_path: Path) -> None:
    run_command([*LINEAR, "epochs=0", "hydra.run.dir=run"], tmp_path)
    for _ in range(2):  # the run begins anew each time
        (tmp_path / "run" / "checkpoint" / "state.json").unlink()
        (tmp_path / "run" / "metrics.json").unlink()
        run_command([*LINEAR, "epochs=0", "hydra.run.dir=run"], tmp_path)
    assert not (tmp_path / "run" / "checkpoint.previous").exists()


@pytest.mark.parametrize("damage", ["model.safetensors", "state.json"])
def test_trained_weights_that_are_damaged_are_not_removed(damage: str, tmp_path: Path) -> None:
    """A kill between the removal of the previous checkpoint and the next rename leaves one of a later epoch alone."""
    run = tmp_path / "run"
    run_command([*LINEAR, "epochs=2", "hydra.run.dir=run"], tmp_path)
    shutil.rmtree(run / "checkpoint.previous")
    (run / "metrics.json").unlink()
    (run / "checkpoint" / damage).write_bytes(b"{}")
    before = everything_in(run / "checkpoint")
    outcome = command(["resume=run"], tmp_path)
    assert outcome.code == 1
    assert "checkpoint is damaged" in outcome.err + outcome.out
    assert everything_in(run / "checkpoint") == before


def test_checkpoint_that_cannot_be_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run_command([*LINEAR, "epochs=0", "hydra.run.dir=run"], tmp_path)
    (run / "metrics.json").unlink()
    before, read_bytes = everything_in(run / "checkpoint"), Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "model.safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ConfigError, match="Input/output error"):
        aetrain.run([f"resume={run}"])
    monkeypatch.undo()
    assert everything_in(run / "checkpoint") == before


def test_diverging_run_names_the_loss_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    arguments = [*LINEAR, "optimizer=sgd", "likelihood=gaussian", "epochs=50", "optimizer.lr=1e6", "hydra.run.dir=run"]
    outcome = command(arguments, tmp_path)
    assert outcome.code == 1
    assert "training diverged in epoch" in outcome.err
    assert "optimizer.lr" in outcome.err
    run = api.load(tmp_path / "run")
    assert all(weight.isfinite().all() for weight in run.model.parameters())
    assert status(tmp_path / "run") == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("num_writes", [1, 5, 12, 20])
def test_run_on_a_full_disk_stops_and_resumes_exactly(
    num_writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file can be written after `num_writes` successful writes."""
    overrides = [*LINEAR, "epochs=4"]
    run_command([*overrides, "hydra.run.dir=uninterrupted"], tmp_path)
    remaining = num_writes
    fsync = os.fsync

    def fail_when_full(descriptor: int) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_when_full)
        outcome = command([*overrides, "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert "Traceback" not in outcome.err
    if num_writes >= 12:
        api.load(tmp_path / "run")
    run_command([*overrides, "hydra.run.dir=run"], tmp_path)
    assert not differences(fingerprint(tmp_path / "uninterrupted"), fingerprint(tmp_path / "run"))


@pytest.mark.slow
def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run_command([*LINEAR, "hydra.run.dir=run"], tmp_path)
    run_command([*LINEAR, "model.code_dim=7", "hydra.run.dir=other"], tmp_path)
    for name in ("checkpoint", "checkpoint.previous"):
        shutil.rmtree(tmp_path / "run" / name)
        shutil.copytree(tmp_path / "other" / name, tmp_path / "run" / name)
    with pytest.raises(ConfigError, match="another model's weights"):
        api.load(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert "another model's weights" in command(["resume=run"], tmp_path).err
