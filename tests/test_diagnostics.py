"""Diagnostics: settings that cause each problem lead to its finding, and good runs have no findings."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, layers_of
from torch import Tensor

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.settings import flatten
from aetrain.data.digits import Digits
from aetrain.data.examples import Examples, Prepare, in_order
from aetrain.data.noise import NoNoise
from aetrain.evaluation.diagnostic_inputs import DiagnosticInputs, diagnostic_inputs
from aetrain.evaluation.diagnostics import RULES, diagnose
from aetrain.evaluation.evaluator import Evaluator, Metrics
from aetrain.evaluation.unit_stats import UnitStats
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.training_run import flatten_settings
from aetrain.storage.saved_config import saved_config

DIGITS = ("dataset=digits", "views=none", "device=cpu", "batch_size=64")

RELU = ("model.activation=relu", "model.init=default")

# Each problem by its name in a finding: a text of the evidence, and settings that cause the problem.
CAUSES = {
    "nearly black images": ("is 16 of 255", "dataset=npz", "dataset.path=dark.npz", "epochs=1"),
    "training diverges": (
        "lowest value was 45",
        "model.activation=sigmoid",
        "model.init=default",
        "optimizer.lr=1",
        "epochs=1",
    ),
    "posterior collapse": ("0 of its 20 units", "model=vae", "model.penalties.kl.weight=50", "epochs=3"),
    "codebook collapse": (
        "of 128 codewords",
        *("model=vqvae", *RELU, "model.bottleneck.reset_after=1000000", "optimizer.lr=0.1", "epochs=2"),
    ),
    "the critic has won": (
        "apart",
        *("model=aae", "model.penalties.critic.weight=0", "optimizer.lr=0.003", "epochs=4"),
    ),
    "the output's range does not fit": (
        "from 0.5 to 1",
        *("likelihood=gaussian", "likelihood.output=sigmoid", "dataset.scale=[-1,1]", "epochs=1"),
    ),
    "the code is not sparse": ("sparsity leaves 32 of the code's 32 units", "sparsity=l1", "epochs=1"),
    "dead units": ("of the hidden units", *RELU, "optimizer.lr=0.03", "epochs=2"),
    "saturated units": ("stay at an end", "model.activation=tanh", "optimizer.lr=1", "epochs=2"),
    "the code copies": (
        "shuffled",
        *("model=tied", "model.hidden=[]", "likelihood=gaussian", "model.code_dim=512"),
        *("model.init=orthogonal", "optimizer.lr=0.003", "epochs=2"),
    ),
    "no better than the mean image": ("%", "optimizer=sgd", "optimizer.lr=1e-6", "epochs=1"),
    "no better than PCA": ("PCA with as many units (20) has 0.5", "model=vae", "epochs=8"),
}

# Those whose codes can be compared with PCA have two units, with which so few epochs are enough to be better.
GOOD_RUNS = {
    "deep": ("model=deep", "model.code_dim=2", "optimizer.lr=0.003", "epochs=10"),
    "tied": ("model=tied", "model.code_dim=2", "optimizer.lr=0.003", "epochs=10"),
    "vae": ("model=vae", "model.code_dim=2", "optimizer.lr=0.005", "epochs=8"),
    "warmup": ("model=vae", "model.code_dim=2", "model.penalties.kl.warmup=0.8", "optimizer.lr=0.005", "epochs=8"),
    "vqvae": ("model=vqvae", "epochs=5"),
    "wae": ("model=wae", "model.code_dim=2", "optimizer.lr=0.003", "epochs=8"),
    "conv_unpool": ("model=conv_unpool", "model.code_dim=2", "epochs=5"),
    "denoising": ("noise=masking", "epochs=6"),
    "sparse": ("sparsity=l1", "sparsity.weight=0.01", "model.code_activation=relu", "epochs=5"),
    "topk": ("sparsity=topk", "epochs=5"),
}


def findings(directory: Path) -> list[dict[str, str]]:
    return [dict(item) for item in json.loads((directory / "findings.json").read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("what", CAUSES)
def test_a_problem_is_found(
    what: str, run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "dark.npz", x=(Digits().read()[0].pixels[:100, 0] // 15).clamp_max(16).numpy())
    monkeypatch.chdir(tmp_path)
    evidence, *overrides = CAUSES[what]
    dataset = DIGITS[1:] if "dataset=npz" in overrides else DIGITS
    directory = run(*dataset, *overrides)
    by_name = {item["what"]: item for item in findings(directory)}
    assert what in by_name
    assert evidence in by_name[what]["evidence"]
    assert "try" in by_name[what]["remedy"] or "choose" in by_name[what]["remedy"]
    settings = flatten(saved_config(directory))
    assert set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", by_name[what]["remedy"])) <= settings.keys(), (
        "a setting that the run lacks"
    )


def test_advice_names_only_settings_of_the_run() -> None:
    inputs = DiagnosticInputs({}, [], 8, None, sparse=False, output_range=(0.0, 1.0), settings={"optimizer.lr": 1.0})
    assert inputs.advice("a smaller optimizer.lr", "less model.penalties.kl.weight", "more epochs") == (
        "try a smaller optimizer.lr or more epochs"
    )


def inputs_of(overrides: Sequence[str]) -> DiagnosticInputs:
    """Return the inputs of the rules for a model before training."""
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    settings = entry.check(config, full_overrides)
    components = build(settings)
    return diagnostic_inputs(components.model, {}, [], flatten_settings(settings), components.objective.penalties)


@pytest.mark.parametrize("constant", [0.0, -1800.0, 450.0])
def test_divergence_does_not_depend_on_the_constant_of_the_likelihood(constant: float) -> None:
    def diverges(*losses: float) -> bool:
        history = [{"test/loss": 60 + constant}, *({"train/loss": loss + constant} for loss in losses)]
        inputs = DiagnosticInputs(
            {"mean_sse": 50.0}, history, 8, None, False, (0.0, 1.0), settings={}, loss_constant=constant
        )
        return [finding.what for finding in diagnose(inputs)] == ["training diverges"]

    assert diverges(10, 5, 80)
    assert diverges(10, 5, 11)
    assert not diverges(10, 5, 9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_divergence_is_found_in_the_unit_of_the_loss(reduction: str) -> None:
    """With reduction=mean the nll in the loss is per pixel, and an error of the mean image is not."""
    pixels = 64 if reduction == "mean" else 1
    inputs = inputs_of(["model=deep", f"likelihood.reduction={reduction}"])
    assert inputs.nll_weight == 1 / pixels
    losses = [{"test/loss": 60 / pixels}, *({"train/loss": loss / pixels} for loss in (10, 5, 20))]
    inputs = replace(inputs, history=losses, metrics={"mean_sse": 50.0})
    assert [finding.what for finding in diagnose(inputs)] == ["training diverges"]


@pytest.mark.parametrize(("split", "reason"), [("test", "weights_rise"), ("validation", "has_targets")])
def test_divergence_may_be_that_of_the_held_out_loss(split: str, reason: str) -> None:
    """The training loss rises with the weight, also in a good run; targets of their own have another loss."""

    def names(*held_out: float) -> list[str]:
        losses = [{"train/loss": 20.0 * epoch, f"{split}/loss": loss} for epoch, loss in enumerate(held_out, 1)]
        history = [{f"{split}/loss": 60.0}, *losses]
        inputs = DiagnosticInputs({"mean_sse": 50.0}, history, 8, None, False, (0.0, 1.0), settings={})
        inputs = replace(inputs, weights_rise=reason == "weights_rise", has_targets=reason == "has_targets")
        return [finding.what for finding in diagnose(inputs)]

    assert names(70, 40, 35) == []
    assert names(40, 50, 90) == ["training diverges"]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "no better than PCA"),
        ({"sse": 12.0}, None),
        ({"sse": 12.01, "pca_sse": 12.0}, None),
        ({"sse": 50.0}, "no better than the mean image"),
        ({"noisy_sse": 20.0}, None),
    ],
)
def test_one_of_two_baselines_is_named(changed: dict[str, float], name: str | None) -> None:
    """A VAE with error 21.2 where PCA of its size has 12.0; the error of the mean image says more."""
    metrics = {"sse": 21.2, "pca_sse": 12.0, "mean_sse": 52.7} | changed
    inputs = DiagnosticInputs(metrics, [], 20, None, False, (0.0, 1.0), settings={}, is_pca_comparable=True)
    assert [finding.what for finding in diagnose(inputs)] == ([] if name is None else [name])
    if name == "no better than PCA":
        (finding,) = diagnose(inputs)
        assert finding.evidence == "the squared error is 21.2, and PCA with as many units (20) has 12"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=deep"], True),
        (["model=vae"], True),
        (["model=wae"], True),
        (["model=conv_unpool"], True),
        (["model=deep", "model.code_dim=64"], False),
        (["model=sparse_coding"], False),
        (["model=vqvae"], False),
        (["model=categorical", "model.code_dim=20"], False),
        (["sparsity=topk"], False),
        (["penalty=l1"], False),
        (["sparsity=kl"], False),
    ],
)
def test_codes_that_can_be_compared_with_pca(overrides: Sequence[str], expected: bool) -> None:
    assert inputs_of(overrides).is_pca_comparable == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [(["model=deep"], False), (["penalty=l1"], True), (["sparsity=kl"], True), (["sparsity=topk"], True)],
)
def test_a_code_is_sparse_by_its_penalties_or_its_sparsifier(overrides: Sequence[str], expected: bool) -> None:
    assert inputs_of(overrides).sparse == expected


def test_recurrent_units_with_a_closed_gate_are_dead(run: Callable[..., Path]) -> None:
    """Each unit counts once, not once per step: the output gate of 12 of 16 units is closed at all steps."""
    model = aetrain.load(run(*DIGITS, "model=lstm", "model.hidden=[16]", "epochs=0")).model
    (layer,) = layers_of(model.encoder)
    with torch.no_grad():
        layer.bias_ih_l0.view(4, 16)[3, :12] = -100  # the bias of the output gate
        layer.weight_ih_l0.view(4, 16, -1)[3, :12] = 0
        layer.weight_hh_l0.view(4, 16, -1)[3, :12] = 0
    images = Examples(Digits().load().test.pixels)
    metrics = Evaluator(images, Prepare(), NoNoise()).evaluate_full(model, Objective({}))
    assert metrics["dead_hidden"] == 12 / 16


def test_unit_stats_of_feature_maps_and_of_sparse_codes(run: Callable[..., Path]) -> None:
    loaded = aetrain.load(run(*DIGITS, "model=conv_layers", "model.activation=sigmoid", "epochs=0"))
    unit_stats = UnitStats(loaded.model)
    with torch.no_grad():
        unit_stats.update(loaded.model(torch.rand(20, 1, 8, 8)))
    assert {*unit_stats._near_bounds} == {tap.name for tap in loaded.model.encoder.taps()}, "without the pooling layers"
    sparse = aetrain.load(run(*DIGITS, "sparsity=topk", "model.code_activation=sigmoid", "epochs=0", name="sparse"))
    with torch.no_grad():
        UnitStats(sparse.model).update(sparse.model(torch.rand(20, 1, 8, 8)))
    (code,) = (tap for tap in sparse.model.unit_layers() if tap.name == "code")
    assert code.bounds is None, "a unit that the sparsifier sets to 0 is not saturated"


def test_every_rule_has_a_cause() -> None:
    assert len(RULES) == len(CAUSES)


@pytest.mark.slow
@pytest.mark.parametrize("family", GOOD_RUNS)
def test_good_runs_have_no_findings(family: str, run: Callable[..., Path]) -> None:
    assert findings(run(*DIGITS, *GOOD_RUNS[family])) == []


def test_rules_find_nothing_without_metrics() -> None:
    assert diagnose(DiagnosticInputs({}, [], 8, 128, sparse=False, output_range=(0.0, 1.0), settings={})) == []


def test_a_run_that_reaches_nan_fails_with_advice(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"try a smaller optimizer\.lr \(it is 1000"):
        run(*DIGITS, "optimizer.lr=1e9", "epochs=2")


def test_findings_are_in_the_log_and_in_tensorboard(run: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = run(*TINY, "optimizer.lr=1e-9")
    assert "WARNING diagnostics: no better than the mean image: the squared" in (directory / "aetrain.log").read_text()
    log = EventAccumulator(str(directory))
    log.Reload()
    (event,) = log.Tensors("diagnostics/text_summary")
    assert "**no better than the mean image**" in event.tensor_proto.string_val[0].decode()


@pytest.fixture
def evaluated(run: Callable[..., Path]) -> tuple[Autoencoder, Tensor, Metrics]:
    """Return a trained model with sigmoid units, the test images [N, 1, 8, 8], and the model's metrics."""
    loaded = aetrain.load(run(*DIGITS, "model.activation=sigmoid", "optimizer.lr=0.3", "epochs=1"))
    pixels = Digits().load().test.pixels
    images = Examples(pixels)
    pca = PCA.fit(in_order(images, 100, Prepare()), 8)
    metrics = Evaluator(images, Prepare(), NoNoise(), batch_size=100).evaluate_full(loaded.model, Objective({}), pca)
    return loaded.model, pixels.float() / 255, metrics


