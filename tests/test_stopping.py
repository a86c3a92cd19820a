"""Early stopping and the objective: when training ends, by which metric, and what a resumed run makes of it."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from aetrain import api
from aetrain.config.errors import ConfigError, RunPruned
from aetrain.evaluation.metric_direction import better_direction
from aetrain.evaluation.model_selection import check_measured, epoch_objective, final_objective
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.epoch_selection import epoch_metrics, objective_of_run
from aetrain.runs.request import RunRequest
from aetrain.runs.training_run import TrainingRun
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.early_stopping import EarlyStopping
from aetrain.training.schedules import ObjectiveHook, Plateau

RUN = (
    *("dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "dataset.validation=64", "batch_size=32"),
    *("views=none", "device=cpu", "model=linear"),
)
# So few images that the held-out loss rises after epoch 5.
OVERFITTING = (*RUN, "dataset.subset=4", "batch_size=2", "optimizer.lr=0.03", "epochs=30", "stop.patience=3")


def records(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the final metrics and the epochs of a run."""
    run_dir = RunDirectory(directory)
    return run_dir.metrics(), run_dir.history()


# --- The rule ---------------------------------------------------------------------------------------------------------


def reference_stop(values: Sequence[float], patience: int, min_delta: float) -> int | None:
    """Return the index at which EarlyStopping of Keras (mode="min", `on_epoch_end`) stops; None where it does not."""
    best, wait = float("inf"), 0
    for index, current in enumerate(values):
        wait += 1
        if current - best < -min_delta:
            best, wait = current, 0
        elif wait >= patience:
            return index
    return None


@given(
    st.lists(st.integers(-8, 8), max_size=30),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.booleans(),
)
def test_rule_stops_where_the_rule_of_keras_does(
    values: list[int], patience: int, min_delta: float, higher: bool
) -> None:
    rule = EarlyStopping(patience, min_delta)
    losses = [-value if higher else value for value in values]
    stops = [bool(rule.reason(values[: end + 1], higher)) for end in range(len(values))]
    expected = reference_stop(losses, patience, min_delta)
    assert (stops.index(True) if any(stops) else None) == expected


def test_rule_without_patience_never_stops() -> None:
    assert not EarlyStopping().reason([1.0] * 100, higher_is_better=False)


# --- The schedule that follows the objective -------------------------------------------------------------------------


