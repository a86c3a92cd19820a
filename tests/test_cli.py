"""The command as a whole: answers without torch, sweeps, evaluations, interruptions, a user's own configs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command import Outcome, aetrain, command, everything_in, process
from conftest import TINY

from aetrain import api
from aetrain.config.compose import MAX_NAME, run_name
from aetrain.config.paths import groups

LINEAR = (*TINY, "model=linear")


def fine(arguments: Sequence[str], folder: Path) -> Outcome:
    """A command that has to succeed, in this process."""
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    assert not outcome.err
    return outcome


def trained(folder: Path, *overrides: str, name: str = "run") -> Path:
    """A run in `folder`."""
    fine([*LINEAR, f"hydra.run.dir={name!r}", *overrides], folder)
    return folder / name


def only_sweep(folder: Path) -> Path:
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    return sweep


def names(sweep: Path) -> set[str]:
    return {path.name for path in sweep.iterdir() if path.is_dir()}


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def metrics_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


# --- Answers ----------------------------------------------------------------------------------------------------------

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from aetrain.cli import main; main()"


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["--info", "defaults"], ["-m", "--version"]])
def test_answers_need_no_torch(flags: list[str], tmp_path: Path) -> None:
    """An import of torch fails in this process."""
    outcome = process(flags, tmp_path, program=[sys.executable, "-c", WITHOUT_TORCH])
    assert outcome.code == 0, outcome.err
    assert outcome.out
    assert not everything_in(tmp_path)


def test_completion_needs_no_torch(tmp_path: Path) -> None:
    line = {"COMP_LINE": "aetrain model=", "COMP_POINT": "14"}
    program = [sys.executable, "-c", WITHOUT_TORCH]
    outcome = process(["-sc", "query=bash"], tmp_path, program=program, **line)
    assert outcome.code == 0, outcome.err
    assert {f"model={option}" for option in groups()["model"]} <= set(outcome.out.split())


def test_help_lists_groups_options_settings_and_examples(tmp_path: Path) -> None:
    text = fine(["--help"], tmp_path).out
    for group, options in groups().items():
        assert f"{group}: {', '.join(options)}" in text
    for said in ("code_dim: 32", "epochs: 10", "aetrain -m model=deep,vae", "mode=eval run="):
        assert said in text


def test_overrides_and_flags_come_in_any_order(tmp_path: Path) -> None:
    text = fine(["model=vae", "--cfg", "job", "-p", "model", "model.code_dim=3"], tmp_path).out
    assert "code_dim: 3" in text
    assert "GaussianKL" in text


@pytest.mark.parametrize("arguments", [["--help"], [*LINEAR, "hydra.run.dir=run"]])
def test_head_that_takes_one_line_gets_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*aetrain(), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stderr is not None
    with running:
        running.stdout.readline()
        running.stdout.close()
        assert not running.stderr.read()
    assert running.returncode == 0
    if arguments != ["--help"]:
        assert metrics_of(tmp_path / "run")["status"] == "finished"


def test_python_m_aetrain_is_aetrain(tmp_path: Path) -> None:
    outcome = process(["epoch=3"], tmp_path, program=[sys.executable, "-m", "aetrain"])
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: no setting or group 'epoch'; did you mean 'epochs'?")


# --- Sweeps -----------------------------------------------------------------------------------------------------------


def test_sweep_names_its_runs_by_what_differs_and_writes_a_table(tmp_path: Path) -> None:
    swept = ["-m", "model=linear,deep", "noise=none,gaussian", "seed=0,1"]
    outcome = fine([*swept, *TINY, "model.code_dim=4"], tmp_path)
    sweep = only_sweep(tmp_path)
    wanted = {f"model={m},noise={n},seed={s}" for m in ("linear", "deep") for n in ("none", "gaussian") for s in "01"}
    assert names(sweep) == wanted
    table = rows(sweep)
    assert set(table) == wanted
    for name, row in table.items():
        assert name in outcome.out
        assert row["status"] == "finished"
        assert float(row["test/sse"]) == metrics_of(sweep / name)["test/sse"]
        assert row["seed"] == name[-1]
    assert "model.code_dim" not in next(iter(table.values())), "it is the same in all"


def check_failing_sweep(outcome: Outcome, sweep: Path) -> None:
    cause = "sparsity.k=500 is larger than model.code_dim=32"
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: 1 of 2 runs failed")
    assert cause in outcome.err
    assert len(outcome.err.splitlines()) <= 3, outcome.err
    assert names(sweep) == {"sparsity.k=500", "sparsity.k=5"}
    failed, finished = sweep / "sparsity.k=500", sweep / "sparsity.k=5"
    assert cause in (failed / "aetrain.log").read_text()
    assert metrics_of(failed)["status"] == "failed"
    assert cause in str(metrics_of(failed)["cause"])
    assert metrics_of(finished)["status"] == "finished"
    assert rows(sweep)["sparsity.k=500"]["status"] == "failed"
    assert cause in rows(sweep)["sparsity.k=500"]["cause"]
    assert f"failed: {cause}" in outcome.out


def test_failing_run_leaves_its_cause_and_lets_the_others_finish(tmp_path: Path) -> None:
    outcome = command(["-m", *LINEAR, "sparsity=topk", "sparsity.k=500,5"], tmp_path)
    check_failing_sweep(outcome, only_sweep(tmp_path))


def test_failing_run_of_a_parallel_sweep(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = ["-m", *LINEAR, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sparsity=topk", "sparsity.k=500,5"]
    check_failing_sweep(process(arguments, tmp_path), only_sweep(tmp_path))


def test_seed_alone_swept(tmp_path: Path) -> None:
    """Named after nothing but the seed, and inside of the sweep's own directory."""
    fine(["-m", *LINEAR, "seed=0,1"], tmp_path)
    assert names(only_sweep(tmp_path)) == {"seed=0", "seed=1"}
    assert set(os.listdir(tmp_path)) == {"outputs"}


