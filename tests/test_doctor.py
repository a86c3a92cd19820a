"""The training doctor: every disease is provoked by training one's way there, and runs that do well hear nothing."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aetrain.config.compose import saved_config
from conftest import TINY

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.digits import Digits
from aetrain.data.images import Images, Prepare, in_order
from aetrain.data.noise import NoNoise
from aetrain.evaluation.diagnostics import RULES, DiagnosticInputs, diagnose
from aetrain.evaluation.evaluator import Evaluator
from aetrain.evaluation.unit_stats import UnitStats
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective
from aetrain.storage.run_directory import flat

DIGITS = ("dataset=digits", "views=none", "device=cpu", "batch_size=64")

# What brings each disease about, and a word of the evidence.
PROVOCATIONS = {
    "training diverges": ("was 45", "model.activation=sigmoid", "optimizer.lr=1", "epochs=1"),
    "posterior collapse": ("0 of its 20 units", "model=vae", "model.penalties.kl.weight=50", "epochs=3"),
    "codebook collapse": (
        "of 128 codewords",
        *("model=vqvae", "model.bottleneck.reset_after=1000000", "optimizer.lr=0.1", "epochs=2"),
    ),
    "the critic has won": (
        "apart",
        *("model=aae", "model.penalties.critic.weight=0", "optimizer.lr=0.003", "epochs=4"),
    ),
    "the output's range does not fit": (
        "from 0.5 to 1",
        *("likelihood=gaussian", "likelihood.output=sigmoid", "dataset.scale=[-1,1]", "epochs=1"),
    ),
    "dead units": ("of the hidden units", "optimizer.lr=0.03", "epochs=2"),
    "saturated units": ("stay at an end", "model.activation=tanh", "optimizer.lr=1", "epochs=2"),
    "the code copies": (
        "shuffled",
        *("model=tied", "model.hidden=[]", "likelihood=gaussian", "model.code_dim=512"),
        *("model.init=orthogonal", "optimizer.lr=0.003", "epochs=2"),
    ),
    "no better than the mean image": ("%", "optimizer=sgd", "optimizer.lr=1e-6", "epochs=1"),
}

HEALTHY = {
    "deep": ("model=deep", "epochs=5"),
    "tied": ("model=tied", "epochs=5"),
    "vae": ("model=vae", "epochs=8"),
    "vqvae": ("model=vqvae", "epochs=5"),
    "wae": ("model=wae", "epochs=4"),
    "conv_unpool": ("model=conv_unpool", "epochs=5"),
    "denoising": ("noise=masking", "epochs=6"),
    "sparse": ("sparsity=l1", "epochs=5"),
}


def findings(directory: Path) -> list[dict[str, str]]:
    return [dict(item) for item in json.loads((directory / "findings.json").read_text())]


@pytest.mark.parametrize("what", PROVOCATIONS)
def test_a_disease_is_found_where_it_is_provoked(what: str, run: Callable[..., Path]) -> None:
    evidence, *overrides = PROVOCATIONS[what]
    directory = run(*DIGITS, *overrides)
    found = {item["what"]: item for item in findings(directory)}
    assert what in found
    assert evidence in found[what]["evidence"]
    assert "try" in found[what]["remedy"] or "choose" in found[what]["remedy"]
    settings = flat(saved_config(directory))
    assert set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", found[what]["remedy"])) <= settings.keys(), "not to be had here"


def test_advice_is_what_the_run_has_settings_for() -> None:
    inputs = DiagnosticInputs({}, [], 8, None, sparse=False, reach=(0.0, 1.0), settings={"optimizer.lr": 1.0})
    assert inputs.advice("a smaller optimizer.lr", "less model.penalties.kl.weight", "more epochs") == (
        "try a smaller optimizer.lr or more epochs"
    )


def test_vitals_of_recurrent_units(run: Callable[..., Path]) -> None:
    """One figure a unit, not one a row: of those whose output gate is shut for good, all steps are still."""
    model = aetrain.load(run(*DIGITS, "model=lstm", "model.hidden=[16]", "epochs=0")).model
    (layer,) = model.encoder.layers
    with torch.no_grad():
        layer.bias_ih_l0.view(4, 16)[3, :12] = -100  # the output gate of 12 units
        layer.weight_ih_l0.view(4, 16, -1)[3, :12] = 0
        layer.weight_hh_l0.view(4, 16, -1)[3, :12] = 0
    images = Images(Digits().load().test.pixels)
    figures = Evaluator(images, Prepare(), NoNoise()).evaluate_full(model, Objective({}))
    assert figures["dead_hidden"] == 12 / 16


def test_vitals_of_maps_and_of_silenced_units(run: Callable[..., Path]) -> None:
    loaded = aetrain.load(run(*DIGITS, "model=conv_layers", "model.activation=sigmoid", "epochs=0"))
    unit_stats = UnitStats(loaded.model)
    with torch.no_grad():
        unit_stats.look(loaded.model(torch.rand(20, 1, 8, 8)))
    assert {*unit_stats._ends} == {tap.name for tap in loaded.model.encoder.taps()}, "not the poolings between"
    sparse = aetrain.load(run(*DIGITS, "sparsity=topk", "model.code_activation=sigmoid", "epochs=0", name="sparse"))
    with torch.no_grad():
        UnitStats(sparse.model).look(sparse.model(torch.rand(20, 1, 8, 8)))
    (code,) = (tap for tap in sparse.model.unit_layers() if tap.name == "code")
    assert code.bounds is None, "silenced is not saturated"


def test_every_rule_has_its_provocation() -> None:
    assert len(RULES) == len(PROVOCATIONS)


@pytest.mark.parametrize("family", HEALTHY)
def test_healthy_runs_hear_nothing(family: str, run: Callable[..., Path]) -> None:
    assert findings(run(*DIGITS, *HEALTHY[family])) == []


def test_rules_say_nothing_of_what_was_not_measured() -> None:
    assert diagnose(DiagnosticInputs({}, [], 8, 128, sparse=False, reach=(0.0, 1.0), settings={})) == []


def test_a_run_that_reaches_nan_fails_with_the_remedy(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"try a smaller optimizer\.lr \(it is 1000"):
        run(*DIGITS, "optimizer.lr=1e9", "epochs=2")


def test_findings_are_in_the_log_and_in_tensorboard(run: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = run(*TINY, "optimizer.lr=1e-9")
    assert "WARNING doctor: no better than the mean image: the squared" in (directory / "aetrain.log").read_text()
    log = EventAccumulator(str(directory))
    log.Reload()
    (event,) = log.Tensors("doctor/text_summary")
    assert "**no better than the mean image**" in event.tensor_proto.string_val[0].decode()


@pytest.fixture
def measured(run: Callable[..., Path]) -> tuple[Any, torch.Tensor, dict[str, float]]:
    """A trained model with sigmoid units, the test images, and its figures."""
    loaded = aetrain.load(run(*DIGITS, "model.activation=sigmoid", "optimizer.lr=0.3", "epochs=1"))
    pixels = Digits().load().test.pixels
    images = Images(pixels)
    pca = PCA.fit(in_order(images, 100, Prepare()), 8)
    figures = Evaluator(images, Prepare(), NoNoise(), batch_size=100).full(loaded.model, Objective({}), pca)
    return loaded.model, pixels.float() / 255, figures


def test_the_figures_recomputed_another_way(measured: tuple[Any, torch.Tensor, dict[str, float]]) -> None:
    model, x, figures = measured
    flat = x.flatten(1).double().numpy()
    assert figures["mean_sse"] == pytest.approx(flat.var(0).sum(), rel=1e-5)
    with torch.no_grad():
        hidden = [h.double().numpy() for h in model(x).hidden]
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        mixed = torch.stack([image.flatten()[order].view(1, 8, 8) for image in x[:100]])
        again = model.likelihood.mean(model.decode(model.encode(mixed).z))
    assert figures["shuffled_sse"] == pytest.approx(float(((again - mixed) ** 2).sum()) / 100, rel=1e-5)
    still = np.concatenate([h.std(0) <= 1e-3 * h.std(0).max() for h in hidden])
    assert figures["dead_hidden"] == pytest.approx(still.mean(), abs=0.01)
    stuck = np.concatenate([(np.minimum(h, 1 - h) < 0.01).mean(0) >= 0.95 for h in hidden])
    assert figures["saturated"] == pytest.approx(stuck.mean(), abs=0.01)
    assert 0 < figures["saturated"] <= 1
    assert math.isfinite(figures["shuffled_sse"])