def reference_rates(losses: Sequence[float], schedule: Plateau) -> list[float]:
    """Return the rates after each loss of torch's schedule, which waits for one epoch more than that of Keras."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=schedule.factor,
        patience=schedule.patience - 1,
        threshold=schedule.min_delta,
        threshold_mode="abs",
        min_lr=schedule.min_factor,
        eps=0.0,
    )
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@settings(deadline=None)  # the first optimizer imports torch's compiler
@given(
    st.lists(st.integers(-8, 8), max_size=30),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.01, 0.2]),
    st.booleans(),
)
def test_plateau_lowers_the_rate_where_torchs_schedule_does(
    values: list[int], patience: int, min_delta: float, min_factor: float, higher: bool
) -> None:
    schedule = Plateau(0.3, patience, min_delta, min_factor)
    losses = [-value if higher else value for value in values]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    (hook,) = schedule.hooks(optimizer)
    assert isinstance(hook, ObjectiveHook)
    rates = []
    for end in range(len(values)):
        hook.set_objective(values[: end + 1], higher)
        hook(0.0)
        rates.append(optimizer.param_groups[0]["lr"] / 0.5)
    assert rates == pytest.approx(reference_rates(losses, schedule))


DESCENT = (*RUN, "optimizer=sgd", "optimizer.lr=0.2", "epochs=8")
PLATEAU = (*DESCENT, "schedule=plateau", "schedule.patience=1")


def test_resumed_run_has_the_rates_of_its_plateaus(run: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    whole = run(*PLATEAU, name="whole")
    losses = [line["validation/loss"] for line in records(whole)[1]]
    factors = [Plateau(patience=1).factor_after(losses[: end + 1], False) for end in range(len(losses))]
    assert factors[4] < 1, "the test needs a rate that falls in the first half"
    falls = sum(one != other for one, other in itertools.pairwise([1.0, *factors]))
    assert sum("learning rate:" in record.message for record in caplog.records) == falls
    assert records(run(*DESCENT, name="constant"))[1][-1]["validation/loss"] != losses[-1]
    run(*PLATEAU, "epochs=4", name="parts")
    parts = run(*PLATEAU, name="parts")
    assert [line["validation/loss"] for line in records(parts)[1]] == losses
    assert not differences(fingerprint(whole), fingerprint(parts))


def test_plateau_of_the_test_set_is_refused(tmp_path: Path) -> None:
    outcome = command([*TINY, "schedule=plateau", "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 1
    assert "schedule (Plateau) would select on the test set" in outcome.err
    assert "dataset.validation=5000" in outcome.err


# --- The objective ----------------------------------------------------------------------------------------------------


def test_objective_of_an_epoch_and_of_a_run_is_its_recorded_metric(run: Callable[..., Path]) -> None:
    directory = run(*RUN, "epochs=2", "objective=validation/sse")
    metrics, history = records(directory)
    assert epoch_objective("validation/sse", history[1]) == (history[1]["validation/sse"],)
    assert objective_of_run(RunDirectory(directory), "validation/sse") == history[2]["validation/sse"]
    assert objective_of_run(RunDirectory(directory), ["validation/loss", "test/psnr"]) == (
        history[2]["validation/loss"],
        metrics["test/psnr"],
    )
    assert epoch_objective("test/psnr", history[1]) is None
    with pytest.raises(ConfigError, match="validation/psnr"):
        final_objective("validation/psnr", metrics, history)


def test_held_out_metric_is_of_the_test_set_where_it_is_held_out(tiny: Callable[..., Path]) -> None:
    metrics, history = records(tiny())
    assert epoch_objective("validation/loss", history[-1]) == (history[-1]["test/loss"],)
    assert final_objective("validation/loss", metrics, history) == (history[-1]["test/loss"],)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=vae", "model.penalties.kl.free_bits=0.1", "noise=masking"],
        ["model=vae", "penalty=tc"],
        ["model=aae"],
        ["model=vqvae", "measures=retrieval"],
        ["sparsity=kl"],
        ["dataset=wine", "dataset.subset=null", "dataset.test_subset=null"],
    ],
)
def test_every_metric_of_a_run_is_a_known_objective(tiny: Callable[..., Path], overrides: list[str]) -> None:
    metrics, history = records(tiny(*overrides))
    tags = {tag for tag in (*metrics, *history[-1]) if "/" in tag and better_direction(tag)}
    assert {"test/loss", "train/loss"} <= tags
    tiny(*overrides, f"objective=[{','.join(sorted(tags))}]", "epochs=0", name="other")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective=validation/los"], ["objective=validation/los", "did you mean 'validation/loss'"]),
        (["objective=loss"], ["did you mean 'validation/loss'"]),
        (["objective=valid/loss"], ["did you mean 'validation/loss'"]),
        (["objective=[]"], ["objective=[] is empty"]),
        (["objective=validation/kl", "model=vae", "stop.patience=1"], ["neither", "validation/loss"]),
        (["objective=test/sse", "stop.patience=1"], ["stop.patience", "select on the test set", "validation=5000"]),
        (["objective=[validation/sse,validation/loss]", "stop.patience=1"], ["objective=validation/sse"]),
        (["objective=validation/psnr", "keep=best"], ["keep=best", "every epoch", "validation/psnr", "validation/sse"]),
        (["objective=validation/neg_elbo", "keep=best"], ["objective=validation/neg_elbo is not"]),
        (["objective=test/psnr", "keep=best", "select_on_test=true"], ["objective=test/psnr is not"]),
        (["objective=train/sse", "schedule=plateau"], ["schedule (Plateau)", "objective=train/sse is not"]),
        (["objective=train/seconds_per_epoch", "stop.patience=1"], ["stop.patience", "every epoch"]),
        (["stop.patience=0"], ["stop.patience=0"]),
        (["stop.min_delta=-1"], ["stop.min_delta=-1"]),
    ],
)
def test_mistake_in_the_objective_is_refused_before_data_are_read(
    overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    outcome = command(["dataset=mnist", f"data_dir={tmp_path / 'none'}", *overrides], tmp_path)
    assert outcome.code == 1
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())


def test_metric_of_the_test_set_is_refused_where_epochs_are_evaluated_on_others(tmp_path: Path) -> None:
    overrides = [*RUN, "keep=best", "objective=test/sse", "select_on_test=true", "epochs=0", "hydra.run.dir=run"]
    outcome = command(overrides, tmp_path)
    assert outcome.code == 1
    assert "keep=best needs a metric that is measured after every epoch, and objective=test/sse is not" in outcome.err
    assert not (tmp_path / "run").exists()
    assert command([*overrides, "dataset.validation=0"], tmp_path).code == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["noise=masking"],
        ["model=vae", "penalty=tc"],
        ["model=aae", "dataset.missing=0.1"],
        ["likelihood=discretized_logistic"],
        ["dataset=wine", "dataset.subset=null", "dataset.test_subset=null"],
    ],
)
def test_metrics_of_every_epoch_are_those_of_the_history(overrides: list[str], tmp_path: Path) -> None:
    arguments = [*RUN, "epochs=1", *overrides, f"hydra.run.dir={tmp_path / 'run'}"]
    config, directory, full_overrides = api.compose_config(arguments)
    settings = entry.check(config, full_overrides)
    entry.run(config, directory, full_overrides)
    line = records(directory)[1][-1]
    for split, names in epoch_metrics(build(settings)).items():
        measured = {name for tag in line if (name := tag.removeprefix(f"{split}/")) != tag and better_direction(name)}
        assert {name for name in names if better_direction(name)} == measured


def test_search_may_compare_by_a_metric_of_a_whole_run_and_by_no_other() -> None:
    components = build(entry.check(api.compose_config([*RUN])[0], []))
    measured = epoch_metrics(components)
    for objective in ("test/psnr", "train/seconds_per_epoch", ["validation/sse", "train/nll"]):
        check_measured(objective, measured, "the search", compares_epochs=False)
    for objective in ("validation/psnr", "validation/probe_svm", "train/sse"):
        with pytest.raises(ConfigError, match=f"the search needs .*={objective} is not: use .* or test/"):
            check_measured(objective, measured, "the search", compares_epochs=False)


def test_selection_on_the_test_set_is_refused_unless_allowed(tmp_path: Path) -> None:
    overrides = [*TINY, "stop.patience=1", "hydra.run.dir=run"]
    outcome = command(overrides, tmp_path)
    assert outcome.code == 1
    assert "no validation examples" in outcome.err
    assert "dataset.validation=5000" in outcome.err
    assert "select_on_test=true" in outcome.err
    assert not (tmp_path / "run").exists()
    assert command([*overrides, "select_on_test=true"], tmp_path).code == 0


def test_a_search_may_not_select_on_the_test_set(tmp_path: Path) -> None:
    config, directory, overrides = api.compose_config([*TINY, f"hydra.run.dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match="the search would select on the test set"):
        entry.run_request(RunRequest(config, RunDirectory(directory), overrides, in_search=True))


# --- Training ---------------------------------------------------------------------------------------------------------


def test_training_stops_at_the_epoch_of_the_rule(run: Callable[..., Path]) -> None:
    metrics, history = records(run(*OVERFITTING))
    losses = [line["validation/loss"] for line in history]
    assert metrics["epochs"] == reference_stop(losses, 3, 0.0)
    assert metrics["epochs"] < 30
    assert "stop.patience" not in metrics["stop_reason"]
    assert "no improvement in 3 epochs" in metrics["stop_reason"]


def test_stopped_run_says_what_continues_it(tmp_path: Path) -> None:
    overrides = [*OVERFITTING, "hydra.run.dir=run"]
    assert "training stops in epoch" in command(overrides, tmp_path).out
    before = fingerprint(tmp_path / "run")
    for arguments in (overrides, ["resume=run"], ["resume=run", "epochs=40"]):
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0
        assert "nothing to do: validation/loss: no improvement in 3 epochs" in outcome.out
        assert "a larger stop.patience=" in outcome.out
    assert not differences(before, fingerprint(tmp_path / "run"))


def test_more_patience_continues_a_stopped_run_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    command([*OVERFITTING, "hydra.run.dir=run"], tmp_path)
    command([*OVERFITTING, "stop.patience=6", "hydra.run.dir=other"], tmp_path)
    outcome = command(["resume=run", "stop.patience=6"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert not differences(fingerprint(tmp_path / "other"), fingerprint(tmp_path / "run"))


class PruneAfter:
    """A search that stops a run after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.calls: list[int] = []

    def __call__(self, lines: Sequence[Mapping[str, Any]]) -> str:
        self.calls.append(lines[-1]["epoch"])
        return "the search prunes it" if lines[-1]["epoch"] >= self.epoch else ""