def test_swept_values_that_are_no_folder_names_keep_their_runs_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for seed, name in enumerate(("a/b", "a_b")):
        np.savez(tmp_path / f"{name}.npz", images=np.random.default_rng(seed).random((40, 8, 8)))
    shown = [override for override in LINEAR if not override.startswith("dataset")]
    fine(["-m", *shown, "dataset=npz", "dataset.path=a/b.npz,a_b.npz"], tmp_path)
    table = rows(only_sweep(tmp_path))
    assert {row["dataset.path"] for row in table.values()} == {"a/b.npz", "a_b.npz"}
    assert len({row["test/sse"] for row in table.values()}) == 2
    assert all(name.startswith("dataset.path=a_b.npz") for name in table)


def test_name_of_many_overrides_is_short_and_their_own() -> None:
    many = [f"model.penalties.number_{i}.weight={i}" for i in range(40)]
    name, other = run_name(many), run_name([*many, "seed=1"])
    assert len(name) <= MAX_NAME
    assert len(other) <= MAX_NAME
    assert name != other
    assert run_name([]) == run_name(["device=cpu"]) == "default"
    assert "/" not in run_name(["model=a/b"])


def test_refused_sweep_leaves_nothing(tmp_path: Path) -> None:
    assert command(["-m", "seed=0,1", "epoch=3"], tmp_path).code == 1
    assert not everything_in(tmp_path)


# --- Evaluations ------------------------------------------------------------------------------------------------------


def test_run_directory_with_signs_in_its_path(tmp_path: Path) -> None:
    run = trained(tmp_path, name="outputs/model=linear,noise=none/[1] it's (mine)")
    outcome = fine(["mode=eval", f"run={run.relative_to(tmp_path)}"], tmp_path)
    assert "test/sse" in outcome.out


def test_evaluation_without_conditions_gives_the_same_figures(tmp_path: Path) -> None:
    run = trained(tmp_path, "noise=masking")
    before = metrics_of(run)
    fine(["mode=eval", "run=run"], tmp_path)
    assert metrics_of(run) == before
    assert not (run / "eval").exists()


