"""Any nn.Module is an encoder or a decoder, and is refused before training where it breaks its contract."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import command
from conftest import TINY
from torch import Tensor, nn

import aetrain
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.likelihoods import Bernoulli, Likelihood
from aetrain.model.networks import Decoder, Encoder, ModuleDecoder, ModuleEncoder
from aetrain.model.records import Encoded, Tap

SHAPE = (1, 8, 8)

MODEL = """
from torch import nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.likelihoods import Likelihood
from aetrain.model.networks import ModuleDecoder, ModuleEncoder


def wrapped(
    image_shape: tuple[int, int, int],
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    code_dim: int = 6,
    code_activation: str | None = None,
) -> Autoencoder:
    channels, height, width = image_shape
    pixels = channels * height * width
    encoder = ModuleEncoder(nn.Sequential(nn.Flatten(), nn.Linear(pixels, pixels), nn.GELU()), pixels)
    decoder = ModuleDecoder(nn.Sequential(nn.Linear(code_dim, 16), nn.ReLU(), nn.Linear(16, pixels)), image_shape)
    bottleneck = Deterministic(pixels, code_dim)
    return Autoencoder(encoder, bottleneck, decoder, likelihood, nn.Identity(), sparsifier, image_shape, scale)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a model that is made of wrapped modules."""
    (tmp_path / "wrapped_model.py").write_text(MODEL)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    yaml = "_target_: wrapped_model.wrapped\ncode_dim: 6\ncode_activation: null\npenalties: {}\n"
    (tmp_path / "mine" / "model" / "wrapped.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_wrapped_modules_train_with_every_view(project: Path) -> None:
    overrides = [*TINY[:-2], "device=cpu", "model=wrapped", "views=all", "noise=masking", "hydra.run.dir=run"]
    outcome = command(["--config-dir", "mine", *overrides], project)
    assert outcome.code == 0, outcome.err
    figures = {file.stem for file in (project / "run" / "figures").glob("*.png")}
    assert {"reconstructions", "decoder_units", "code", "atlas-code", "units-code"} <= figures
    assert aetrain.load(project / "run", trust=True).model.code_dim == 6


def test_mean_image_needs_an_output_bias(project: Path) -> None:
    outcome = command(["--config-dir", "mine", *TINY, "model=wrapped", "pretrain=mean"], project)
    assert outcome.code == 1
    assert "ModuleDecoder states none: use pretrain=none" in outcome.err


class WrongFeatures(Encoder):
    num_features = 7

    def forward(self, x: Tensor) -> Encoded:
        return Encoded(hidden=(), features=x.flatten(1)[:, :5])


class WrongTaps(Encoder):
    num_features = 64

    def forward(self, x: Tensor) -> Encoded:
        return Encoded(hidden=(x.flatten(1), x.flatten(1)), features=x.flatten(1))

    def taps(self) -> list[Tap]:
        return [Tap(name="hidden1", module=nn.Identity())]


class WrongWeights(Encoder):
    num_features = 64

    def forward(self, x: Tensor) -> Encoded:
        return Encoded(hidden=(), features=x.flatten(1))

    def first_layer_weights(self) -> Tensor:
        return torch.zeros(3, 64)


class WrongShape(Decoder):
    def forward(self, code: Code) -> Tensor:
        return code.z[:, None, None].expand(-1, 1, 4, -1)


class WrongBias(ModuleDecoder):
    @property
    def output_bias(self) -> nn.Parameter:
        return nn.Parameter(torch.zeros(5))


def autoencoder(encoder: Encoder, decoder: Decoder) -> Autoencoder:
    likelihood: Likelihood = Bernoulli()
    bottleneck = Deterministic(5 if isinstance(encoder, WrongFeatures) else 64, 3)
    return Autoencoder(encoder, bottleneck, decoder, likelihood, nn.Identity(), nn.Identity(), SHAPE, (0.0, 1.0))


def good_encoder() -> Encoder:
    return ModuleEncoder(nn.Flatten(), 64)


def good_decoder() -> Decoder:
    return ModuleDecoder(nn.Linear(3, 64), SHAPE)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (WrongFeatures, good_decoder, "states num_features=7 but returns features"),
        (WrongTaps, good_decoder, "has 1 taps for 2 hidden activations"),
        (WrongWeights, good_decoder, "return pictures"),
        (good_encoder, WrongShape, r"returns \[2, 1, 4, 3\]: return \[B, 1, 8, 8\]"),
        (good_encoder, lambda: WrongBias(nn.Linear(3, 64), SHAPE), "output_bias"),
    ],
)
def test_broken_contracts_are_refused(
    encoder: Callable[[], Encoder], decoder: Callable[[], Decoder], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        autoencoder(encoder(), decoder()).check()


def test_wrapped_modules_keep_the_contract() -> None:
    model = autoencoder(good_encoder(), good_decoder())
    model.check()
    assert [tap.name for tap in model.unit_layers()] == ["code"]
    with pytest.raises(ValueError, match="states no first-layer weights"):
        model.first_layer_weights()