def train_pruned(folder: Path, prune: PruneAfter | None) -> dict[str, Any]:
    """Train a run of at most 5 epochs that a search may stop; return its metrics."""
    config, directory, overrides = api.compose_config([*RUN, "epochs=5", f"hydra.run.dir={folder}"])
    return entry.run_request(RunRequest(config, RunDirectory(directory), overrides, in_search=True, prune=prune))


def test_search_stops_a_run_and_is_not_asked_again(tmp_path: Path) -> None:
    prune = PruneAfter(2)
    with pytest.raises(RunPruned, match="the search prunes it"):
        train_pruned(tmp_path / "run", prune)
    assert prune.calls == [0, 1, 2]
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert history[-1]["pruned"] == "the search prunes it"
    (tmp_path / "run" / "metrics.json").unlink()  # as if it had been killed before its end
    again = PruneAfter(99)
    with pytest.raises(RunPruned, match="the search prunes it"):
        train_pruned(tmp_path / "run", again)
    assert not again.calls


def test_pruned_run_continues_without_its_search(tmp_path: Path) -> None:
    with pytest.raises(RunPruned):
        train_pruned(tmp_path / "run", PruneAfter(2))
    train_pruned(tmp_path / "whole", None)
    assert command([f"resume={tmp_path / 'run'}"], tmp_path).code == 0
    differing = differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run"))
    assert differing == ["history"]  # it keeps the record that the run was pruned