def test_evaluation_under_conditions_leaves_the_run_alone(tmp_path: Path) -> None:
    run = trained(tmp_path)
    before = everything_in(run)
    fine(["mode=eval", "run=run", "noise=gaussian", "noise.std=0.2"], tmp_path)
    after = everything_in(run)
    assert before.items() <= after.items()
    assert {name.split(os.sep)[0] for name in after.keys() - before.keys()} == {"eval"}
    there = run / "eval" / "noise=gaussian,noise.std=0.2"
    metrics = metrics_of(there)
    assert metrics["status"] == "finished"
    assert metrics["test/sse"] == metrics_of(run)["test/sse"]
    assert "test/noisy_sse" in metrics
    assert "test/noisy_sse" not in metrics_of(run)


def test_sweep_of_evaluations(tmp_path: Path) -> None:
    run = trained(tmp_path)
    fine(["-m", "mode=eval", "run=run", "noise=gaussian,masking"], tmp_path)
    assert names(run / "eval") == {"noise=gaussian", "noise=masking"}
    assert {row["status"] for row in rows(run / "eval").values()} == {"finished"}


def test_failure_of_an_earlier_sweep_is_not_this_ones(tmp_path: Path) -> None:
    trained(tmp_path)
    assert command(["-m", "mode=eval", "run=run", "noise=gaussian", "noise.std=-1,0.5"], tmp_path).code == 1
    assert "noise.std=-1" in fine(["-m", "mode=eval", "run=run", "noise=gaussian,masking"], tmp_path).out


def test_library_and_command_do_the_same(tmp_path: Path) -> None:
    run = trained(tmp_path)
    again = api.run([*LINEAR, f"hydra.run.dir={tmp_path / 'again'}"])
    ours, theirs = metrics_of(run), again.metrics
    timed = {"seconds", "train/seconds_per_epoch"}
    assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}


# --- Interruption -----------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_a_run_that_can_be_loaded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*LINEAR, "epochs=100000", "hydra.run.dir=run"]
    running = subprocess.Popen(
        [*aetrain(), *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    with running:
        deadline = time.monotonic() + 60
        while not (run / "checkpoint").is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"Traceback" not in err
    assert metrics_of(run)["status"] == "interrupted"
    assert api.load(run).config.epochs == 100000


# --- A user's own -----------------------------------------------------------------------------------------------------

MODULE = '''
from aetrain.data.noise import NoNoise


class Inverted(Clean):
    """Black is white; `times` over."""

    def __init__(self, times: int) -> None:
        if times < 1:
            raise ValueError(f"times={times} does nothing: use 1 or more")
        object.__setattr__(self, "times", times)

    def __call__(self, x, generator=None):
        for _ in range(self.times):
            x = 1 - x
        return x
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and a config folder of the user's own."""
    (tmp_path / "own_noises.py").write_text(MODULE)
    for group, option, text in (
        ("model", "wide", "# Wide.\ndefaults: [deep, _self_]\nhidden: [96]\n"),
        ("noise", "inverted", "# Inverted.\n_target_: own_noises.Inverted\ntimes: 1\n"),
    ):
        (tmp_path / "mine" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / group / f"{option}.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_own_configs_and_components(own: Path) -> None:
    chosen = ["model=wide", "noise=inverted", "hydra.run.dir=run"]
    fine(["--config-dir", "mine", *TINY, *chosen], own)
    metrics = metrics_of(own / "run")
    assert metrics["weights"] == 64 * 96 + 96 + 96 * 32 + 32 + 32 * 96 + 96 + 96 * 64 + 64
    assert "test/noisy_sse" in metrics


def test_own_options_are_listed_in_help_and_errors(own: Path) -> None:
    assert "wide" in fine(["--config-dir", "mine", "--help"], own).out
    assert "wide" in command(["--config-dir", "mine", "model=wdie"], own).err
    assert (
        "noise.times=0 does nothing"
        in command(["--config-dir", "mine", *TINY, "noise=inverted", "noise.times=0"], own).err
    )
    assert (
        "noise.times=x is not a whole number"
        in command(["--config-dir=mine", "noise=inverted", "noise.times=x"], own).err
    )


def test_run_with_own_components_is_evaluated_once_trusted(own: Path) -> None:
    fine(["--config-dir", "mine", *LINEAR, "noise=inverted", "hydra.run.dir=run"], own)
    refused = command(["mode=eval", "run=run"], own)
    assert "trust=true" in refused.err
    fine(["mode=eval", "run=run", "trust=true"], own)
