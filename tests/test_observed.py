"""Dense models whose encoder also reads which values are observed (`observed=true`), or divides by the norm."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups, option_config
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Gaussian
from aetrain.runs import entry
from aetrain.runs.build import Components, build

SHAPE = (1, 2, 3)
NAN = math.nan
DENSE = [
    option
    for option in groups()["model"]
    if option_config("model", option)["_target_"] == "aetrain.model.dense.dense"
    and not option_config("model", option)["tied"]
]


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def make_model(scale: tuple[float, float] = (0.0, 1.0), **settings: Any) -> Any:
    torch.manual_seed(0)
    model = dense(SHAPE, Gaussian(), nn.Identity(), scale, code_dim=2, **settings)
    model.has_missing = True
    return model


@pytest.mark.parametrize("hidden", [[], [4]])
def test_the_first_layer_reads_values_and_mask(hidden: list[int]) -> None:
    model = make_model(hidden=hidden, observed=True, scale=(-1.0, 1.0))
    x = torch.tensor([[0.5, NAN, 1.0, 0.0, NAN, 0.25], [NAN] * 6]).view(2, *SHAPE)
    inputs = torch.tensor([[0.0, 0, 1, -1, 0, -0.5, 1, 0, 1, 1, 0, 1], [0.0] * 12])
    layer = model.encoder.layers[0] if hidden else model.bottleneck.project
    expected = layer(inputs)
    if hidden:
        expected = model.bottleneck.project(expected.relu())
    torch.testing.assert_close(model.encode(x).z, expected)
    assert model(x).decoded.shape == x.shape
    weights = layer.weight[:, :6].view(-1, *SHAPE)
    torch.testing.assert_close(model.first_layer_weights(), weights)
    torch.testing.assert_close(model.unit_layers()[0].weights, weights)


def test_the_encoder_divides_the_observed_values_by_their_norm() -> None:
    model = make_model(hidden=[], observed=True, normalize=True)
    x = torch.tensor([[3.0, NAN, 4.0, 0.0, NAN, 0.0], [0.0] * 6]).view(2, *SHAPE)
    inputs = torch.tensor([[0.6, 0, 0.8, 0, 0, 0, 1, 0, 1, 1, 0, 1], [0.0] * 6 + [1.0] * 6])
    torch.testing.assert_close(model.encode(x).z, model.bottleneck.project(inputs))
    model = make_model(hidden=[4], normalize=True)
    torch.testing.assert_close(model.encode(x).z, model.encode(7 * x).z)
    assert make_model(hidden=[]).linear
    assert not make_model(hidden=[], normalize=True).linear


def test_missing_and_zero_differ_for_an_encoder_that_reads_the_mask_alone() -> None:
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 1] = 0
    gaps = x.masked_fill(x == 0, NAN)
    plain, reading = make_model(hidden=[4]), make_model(hidden=[4], observed=True)
    assert torch.equal(plain.encode(x).z, plain.encode(gaps).z)
    assert not torch.allclose(reading.encode(x).z, reading.encode(gaps).z)


@pytest.mark.parametrize("model", DENSE)
def test_every_untied_dense_model_trains_on_missing_values(model: str, tiny: Callable[..., Path]) -> None:
    run_dir = tiny(f"model={model}", "model.observed=true", "dataset.missing=0.3", "likelihood=gaussian")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert all(math.isfinite(metrics[f"test/{name}"]) for name in ("loss", "nll", "sse", "rmse"))


def test_settings_that_do_not_fit_are_refused() -> None:
    for overrides, words in [
        (["model=tied"], "observed=true does not fit tied=true"),
        (["model=sparse_coding"], "observed=true does not fit tied=true"),
        (["model=linear", "likelihood=gaussian", "pretrain=pca"], "use model.observed=false"),
        (["model=deep", "pretrain=layerwise"], "use model.observed=false"),
        (["model=deep", "pretrain=rbm", "model.activation=sigmoid"], "use model.observed=false"),
    ]:
        with pytest.raises(ConfigError) as refused:
            components_of(*overrides, "model.observed=true")
        assert words in str(refused.value), str(refused.value)