# --- The weights of the best epoch ------------------------------------------------------------------------------------

BEST = (*OVERFITTING, "keep=best")


class Interrupted(Exception):
    """A kill, as far as the files of the run are concerned."""


def interrupt_after_save(number: int, overrides: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a run that dies after its checkpoint number `number`, before anything else is written."""
    save, count = TrainingRun.save, 0

    def save_and_die(training_run: TrainingRun) -> None:
        nonlocal count
        save(training_run)
        count += 1
        if count == number:
            raise Interrupted

    config, directory, full_overrides = api.compose_config([*overrides, f"hydra.run.dir={folder}"])
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "save", save_and_die)
        patch.setattr(RunDirectory, "record_failure", lambda *_: False)
        with pytest.raises(Interrupted):
            entry.run(config, directory, full_overrides)


def test_run_ends_with_the_weights_of_the_best_epoch(run: Callable[..., Path], tmp_path: Path) -> None:
    metrics, history = records(run(*BEST))
    losses = [line["validation/loss"] for line in history]
    best = losses.index(min(losses))
    assert 0 < best < metrics["epochs"]
    assert (metrics["best_epoch"], metrics["kept_epoch"]) == (best, best)
    assert [line["best_epoch"] for line in history] == [
        losses.index(min(losses[: epoch + 1])) for epoch in range(len(history))
    ]
    shorter, _ = records(run(*OVERFITTING, "stop.patience=null", f"epochs={best}", name="shorter"))
    differing = {name for name in shorter if name.startswith("test/") and shorter[name] != metrics[name]}
    assert not differing
    tensors = load_file(tmp_path / "shorter" / "checkpoint" / "model.safetensors")
    kept = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in tensors.items())
    loaded = api.load(tmp_path / "run").model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in tensors.items())


def test_modes_name_the_epoch_whose_weights_are_kept(tmp_path: Path) -> None:
    command([*BEST, "hydra.run.dir=run"], tmp_path)
    metrics, _ = records(tmp_path / "run")
    assert metrics["kept_epoch"] < metrics["epochs"]
    out = command(["mode=eval", "run=run", "noise=masking"], tmp_path).out
    assert f"run after {metrics['kept_epoch']} epochs" in out
    assert records(tmp_path / "run" / "eval" / "noise=masking")[0]["epochs"] == metrics["kept_epoch"]
    assert command(["mode=eval", "run=run"], tmp_path).code == 0
    assert records(tmp_path / "run")[0] == metrics


def test_objective_of_a_run_is_that_of_the_weights_that_it_keeps(run: Callable[..., Path]) -> None:
    for name, keep in (("best", "best"), ("last", "last")):
        directory = run(*BEST, f"keep={keep}", name=name)
        losses = [line["validation/loss"] for line in records(directory)[1]]
        expected = min(losses) if keep == "best" else losses[-1]
        assert objective_of_run(RunDirectory(directory), "validation/loss") == expected


CASES = {
    "linear": [],
    "average": ["ema=0.9"],
    "critic": ["model=aae", "model.hidden=[16]"],
    "codebook": ["model=vqvae", "model.hidden=[16]", "optimizer=adam", "optimizer.lr=0.05"],
    "pretrained": ["pretrain=pca", "likelihood=gaussian", "optimizer.lr=0.02"],
    "higher": ["objective=train/loss", "schedule=cosine"],
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_run_equals_an_uninterrupted_one(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*BEST, *CASES[case], "views=reconstructions", "epochs=10"]
    command([*overrides, "hydra.run.dir=whole"], tmp_path)
    expected = fingerprint(tmp_path / "whole")
    saves = len(records(tmp_path / "whole")[1])
    for number in {2, saves - 1, saves}:
        folder = tmp_path / f"killed{number}"
        interrupt_after_save(number, overrides, folder, monkeypatch)
        outcome = command([f"resume={folder}"], tmp_path)
        assert outcome.code == 0, outcome.err
        assert not differences(expected, fingerprint(folder))


@pytest.mark.parametrize("extension", ["epochs=10", "stop.patience=6"])
def test_extended_run_equals_one_that_did_not_end(extension: str, tmp_path: Path) -> None:
    """The pictures at the end of the first part are of the best weights, those of epoch 8 of a longer run are not."""
    overrides = [*BEST, "views=reconstructions"]
    if "epochs" in extension:
        overrides += ["stop.patience=null", "epochs=8"]
    command([*overrides, "hydra.run.dir=run"], tmp_path)
    first = records(tmp_path / "run")[0]
    assert first["best_epoch"] < first["epochs"]
    outcome = command(["resume=run", extension], tmp_path)
    assert outcome.code == 0, outcome.err
    command([*overrides, extension, "hydra.run.dir=whole"], tmp_path)
    assert records(tmp_path / "run")[0]["epochs"] > first["epochs"]
    assert not differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run"))


def test_log_and_texts_name_the_best_epoch(tmp_path: Path) -> None:
    out = command([*BEST, "hydra.run.dir=run"], tmp_path).out
    metrics, _ = records(tmp_path / "run")
    assert f"best: epoch {metrics['best_epoch']} with validation/loss" in out
    assert "its weights are kept" in out
    out = command([*BEST, "keep=last", "hydra.run.dir=last"], tmp_path).out
    assert f"best: epoch {metrics['best_epoch']} with" in out
    assert "keep=best" in out
    outcome = command([*BEST, "hydra.run.dir=last"], tmp_path)
    assert outcome.code == 1
    assert "keep: last there, best here" in outcome.err