def test_metrics_computed_a_second_way(evaluated: tuple[Autoencoder, Tensor, Metrics]) -> None:
    model, x, metrics = evaluated
    pixels = x.flatten(1).double().numpy()
    assert metrics["mean_sse"] == pytest.approx(pixels.var(0).sum(), rel=1e-5)
    with torch.no_grad():
        hidden = [h.double().numpy() for h in model(x).hidden]
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        shuffled = torch.stack([image.flatten()[order].view(1, 8, 8) for image in x[:100]])
        reconstruction = model.likelihood.mean(model.decode(model.encode(shuffled).z))
    assert metrics["shuffled_sse"] == pytest.approx(float(((reconstruction - shuffled) ** 2).sum()) / 100, rel=1e-5)
    dead = np.concatenate([h.std(0) <= 1e-3 * h.std(0).max() for h in hidden])
    assert metrics["dead_hidden"] == pytest.approx(dead.mean(), abs=0.01)
    saturated = np.concatenate([(np.minimum(h, 1 - h) < 0.01).mean(0) >= 0.95 for h in hidden])
    assert metrics["saturated"] == pytest.approx(saturated.mean(), abs=0.01)
    assert 0 < metrics["saturated"] <= 1
    assert math.isfinite(metrics["shuffled_sse"])
