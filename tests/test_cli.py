"""The command as a whole: answers without torch, sweeps, evaluations, interruptions, configs of the user."""

import csv
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from command import Outcome, aetrain, command, everything_in, process
from conftest import TINY

from aetrain import __version__ as aetrain_version
from aetrain import api
from aetrain.config.errors import SigTerm
from aetrain.config.overrides import MAX_NAME_LENGTH, list_in_name, name_in, normalize, run_name
from aetrain.config.paths import groups
from aetrain.runs.training_run import TrainingRun
from aetrain.sweeps import launch

LINEAR = (*TINY, "model=linear")


def run_cleanly(arguments: Sequence[str], folder: Path) -> Outcome:
    """Run a command that must succeed without a warning, in this process."""
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    assert not outcome.err
    return outcome


def train_linear(folder: Path, *overrides: str, name: str = "run") -> Path:
    """Train a linear model and return its directory in `folder`."""
    run_cleanly([*LINEAR, f"hydra.run.dir={name!r}", *overrides], folder)
    return folder / name


def only_sweep(folder: Path) -> Path:
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    return sweep


def run_names(sweep: Path) -> set[str]:
    return {path.name for path in sweep.iterdir() if path.is_dir()}


def table_rows(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def metrics_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


# --- Answers ----------------------------------------------------------------------------------------------------------

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from aetrain.cli import main; main()"


def test_version_is_that_of_aetrain(tmp_path: Path) -> None:
    expected = f"aetrain {aetrain_version} (hydra {hydra.__version__}, torch {torch.__version__.partition('+')[0]}"
    for flags in (["--version"], ["-m", "--version", "model=vae"]):
        outcome = run_cleanly(flags, tmp_path)
        assert outcome.out.startswith(expected)
        assert len(outcome.out.splitlines()) == 1
    assert not everything_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["--info", "defaults"], ["-m", "--version"]])
def test_answers_need_no_torch(flags: list[str], tmp_path: Path) -> None:
    """An import of torch fails in the process of the command."""
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
    text = run_cleanly(["--help"], tmp_path).out
    for group, options in groups().items():
        assert f"{group}: {', '.join(options)}" in text
    for expected in ("code_dim: 32", "epochs: 10", "aetrain -m model=deep,vae", "mode=eval run="):
        assert expected in text


