"""`mode=lr_find`: the learning-rate range test, its suggestion, and the command that trains with it."""

import itertools
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Outcome, command, everything_in
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from aetrain import api
from aetrain.data.examples import Batches
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.train import load_data
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.loop import seed_epoch
from aetrain.training.range_test import RateCurve, RateRecorder, rate_at

FIND = (*TINY, "mode=lr_find", "model=linear", "mode.batches=60", "hydra.run.dir=found")


def find(folder: Path, *overrides: str) -> tuple[Outcome, dict[str, Any]]:
    """Do a range test in a folder; return the outcome of the command and the content of its file."""
    outcome = command([*FIND, *overrides], folder)
    assert outcome.code == 0, outcome.err
    return outcome, json.loads((folder / "found" / "lr_find.json").read_text())


# --- The curve --------------------------------------------------------------------------------------------------------


def curve_of(losses: Sequence[float], min_lr: float = 1e-6, max_lr: float = 1.0) -> RateCurve:
    rates = [rate_at(number / len(losses), min_lr, max_lr) for number in range(len(losses))]
    return RateCurve(rates, list(losses), diverged=False)


@given(
    st.floats(-4.5, -1.5),
    st.floats(0.2, 0.8),
    st.floats(1e-3, 1e5),
    st.floats(-1e5, 1e5),
    st.integers(0, 9),
)
def test_suggestion_is_the_steepest_point_of_a_falling_loss(
    centre: float, width: float, height: float, offset: float, seed: int
) -> None:
    """A tanh falls fastest at its centre, at any scale, below zero as well, under noise of 2 % of the fall."""
    logs = np.linspace(-6, 0, 200, endpoint=False)
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(logs))
    curve = curve_of((offset + height * (noise - np.tanh((logs - centre) / width))).tolist())
    assert curve.suggestion is not None
    assert abs(math.log10(curve.rates[curve.suggestion]) - centre) < 0.35


def test_suggestion_comes_before_the_lowest_loss() -> None:
    """The fall after a rise, such as of a loss that oscillates, is steeper, but does not count."""
    logs = np.linspace(-6, 0, 200, endpoint=False)
    losses = 10 - np.tanh(2 * (logs + 4)) + 3 * np.exp(-(((logs + 1.5) / 0.3) ** 2))
    losses[logs > -1.5] += 0.2
    curve = curve_of(losses.tolist())
    assert curve.suggestion is not None
    assert abs(math.log10(curve.rates[curve.suggestion]) + 4) < 0.2


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_loss_that_does_not_fall_has_no_suggestion(slope: float) -> None:
    noise = np.random.default_rng(0).standard_normal(100)
    assert curve_of((100 + slope * np.arange(100) + noise).tolist()).suggestion is None
    assert curve_of([1.0, 0.5]).suggestion is None


def test_rates_rise_by_the_same_factor() -> None:
    rates = [rate_at(number / 8, 1e-4, 10.0) for number in range(9)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(10)
    assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([10 ** (5 / 8)] * 8)


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([], False),
        ([100.0] * 6, False),
        ([100.0] * 5 + [150.0] * 3, False),
        ([100.0] * 5 + [201.0] * 3, True),
        ([100.0] * 5 + [20.0] * 5 + [190.0] * 3, False),
        ([-100.0] * 5 + [-300.0] * 5 + [90.0] * 3, False),
        ([-100.0] * 5 + [-300.0] * 5 + [101.0] * 3, True),
        ([5.0, math.nan], True),
        ([5.0, math.inf], True),
    ],
)
def test_divergence_is_relative_to_the_first_loss_and_its_fall(losses: list[float], diverged: bool) -> None:
    assert RateRecorder([1.0] * len(losses), losses).has_diverged is diverged


def test_loss_that_is_not_finite_is_left_out() -> None:
    curve = RateRecorder([1.0, 2.0, 3.0], [5.0, 4.0, math.nan]).curve()
    assert (curve.rates, curve.losses, curve.diverged) == ([1.0, 2.0], [5.0, 4.0], True)


