"""Nothing is lost: runs that are killed come to the same as those that are not, bit for bit."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command, everything_in
from conftest import TINY
from faults import CASES, EvalInputs

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory

LINEAR = (*TINY, "model=linear")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_run_comes_to_the_same(case: str, tmp_path: Path) -> None:
    """At a random moment of all that the run passes through, and at another of its second attempt."""
    differ, _, told = FaultCase(f"{case} views=none", tmp_path).kill(seed=CASES.index(case), times=2)
    assert not differ, told


@pytest.mark.slow
def test_kill_at_every_rename_in_turn(tmp_path: Path) -> None:
    """One run, killed at its first rename, taken up and killed at the second, and so on: between any two files."""
    from aetrain.selfcheck.kill import KillPoint, run

    inputs = EvalInputs("model=linear views=none", tmp_path)
    for count in range(1, inputs.passed["os.rename", 0] + 1):
        run(inputs.at("killed"), KillPoint(("os.rename", 0), count, signal.SIGKILL))
    assert run(inputs.at("killed")) == 0
    assert not differences(inputs.wanted, fingerprint(tmp_path / "killed"))


def metrics_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


def fine(arguments: list[str], folder: Path) -> str:
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_resume_needs_no_other_word(tmp_path: Path) -> None:
    fine([*LINEAR, "seed=3", "hydra.run.dir=run"], tmp_path)
    before = fingerprint(tmp_path / "run")
    assert "nothing to do" in fine(["resume=run"], tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    fine(["resume=run"], tmp_path)
    assert fingerprint(tmp_path / "run") == before
    assert "seed=3" in (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()


def test_more_epochs_extend_a_run_as_if_it_had_been_asked_for_them(tmp_path: Path) -> None:
    common = [*LINEAR, "views=all", "dataset.validation=40", "noise=masking"]
    fine([*common, "epochs=5", "hydra.run.dir=whole"], tmp_path)
    fine([*common, "epochs=3", "hydra.run.dir=parts"], tmp_path)
    fine(["resume=parts", "epochs=5"], tmp_path)
    assert not differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "parts"))


def test_fewer_epochs_than_there_are_is_said(tmp_path: Path) -> None:
    fine([*LINEAR, "epochs=3", "hydra.run.dir=run"], tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    assert "at epoch 3 already" in command(["resume=run", "epochs=2"], tmp_path).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("resume=run seed=1", "seed: 0 there, 1 here"),
        ("resume=run model=deep", "another config"),
        ("resume=run hydra.run.dir=else", "drop"),
        ("resume=run run=run", "drop"),
        ("resume=nowhere", "no directory"),
        ("-m resume=run,else", "one run"),
    ],
)
def test_resume_with_something_else_is_refused(arguments: str, says: str, tmp_path: Path) -> None:
    fine([*LINEAR, "hydra.run.dir=run"], tmp_path)
    before = everything_in(tmp_path)
    outcome = command(arguments.split(), tmp_path)
    assert outcome.code == 1
    assert says in outcome.err
    assert everything_in(tmp_path) == before


def test_same_seed_same_run_whatever_is_drawn(tiny: Callable[..., Path]) -> None:
    chosen = ("model=vae", "noise=gaussian", "epochs=2")
    one, same, drawn, other = (
        fingerprint(tiny(*chosen, *more, name=name))
        for name, more in (("one", ()), ("same", ()), ("drawn", ("views=all",)), ("other", ("seed=1",)))
    )
    assert one == same
    assert set(differences(one, drawn)) <= {"pictures", "figures"}
    assert {"weights", "metrics", "history", "curves"} <= set(differences(one, other))


def test_looking_at_a_run_does_not_change_it(tmp_path: Path) -> None:
    fine([*LINEAR, "hydra.run.dir=run"], tmp_path)
    before = fingerprint(tmp_path / "run")
    fine(["mode=eval", "run=run"], tmp_path)
    fine(["mode=eval", "run=run", "noise=gaussian"], tmp_path)
    api.load(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == before


def test_directory_that_is_being_written_to_is_refused(tmp_path: Path) -> None:
    fine([*LINEAR, "hydra.run.dir=run"], tmp_path)
    home = RunDirectory(tmp_path / "run")
    config, _, overrides = api.compose_config([*LINEAR, f"hydra.run.dir={home.path}"])
    home.claim(config, said)
    before = everything_in(tmp_path)
    try:
        for arguments in ([*LINEAR, "hydra.run.dir=run", "epochs=2"], ["resume=run", "epochs=2"]):
            outcome = command(arguments, tmp_path)
            assert outcome.code == 1
            assert "is being written to by another process" in outcome.err
            assert everything_in(tmp_path) == before
    finally:
        home.release()
    fine(["resume=run", "epochs=2"], tmp_path)


def test_damaged_checkpoint_costs_an_epoch_and_two_are_said(tmp_path: Path) -> None:
    fine([*LINEAR, "epochs=3", "hydra.run.dir=run"], tmp_path)
    run = tmp_path / "run"
    before = fingerprint(run)
    weights = run / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (run / "metrics.json").unlink()
    (run / "history.jsonl").unlink()
    assert "going by the one before, of epoch 2" in fine(["resume=run"], tmp_path)
    assert fingerprint(run) == before
    for state in run.glob("checkpoint*/state.json"):
        state.write_text(state.read_text().replace('"epoch": ', '"epoch": 1'))
    (run / "metrics.json").unlink()
    outcome = command(["resume=run"], tmp_path)
    assert outcome.code == 1
    assert "state.json is not what was written" in outcome.err
    assert "train the run again" in outcome.err


def test_diverging_run_names_the_term_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    chosen = [*LINEAR, "optimizer=sgd", "likelihood=gaussian", "epochs=50", "optimizer.lr=1e6", "hydra.run.dir=run"]
    outcome = command(chosen, tmp_path)
    assert outcome.code == 1
    assert "training diverged in epoch" in outcome.err
    assert "optimizer.lr" in outcome.err
    run = api.load(tmp_path / "run")
    assert all(weight.isfinite().all() for weight in run.model.parameters())
    assert metrics_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("after", [1, 5, 12, 20])
def test_full_disk_stops_the_run_and_costs_nothing(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written or renamed any more from some moment on."""
    import errno
    import os

    inputs = [*LINEAR, "epochs=4"]
    fine([*inputs, "hydra.run.dir=whole"], tmp_path)
    left = after
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        outcome = command([*inputs, "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert "Traceback" not in outcome.err
    if after >= 12:
        api.load(tmp_path / "run")
    fine([*inputs, "hydra.run.dir=run"], tmp_path)
    assert not differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run"))


def test_run_of_another_shape_is_refused(tmp_path: Path) -> None:
    fine([*LINEAR, "hydra.run.dir=run"], tmp_path)
    fine([*LINEAR, "model.code_dim=7", "hydra.run.dir=other"], tmp_path)
    for name in ("checkpoint", "checkpoint.previous"):
        shutil.rmtree(tmp_path / "run" / name)
        shutil.copytree(tmp_path / "other" / name, tmp_path / "run" / name)
    with pytest.raises(ConfigError, match="another model's weights"):
        api.load(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert "another model's weights" in command(["resume=run"], tmp_path).err