def test_overrides_and_flags_can_come_in_any_order(tmp_path: Path) -> None:
    text = run_cleanly(["model=vae", "--cfg", "job", "-p", "model", "model.code_dim=3"], tmp_path).out
    assert "code_dim: 3" in text
    assert "aetrain.objective.penalties.KL" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], pytest.param([*LINEAR, "hydra.run.dir=run"], marks=pytest.mark.slow)]
)
def test_closed_pipe_of_the_output_gives_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    started = subprocess.Popen(
        [*aetrain(), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stderr is not None
    with started:
        started.stdout.readline()
        started.stdout.close()  # what `| head -1` does
        assert not started.stderr.read()
    assert started.returncode == 0
    if arguments != ["--help"]:
        assert metrics_of(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_python_m_aetrain_is_the_command(tmp_path: Path) -> None:
    outcome = process(["epoch=3"], tmp_path, program=[sys.executable, "-m", "aetrain"])
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: no setting or group 'epoch'; did you mean 'epochs'?")


# --- Sweeps -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sweep_names_its_runs_by_their_differences_and_writes_a_table(tmp_path: Path) -> None:
    arguments = ["-m", "model=linear,deep", "noise=none,gaussian", "seed=0,1"]
    outcome = run_cleanly([*arguments, *TINY, "model.code_dim=4"], tmp_path)
    sweep = only_sweep(tmp_path)
    choices = itertools.product(("linear", "deep"), ("none", "gaussian"), (0, 1))
    expected = {f"model={model},noise={noise},seed={seed}" for model, noise, seed in choices}
    assert run_names(sweep) == expected
    table = table_rows(sweep)
    assert set(table) == expected
    for name, row in table.items():
        assert name in outcome.out
        assert row["status"] == "finished"
        assert float(row["test/sse"]) == metrics_of(sweep / name)["test/sse"]
        assert row["seed"] == name[-1]
    assert "model.code_dim" not in next(iter(table.values())), "a setting that is the same in all runs is no column"


def check_failed_sweep(outcome: Outcome, sweep: Path) -> None:
    cause = "sparsity.k=500 is larger than model.code_dim=32"
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: 1 of 2 runs failed")
    assert cause in outcome.err
    assert len(outcome.err.splitlines()) <= 3, outcome.err
    assert run_names(sweep) == {"sparsity.k=500", "sparsity.k=5"}
    failed, finished = sweep / "sparsity.k=500", sweep / "sparsity.k=5"
    assert cause in (failed / "aetrain.log").read_text()
    assert metrics_of(failed)["status"] == "failed"
    assert cause in str(metrics_of(failed)["cause"])
    assert metrics_of(finished)["status"] == "finished"
    assert table_rows(sweep)["sparsity.k=500"]["status"] == "failed"
    assert cause in table_rows(sweep)["sparsity.k=500"]["cause"]
    assert f"failed: {cause}" in outcome.out


@pytest.mark.slow
def test_failed_run_records_its_cause_and_the_others_finish(tmp_path: Path) -> None:
    outcome = command(["-m", *LINEAR, "sparsity=topk", "sparsity.k=500,5"], tmp_path)
    check_failed_sweep(outcome, only_sweep(tmp_path))


@pytest.mark.slow
def test_failed_run_of_a_parallel_sweep(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = ["-m", *LINEAR, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sparsity=topk", "sparsity.k=500,5"]
    check_failed_sweep(process(arguments, tmp_path), only_sweep(tmp_path))


@pytest.mark.slow
def test_sweep_over_the_seed_only(tmp_path: Path) -> None:
    """The runs are named by the seed, and are in the directory of the sweep."""
    run_cleanly(["-m", *LINEAR, "seed=0,1"], tmp_path)
    assert run_names(only_sweep(tmp_path)) == {"seed=0", "seed=1"}
    assert set(os.listdir(tmp_path)) == {"outputs"}


@pytest.mark.slow
def test_swept_values_that_are_no_folder_names_get_different_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for seed, name in enumerate(("a/b", "a_b")):
        np.savez(tmp_path / f"{name}.npz", images=np.random.default_rng(seed).random((40, 8, 8)))
    linear = [override for override in LINEAR if not override.startswith("dataset")]
    run_cleanly(["-m", *linear, "dataset=npz", "dataset.path=a/b.npz,a_b.npz"], tmp_path)
    table = table_rows(only_sweep(tmp_path))
    assert {row["dataset.path"] for row in table.values()} == {"a/b.npz", "a_b.npz"}
    assert len({row["test/sse"] for row in table.values()}) == 2
    assert all(name.startswith("dataset.path=a_b.npz") for name in table)


def test_name_of_many_overrides_is_short_and_unique() -> None:
    many = [f"model.penalties.number_{i}.weight={i}" for i in range(40)]
    name, other = run_name(many), run_name([*many, "seed=1"])
    assert len(name) <= MAX_NAME_LENGTH
    assert len(other) <= MAX_NAME_LENGTH
    assert name != other
    assert run_name([]) == run_name(["device=cpu"]) == "default"
    assert "/" not in run_name(["model=a/b"])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=vae", "penalty=[tc,l2]", "views=[default,atlas]", "measures=probes"], "model=vae,penalty=tc+l2"),
        (["views.units.count=3", "dataset.path=a.npz", "device=cpu"], "default"),
        (["model.penalties.kl.weight=0.1", "model.code_dim=2"], "kl.weight=0.1,model.code_dim=2"),
        (["model.penalties.l2.weight=1", "penalty.l2.weight=2"], "model.penalties.l2.weight=1,penalty.l2.weight=2"),
        (["model.hidden=[400, 200]", "penalty=[l2]", "~penalty.l2.x"], "model.hidden=400+200,penalty=l2,~l2.x"),
        (["model.hidden=[400]", "model.channels=[]", "seed=1"], "model.hidden=400,model.channels=none,seed=1"),
    ],
)
def test_a_run_is_named_by_what_changes_its_result(overrides: list[str], name: str) -> None:
    assert run_name(overrides) == name


def test_different_overrides_have_different_names() -> None:
    values = (
        "relu",
        "[relu]",
        "[relu,tanh]",
        "[[1,2],[3]]",
        "[1,2,3]",
        "[[1],[2,3]]",
        "a b",
        "a_b",
        "{a:1}",
        "[1e+3,2]",
    )
    names = [list_in_name([f"model.activation={value}", "seed=0"]) for value in values]
    assert len({*names}) == len(values)
    assert not any(sign in name for name in names for sign in "[]{} ")
    assert list_in_name(["model=vae", "measures=probes"]) != list_in_name(["model=vae", "measures=[probes,frechet]"])


def test_a_directory_of_version_0_1_keeps_its_name(tmp_path: Path) -> None:
    overrides = ["model.penalties.kl.weight=4", "penalty=[tc,l2]"]
    assert name_in(tmp_path, overrides) == "kl.weight=4,penalty=tc+l2"
    old_name = "model.penalties.kl.weight=4,penalty=[tc,l2]"
    (tmp_path / old_name).mkdir()
    assert name_in(tmp_path, overrides) == old_name
    assert name_in(tmp_path, [*overrides, "seed=1"]) == "kl.weight=4,penalty=tc+l2,seed=1"


@pytest.mark.slow
def test_a_sweep_with_the_names_of_version_0_1_continues(tmp_path: Path) -> None:
    """Swept views are in the name, and a run whose directory has its old name is not trained again."""
    tiny = [override for override in TINY if not override.startswith("views")]
    arguments = ["-m", *tiny, "model=linear", "hydra.sweep.dir=sweep", "views=none,[reconstructions,interpolations]"]
    run_cleanly([*arguments, "epochs=0"], tmp_path)
    sweep = tmp_path / "sweep"
    assert run_names(sweep) == {"views=none", "views=reconstructions+interpolations"}
    old = (sweep / "views=reconstructions+interpolations").rename(sweep / "views=[reconstructions,interpolations]")
    before = everything_in(old)
    run_cleanly([*arguments, "epochs=0"], tmp_path)
    assert run_names(sweep) == {"views=none", old.name}
    assert everything_in(old) == before


def test_refused_sweep_leaves_nothing(tmp_path: Path) -> None:
    assert command(["-m", "seed=0,1", "epoch=3"], tmp_path).code == 1
    assert not everything_in(tmp_path)


# --- Evaluations ------------------------------------------------------------------------------------------------------


def test_run_directory_with_signs_in_its_path(tmp_path: Path) -> None:
    run = train_linear(tmp_path, name="outputs/model=linear,noise=none/[1] it's (mine)")
    outcome = run_cleanly(["mode=eval", f"run={run.relative_to(tmp_path)}"], tmp_path)
    assert "test/sse" in outcome.out


def test_evaluation_without_conditions_gives_the_same_metrics(tmp_path: Path) -> None:
    run = train_linear(tmp_path, "noise=masking")
    before = metrics_of(run)
    run_cleanly(["mode=eval", "run=run"], tmp_path)
    assert metrics_of(run) == before
    assert not (run / "eval").exists()


@pytest.mark.slow
def test_evaluation_under_conditions_does_not_change_the_run(tmp_path: Path) -> None:
    run = train_linear(tmp_path)
    before = everything_in(run)
    run_cleanly(["mode=eval", "run=run", "noise=gaussian", "noise.std=0.2"], tmp_path)
    after = everything_in(run)
    assert before.items() <= after.items()
    assert {name.split(os.sep)[0] for name in after.keys() - before.keys()} == {"eval"}
    metrics = metrics_of(run / "eval" / "noise=gaussian,noise.std=0.2")
    assert metrics["status"] == "finished"
    assert metrics["test/sse"] == metrics_of(run)["test/sse"]
    assert "test/noisy_sse" in metrics
    assert "test/noisy_sse" not in metrics_of(run)


@pytest.mark.slow
def test_sweep_of_evaluations(tmp_path: Path) -> None:
    run = train_linear(tmp_path)
    run_cleanly(["-m", "mode=eval", "run=run", "noise=gaussian,masking"], tmp_path)
    assert run_names(run / "eval") == {"noise=gaussian", "noise=masking"}
    assert {row["status"] for row in table_rows(run / "eval").values()} == {"finished"}


def test_sweeps_of_evaluations_under_other_conditions_have_directories_of_their_own(tmp_path: Path) -> None:
    run_cleanly([*TINY, "model=vae", "model.hidden=[8]", "epochs=0", "hydra.run.dir=run"], tmp_path)
    for weight in (0, 2):
        conditions = [f"model.penalties.kl.weight={weight}", "verbose=true", "noise=none,masking"]
        outcome = command(["-m", "mode=eval", "run=run", *conditions], tmp_path)
        assert outcome.code == 0, outcome.err
    names = {f"kl.weight={weight},noise={noise}" for weight in (0, 2) for noise in ("none", "masking")}
    assert {folder.name for folder in (tmp_path / "run" / "eval").iterdir() if folder.is_dir()} == names
    losses = {metrics_of(tmp_path / "run" / "eval" / name)["test/loss"] for name in names}
    assert len(losses) == len(names)


def test_evaluation_without_a_penalty_does_not_change_the_run(tmp_path: Path) -> None:
    run_cleanly([*TINY, "model=vae", "model.hidden=[8]", "epochs=0", "hydra.run.dir=run"], tmp_path)
    before = everything_in(tmp_path)
    outcome = command(["mode=eval", "run=run", "~model.penalties.kl"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert {name: content for name, content in everything_in(tmp_path).items() if name in before} == before
    assert (tmp_path / "run" / "eval" / "~penalties.kl" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "override",
    [
        *("keep=best", "ema=0.9", "epochs=3", "optimizer=sgd", "optimizer.lr=1", "schedule=cosine", "stop.patience=2"),
        *("pretrain=mean", "clip_grad_norm=1", "accumulate_grad_batches=2"),
    ],
)
def test_setting_of_training_is_refused_where_a_run_is_evaluated(override: str, tmp_path: Path) -> None:
    outcome = command(["mode=eval", "run=run", override], tmp_path)
    assert outcome.code == 1
    assert f"mode=eval does not train, so that {override} would change nothing: leave it out" in outcome.err


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
def test_true_is_read_in_every_spelling_of_hydra(value: str) -> None:
    overrides = ["dataset=ratings", f"dataset.implicit={value}"]
    assert normalize(overrides) == [*overrides, "likelihood=multinomial"]


@pytest.mark.slow
def test_failure_of_an_earlier_sweep_does_not_fail_the_next(tmp_path: Path) -> None:
    train_linear(tmp_path)
    assert command(["-m", "mode=eval", "run=run", "noise=gaussian", "noise.std=-1,0.5"], tmp_path).code == 1
    assert "noise.std=-1" in run_cleanly(["-m", "mode=eval", "run=run", "noise=gaussian,masking"], tmp_path).out


@pytest.mark.slow
def test_api_and_command_give_the_same_metrics(tmp_path: Path) -> None:
    run = train_linear(tmp_path)
    from_python = api.run([*LINEAR, f"hydra.run.dir={tmp_path / 'again'}"])
    assert without_times(metrics_of(run)) == without_times(from_python.metrics)


def without_times(metrics: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in metrics.items() if name not in ("seconds", "train/seconds_per_epoch")}


# --- Interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_be_loaded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*LINEAR, "epochs=100000", "hydra.run.dir=run"]
    started = subprocess.Popen(
        [*aetrain(), *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    with started:
        deadline = time.monotonic() + 60
        while not (run / "checkpoint").is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert b"Traceback" not in err
    assert err.endswith(b"aetrain resume=run\n")
    assert metrics_of(run)["status"] == "interrupted"
    assert api.load(run).config.epochs == 100000


def continuing_command(outcome: Outcome, code: int) -> list[str]:
    """Return the words of the command that an interrupted command prints at its end."""
    assert outcome.code == code, outcome.err
    introduction, command_line = outcome.err.splitlines()[-2:]
    assert introduction == "aetrain: interrupted; this command continues:"
    program, *arguments = shlex.split(command_line)
    assert program == "aetrain"
    return arguments


@pytest.mark.parametrize(("signal_error", "code"), [(KeyboardInterrupt, 130), (SigTerm, 143)])
def test_interrupted_run_prints_the_command_that_resumes_it(
    signal_error: type[BaseException], code: int, tmp_path: Path
) -> None:
    arguments = [*LINEAR, "epochs=2", "hydra.run.dir=outputs/it's é, (1)"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "finish", raises(signal_error))
        outcome = command(arguments, tmp_path)
    resume = continuing_command(outcome, code)
    assert resume == ["resume=outputs/it's é, (1)"]
    run_cleanly(resume, tmp_path)
    assert metrics_of(tmp_path / "outputs" / "it's é, (1)")["status"] == "finished"


def raises(error: type[BaseException]) -> Callable[..., None]:
    def stop(*_: object) -> None:
        raise error

    return stop


def test_interrupted_run_of_another_user_is_resumed_with_the_trust_it_had(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "finish", raises(KeyboardInterrupt))
        outcome = command([*LINEAR, "trust=true", "hydra.run.dir=run"], tmp_path)
    assert continuing_command(outcome, 130) == ["resume=run", "trust=true"]


def test_interruption_before_a_run_or_of_an_evaluation_prints_no_command(tmp_path: Path) -> None:
    run = train_linear(tmp_path)
    for name, arguments in (
        ("aetrain.runs.train.load_data", [*LINEAR, "hydra.run.dir=new"]),
        ("aetrain.modes.evaluate.evaluate_components", ["mode=eval", "run=run", "noise=gaussian"]),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(name, raises(KeyboardInterrupt))
            outcome = command(arguments, tmp_path)
        assert outcome.code == 130
        assert "resume" not in outcome.err
    assert not (tmp_path / "new").exists()
    assert metrics_of(run)["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("directory", [[], ["hydra.sweep.dir=my sweep"]])
def test_interrupted_sweep_prints_the_command_that_does_the_rest(directory: list[str], tmp_path: Path) -> None:
    arguments = ["-m", *LINEAR, "model.code_dim=2,3", *directory]
    with pytest.MonkeyPatch.context() as patch:
        run_job = launch.run_isolated
        patch.setattr(launch, "run_isolated", lambda r: (raises(SigTerm) if "=3" in str(r.run_dir) else run_job)(r))
        outcome = command(arguments, tmp_path)
    (sweep,) = (file.parent for file in tmp_path.rglob("multirun.yaml"))
    continued = continuing_command(outcome, 143)
    added = [] if directory else [f"hydra.sweep.dir={sweep.relative_to(tmp_path)}"]
    assert continued == [*arguments, *added]
    first = metrics_of(sweep / "model.code_dim=2")
    run_cleanly(continued, tmp_path)
    assert metrics_of(sweep / "model.code_dim=2") == first, "a finished run is not repeated"
    assert run_names(sweep) == {"model.code_dim=2", "model.code_dim=3"}
    assert {row["status"] for row in table_rows(sweep).values()} == {"finished"}


# --- Configs and components of the user -------------------------------------------------------------------------------

MODULE = '''
from aetrain.data.noise import NoNoise


class Inverted(NoNoise):
    """Exchange black and white, `times` times."""

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
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a module and a config folder of the user."""
    (tmp_path / "own_noises.py").write_text(MODULE)
    for group, option, text in (
        ("model", "wide", "# Wide.\ndefaults: [deep, _self_]\nhidden: [96]\n"),
        ("noise", "inverted", "# Inverted.\n_target_: own_noises.Inverted\ntimes: 1\n"),
    ):
        (tmp_path / "mine" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / group / f"{option}.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_configs_and_components_of_the_user(user_folder: Path) -> None:
    chosen = ["model=wide", "noise=inverted", "hydra.run.dir=run"]
    run_cleanly(["--config-dir", "mine", *TINY, *chosen], user_folder)
    metrics = metrics_of(user_folder / "run")
    assert metrics["weights"] == 64 * 96 + 96 + 96 * 32 + 32 + 32 * 96 + 96 + 96 * 64 + 64
    assert "test/noisy_sse" in metrics


@pytest.mark.slow
def test_options_of_the_user_are_listed_in_help_and_errors(user_folder: Path) -> None:
    assert "wide" in run_cleanly(["--config-dir", "mine", "--help"], user_folder).out
    assert "wide" in command(["--config-dir", "mine", "model=wdie"], user_folder).err
    assert (
        "noise.times=0 does nothing"
        in command(["--config-dir", "mine", *TINY, "noise=inverted", "noise.times=0"], user_folder).err
    )
    assert (
        "noise.times=x is not a whole number"
        in command(["--config-dir=mine", "noise=inverted", "noise.times=x"], user_folder).err
    )


@pytest.mark.slow
def test_run_with_components_of_the_user_is_evaluated_if_trusted(user_folder: Path) -> None:
    run_cleanly(["--config-dir", "mine", *LINEAR, "noise=inverted", "hydra.run.dir=run"], user_folder)
    run_cleanly(["mode=eval", "run=run"], user_folder)  # this user has signed it
    (user_folder / "run" / ".hydra" / "signature").unlink()  # as of a run that was made elsewhere
    refused = command(["mode=eval", "run=run"], user_folder)
    assert "trust=true" in refused.err
    run_cleanly(["mode=eval", "run=run", "trust=true"], user_folder)