# --- The mode ---------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_a_plain_loop_with_rising_rates(tmp_path: Path) -> None:
    _, result = find(tmp_path, "optimizer=sgd", "mode.min_lr=1e-4", "mode.max_lr=1e-2", "clip_grad_norm=3")
    config, _, overrides = api.compose_config([*TINY, "model=linear", "optimizer=sgd"])
    components = build(entry.check(config, overrides))
    splits = load_data(components)
    loader = Batches(splits.train, 32, components.dataset.prepare)
    model = components.model.train()
    losses: list[float] = []
    rates: list[float] = []
    optimizer = torch.optim.SGD(model.parameters(), momentum=components.optimizers[0].defaults["momentum"])
    seed_epoch(0, 0)
    while len(losses) < 60:
        for x in loader:
            rates.append(1e-4 * 100 ** (len(losses) / 60))
            optimizer.param_groups[0]["lr"] = rates[-1]
            loss = components.objective(model, model(x, x))["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 3)
            optimizer.step()
            losses.append(loss.item())
    assert result["rates"] == pytest.approx(rates[: len(result["rates"])])
    assert result["losses"] == pytest.approx(losses[: len(result["losses"])], rel=1e-5)
    assert len(result["losses"]) == 60
    assert result["diverged"] is None


def test_test_writes_its_picture_and_no_run(tmp_path: Path) -> None:
    outcome, result = find(tmp_path, "mode.batches=200")
    files = {name for name, content in everything_in(tmp_path).items() if content is not None}
    assert files == {"found/lr_find.png", "found/lr_find.json"}
    assert result["suggestion"] < result["lowest"] < result["diverged"] < 10
    assert f"the loss falls fastest at optimizer.lr={result['suggestion']:g}" in outcome.out
    assert "it diverges at" in outcome.out


def test_command_of_the_log_trains_better_than_smaller_and_larger_rates(tmp_path: Path) -> None:
    outcome, result = find(tmp_path, "mode.batches=200", "dataset.validation=64", "epochs=5")
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("train: ")]
    program, *arguments = shlex.split(line.removeprefix("train: "))
    assert program == "aetrain"
    losses = {}
    for factor in (1.0, 1e-2, 1e2):
        rate = f"optimizer.lr={factor * result['suggestion']}"
        trained = command([*arguments, *([] if factor == 1 else [rate]), f"hydra.run.dir=run{factor}"], tmp_path)
        assert trained.code == 0, trained.err
        losses[factor] = RunDirectory(tmp_path / f"run{factor}").history()[-1]["validation/loss"]
    assert losses[1.0] < losses[1e-2]
    assert losses[1.0] < losses[1e2]


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw", "schedule=cosine", "schedule.warmup_fraction=0.5"],
        ["optimizer=lbfgs", "optimizer.line_search_fn=null"],
        ["pretrain=pca", "likelihood=gaussian"],
        ["model=deep", "model.hidden=[16]", "pretrain=layerwise", "pretrain.epochs=1"],
        ["model=aae", "model.hidden=[16]"],
        ["model=vqvae", "model.hidden=[16]", "ema=0.9"],
        ["model=vae", "model.hidden=[16]", "model.penalties.kl.warmup=0.5", "noise=masking"],
        ["accumulate_grad_batches=2", "compile=true"],
        ["dataset=wine", "dataset.subset=null", "dataset.test_subset=null"],
    ],
)
def test_test_works_with_other_optimizers_models_and_pretraining(overrides: list[str], tmp_path: Path) -> None:
    _, result = find(tmp_path, *overrides)
    assert result["rates"][0] == pytest.approx(1e-6)
    assert len(result["rates"]) == len(result["losses"]) > 10
    assert all(map(math.isfinite, result["losses"]))


def test_test_begins_with_the_weights_of_a_run(tmp_path: Path) -> None:
    command([*TINY, "model=linear", "optimizer.lr=0.03", "epochs=20", "hydra.run.dir=base"], tmp_path)
    outcome = command(["start=base", *FIND[len(TINY) :]], tmp_path)
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "found" / "lr_find.json").read_text())
    history = RunDirectory(tmp_path / "base").history()
    assert result["losses"][0] < 0.7 * history[0]["test/loss"]
    commands = [line for line in outcome.out.splitlines() if line.startswith("train: ")]
    assert all("start=base" in line and "epochs" not in line for line in commands)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("optimizer=lbfgs", ["optimizer=lbfgs", "line search"]),
        ("mode.min_lr=0", ["mode.min_lr=0", "0 < min_lr < max_lr"]),
        ("mode.min_lr=1 mode.max_lr=0.1", ["mode.max_lr=0.1"]),
        ("mode.batches=5", ["mode.batches=5", "20 or more"]),
        ("mode.bathces=50", ["mode.batches"]),
        ("run=nowhere", ["nowhere"]),
        ("resume=nowhere", ["resume=nowhere", "mode="]),
        ("optimizer.lr=fast", ["optimizer.lr=fast"]),
    ],
)
def test_mistake_is_one_message(arguments: str, words: list[str], tmp_path: Path) -> None:
    outcome = command(["mode=lr_find", "dataset=digits", *arguments.split()], tmp_path)
    assert outcome.code == 1
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())
