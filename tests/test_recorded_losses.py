"""Recorded losses are densities of pixels in [0, 1]; training descends them without the constant of the likelihood."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import distributions

from aetrain import api
from aetrain.model.likelihoods import Bernoulli, Gaussian
from aetrain.report.run_folders import read_runs
from aetrain.runs import training_run
from aetrain.storage import checkpoint, old_metrics
from aetrain.storage.hashing import sha256
from aetrain.storage.old_metrics import NLL_CONSTANT, upgrade_lines
from aetrain.storage.run_directory import TIMING_METRICS, RunDirectory

P = 64  # pixels of a digit
VAE = ("model=vae", "model.hidden=[16]", "model.code_dim=3", "likelihood=gaussian", "likelihood.variance=0.01")


@settings(max_examples=25, deadline=None)
@given(
    variance=st.floats(1e-3, 10),
    low=st.floats(-3, 1),
    width=st.floats(0.1, 5),
    output=st.sampled_from(["identity", "sigmoid", "tanh"]),
)
def test_gaussian_nll_is_the_density_of_pixels(variance: float, low: float, width: float, output: Any) -> None:
    """Compare it with torch.distributions: x = (y - low) / width, and y is normal around the output."""
    likelihood = Gaussian(variance, output, scale=(low, low + width))
    generator = torch.Generator().manual_seed(0)
    decoded, x = torch.randn(4, 1, 3, 5, generator=generator), torch.rand(4, 1, 3, 5, generator=generator)
    activation = {"identity": lambda y: y, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[output]
    scaled_pixels = distributions.Normal(activation(decoded.double()), math.sqrt(variance))
    pixels = distributions.TransformedDistribution(
        scaled_pixels, [distributions.AffineTransform(-low / width, 1 / width)]
    )
    expected = -pixels.log_prob(x.double()).sum((1, 2, 3))
    nll = likelihood.nll(decoded, x).double() + likelihood.constant(15)
    torch.testing.assert_close(nll, expected, rtol=1e-4, atol=1e-3)


def history(directory: Path) -> list[dict[str, float]]:
    return RunDirectory(directory).history()


@pytest.mark.parametrize(
    ("reduction", "overrides"),
    [("sum", ()), ("mean", ("dataset.scale=[-1,1]",)), ("sum", ("noise=gaussian", "dataset.validation=16"))],
)
def test_every_recorded_loss_has_the_constant(
    reduction: str, overrides: tuple[str, ...], tiny: Callable[..., Path]
) -> None:
    directory = tiny(*VAE, f"likelihood.reduction={reduction}", "likelihood.variance=0.05", *overrides)
    width = 2 if overrides and "scale" in overrides[0] else 1
    constant = P * (0.5 * math.log(2 * math.pi * 0.05) - math.log(width))
    lines, metrics = history(directory), RunDirectory(directory).metrics()
    for line in (*lines, metrics):
        assert line[NLL_CONSTANT] == pytest.approx(constant)
        for split in ("test", "validation"):
            if f"{split}/sse" in line:  # the mean decoded from the mean code
                nll = line[f"{split}/sse"] * width**2 / (2 * 0.05) + constant
                assert line[f"{split}/nll"] == pytest.approx(nll, abs=1e-3)
        for split in ("train", "test", "validation"):
            if f"{split}/loss" not in line or (split != "train" and "noise=gaussian" in overrides):
                continue
            nll = line["train/nll"] if split == "train" else line[f"{split}/neg_elbo"] - line[f"{split}/kl"]
            expected = nll / (P if reduction == "mean" else 1) + line[f"{split}/kl"]
            assert line[f"{split}/loss"] == pytest.approx(expected, abs=1e-3)


def test_importance_samples_are_below_the_negative_elbo(run: Callable[..., Path]) -> None:
    directory = run(
        *(*VAE, "dataset=digits", "epochs=3", "views=none", "device=cpu"),
        *("measures=likelihood", "measures.likelihood.samples=[1,20]"),
    )
    metrics = RunDirectory(directory).metrics()
    assert metrics["test/is_nll_1"] == pytest.approx(metrics["test/neg_elbo"], rel=0.02)
    assert metrics["test/is_nll_20"] < metrics["test/is_nll_1"]


@pytest.mark.slow
def test_known_values_of_three_variances(run: Callable[..., Path]) -> None:
    for variance, known in ((0.01, -12.2), (0.05, -9.2), (0.5, 41.5)):
        directory = run(
            *("model=vae", "likelihood=gaussian", f"likelihood.variance={variance}", "dataset=digits", "epochs=20"),
            *("model.activation=relu", "model.init=default", "views=none", "device=cpu"),
            name=str(variance),
        )
        assert RunDirectory(directory).metrics()["test/neg_elbo"] == pytest.approx(known, abs=1.0)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_training_does_not_see_the_constant(
    optimizer: str, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constant of a million nats would leave 0.06 nats of precision to a loss in float32."""
    one = tiny(*VAE, f"optimizer={optimizer}", "epochs=2", name="one")
    monkeypatch.setattr(Gaussian, "constant", lambda self, num_pixels: 1e6)
    other = tiny(*VAE, f"optimizer={optimizer}", "epochs=2", name="other")
    weights = [load_file(directory / "checkpoint" / "model.safetensors") for directory in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    before, after = history(one)[-1], history(other)[-1]
    for tag in ("train/loss", "train/nll", "test/loss", "test/nll", "test/neg_elbo"):
        assert after[tag] - 1e6 == pytest.approx(before[tag] - before[NLL_CONSTANT], abs=1e-6), tag
    for tag in ("train/kl", "test/kl", "test/sse", "test/bce"):
        assert after[tag] == before[tag]


def test_pretraining_of_pixels_has_the_constant_and_of_hidden_units_has_none(tiny: Callable[..., Path]) -> None:
    layers = ("model=deep", "model.hidden=[16]", "model.code_dim=3", "pretrain=layerwise", "pretrain.epochs=1")
    values = {}
    for variance in (0.5, 0.05):
        directory = tiny(*layers, "likelihood=gaussian", f"likelihood.variance={variance}", "optimizer.lr=1e-20",
                         name=str(variance))  # fmt: skip
        text = (directory / "checkpoint" / "journal.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        values[variance] = {tag: value for line in lines for tag, value in line.items() if tag.startswith("pretrain")}
    constants = {variance: P * 0.5 * math.log(2 * math.pi * variance) for variance in values}
    first, second = values[0.5], values[0.05]
    error = first["pretrain/1/nll"] - constants[0.5]  # the squared error
    assert second["pretrain/1/nll"] == pytest.approx(10 * error + constants[0.05], rel=1e-5)
    assert second["pretrain/2/nll"] == pytest.approx(first["pretrain/2/nll"], rel=1e-5), "of hidden units"


# --- Runs of earlier versions -----------------------------------------------------------------------------------------


def old_run(make: Callable[..., Path], *overrides: str, name: str) -> Path:
    """Return a run as an earlier version wrote it: without the constant and its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gaussian, "constant", lambda self, num_pixels: 0.0)
        patch.setattr(training_run, "NLL_CONSTANT", "unused")
        directory = make(*overrides, name=name)
    return directory


def without_timings(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unused = (*TIMING_METRICS, "unused")
    return [{key: value for key, value in line.items() if key not in unused} for line in lines]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_an_old_run_is_read_and_resumed_with_the_constant(reduction: str, tiny: Callable[..., Path]) -> None:
    overrides = (*VAE, f"likelihood.reduction={reduction}", "dataset.scale=[-1,1]")
    old, new = old_run(tiny, *overrides, name="old"), tiny(*overrides, name="new")
    raw = json.loads((old / "history.jsonl").read_text().splitlines()[0])
    assert raw["test/nll"] > 100 + history(new)[0]["test/nll"], "0.1 had no constant, of -131 nats"
    for before, after in zip(without_timings(history(new)), without_timings(history(old)), strict=True):
        assert after == pytest.approx(before, abs=1e-9)
    old_metrics, new_metrics = (without_timings([RunDirectory(run).metrics()])[0] for run in (old, new))
    assert old_metrics == pytest.approx({**new_metrics, "status": "finished"}, abs=1e-9)
    summaries = {run.name: run for run in read_runs(old.parent, old.parent)}
    assert summaries["old"].metrics["test/neg_elbo"] == pytest.approx(new_metrics["test/neg_elbo"])
    assert summaries["old"].history[1]["train/loss"] == pytest.approx(summaries["new"].history[1]["train/loss"])

    for directory in (old, new):
        tiny(*overrides, "epochs=2", name=directory.name)
    files = [directory / "checkpoint" / "journal.jsonl" for directory in (old, new)]
    journals = [without_timings([json.loads(line) for line in file.read_text().splitlines()]) for file in files]
    assert [line["epoch"] for line in journals[0]] == [0, 1, 2]
    for before, after in zip(journals[1], journals[0], strict=True):
        assert after == pytest.approx(before, abs=1e-9)
    raw = [json.loads(line) for line in (old / "history.jsonl").read_text().splitlines()]
    assert all(NLL_CONSTANT in line for line in raw), "the old epochs are not read as old ones again"


def test_reading_twice_adds_the_constant_once(tiny: Callable[..., Path]) -> None:
    old = old_run(tiny, *VAE, name="old")
    once = history(old)
    assert upgrade_lines(once, old) == once


def test_losses_without_a_known_constant_are_left_out(tiny: Callable[..., Path]) -> None:
    old = old_run(tiny, *VAE, name="old")
    config = old / ".hydra" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("aetrain.model.likelihoods.Gaussian", "mylikelihood.Laplace"))
    metrics = RunDirectory(old).metrics()
    assert {"test/nll", "test/neg_elbo", "test/loss"}.isdisjoint(metrics)
    assert metrics["test/sse"] > 0
    assert metrics["test/kl"] > 0
    config.write_text("damaged")
    (old / "checkpoint" / "state.json").unlink()
    (old / "checkpoint.previous" / "state.json").unlink()
    assert "test/nll" not in RunDirectory(old).metrics()
    (summary,) = read_runs(old.parent, old.parent)
    assert summary.status == "damaged"


def test_bernoulli_and_machines_have_no_constant(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    machine = {"epoch": 1, "pretrain/1/loss": -3.0}  # a difference of free energies
    for likelihood, constant in (("bernoulli", 0.0), ("gaussian", 2 * 0.5 * math.log(2 * math.pi * 0.5))):
        config = api.compose_config([f"likelihood={likelihood}"])[0]
        OmegaConf.save(config, tmp_path / ".hydra" / "config.yaml")
        lines = upgrade_lines([machine, {"test/nll": 5.0, "test/sse": 4.0, "test/mse": 2.0}], tmp_path)
        assert lines[0] == machine
        assert lines[1]["test/nll"] == pytest.approx(5.0 + constant)
        assert lines[1][NLL_CONSTANT] == pytest.approx(constant)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 2.5)])
def test_the_constant_of_old_runs_is_that_of_the_likelihood(scale: tuple[float, float]) -> None:
    for variance in (0.01, 0.5, 3.0):
        constant = old_metrics._gaussian_constant(784, variance, *scale)
        assert constant == pytest.approx(Gaussian(variance, scale=scale).constant(784))
    assert Bernoulli().constant(784) == 0


def test_a_checkpoint_is_converted_after_its_digest_is_checked(tiny: Callable[..., Path]) -> None:
    old = old_run(tiny, *VAE, name="old")
    folder = old / "checkpoint"
    state = json.loads((folder / "state.json").read_text())
    assert sha256((folder / "journal.jsonl").read_bytes()) == state["sha256"]["journal.jsonl"]
    _, _, progress = checkpoint._read(folder, with_training=True)
    assert all(NLL_CONSTANT in line for line in progress.journal)
