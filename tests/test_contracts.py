"""Every option in configs/ keeps the contract of its kind, by the public checks of aetrain.testing."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generated_data import DATA_OF_LIKELIHOOD
from PIL import Image
from torch import Tensor, nn

from aetrain import api, testing
from aetrain.config.paths import groups, option_config
from aetrain.config.validate import locate
from aetrain.data.noise import Noise
from aetrain.model.bottlenecks import Deterministic, Gaussian
from aetrain.model.codes import Code
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.networks import Decoder, Encoder
from aetrain.objective.penalties import L2
from aetrain.runs.build import Components, build
from aetrain.runs.entry import check


class SigmoidUnits(Deterministic):
    """A code between 0 and 1, which sparsity=kl needs."""

    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]."""
        return Code(z=self.project(features).sigmoid())


SMALL_SPARSITY = {"topk": ["sparsity.k=2"]}
DIGITS = ("dataset=digits", "device=cpu", "views=none")
SEEDS = itertools.count()


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*DIGITS, *overrides])
    return build(check(config, full_overrides))


@pytest.mark.slow
@pytest.mark.parametrize("option", groups()["noise"])
def test_noise(option: str) -> None:
    testing.check_noise(components_of(f"noise={option}").noise)


@pytest.mark.parametrize("option", groups()["augment"])
def test_augment(option: str) -> None:
    testing.check_augment(components_of(f"augment={option}").augment)


@pytest.mark.parametrize("option", groups()["likelihood"])
def test_likelihood(option: str) -> None:
    data = DATA_OF_LIKELIHOOD.get(option, [])
    testing.check_likelihood(components_of(f"likelihood={option}", *data).model.likelihood)


@pytest.mark.slow
@pytest.mark.parametrize("option", groups()["model"])
def test_bottleneck_and_penalties(option: str) -> None:
    node = option_config("model", option)
    if "bottleneck" not in node:
        pytest.skip("the model makes its bottleneck itself: call check_bottleneck in a test of its own")
    settings = {key: value for key, value in node["bottleneck"].items() if not key.startswith("_")}
    bottleneck: Any = partial(locate(node["bottleneck"]["_target_"]), **settings)
    small = {"groups": 2, "num_codewords": 8, "categories": 4}
    bottleneck = partial(bottleneck, **{key: value for key, value in small.items() if key in settings})
    testing.check_bottleneck(bottleneck, code_dim=8, tied=bool(node.get("tied")))
    small_code = ["model.code_dim=4"] if small.keys().isdisjoint(settings) else []
    for penalty in components_of(f"model={option}", *small_code).objective.penalties.values():
        testing.check_penalty(penalty)


@pytest.mark.slow
@pytest.mark.parametrize("option", groups()["model"])
def test_encoder_and_decoder(option: str) -> None:
    def make_encoder(shape: tuple[int, int, int]) -> Encoder:
        return components_of(f"model={option}", f"seed={next(SEEDS)}").model.encoder

    def make_decoder(code_dim: int, shape: tuple[int, int, int]) -> Decoder:
        return components_of(f"model={option}", f"model.code_dim={code_dim}", f"seed={next(SEEDS)}").model.decoder

    testing.check_encoder(make_encoder)
    if option not in ("vqvae", "categorical"):  # their code size is a multiple of another setting
        testing.check_decoder(make_decoder, tied=bool(option_config("model", option).get("tied")))


# Measures of other data or classes than those of `check_measure`; tests of their own check them.
OTHER_MEASURES = ("none", "anomaly", "factorization", "imputation", "recommendation")


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in groups()["measures"] if option not in OTHER_MEASURES])
def test_measure(option: str, tmp_path: Path) -> None:
    few = {"few_labels": "measures.few_labels.labels=[20]", "retrieval": "measures.retrieval.at=[5]"}
    steps = ["measures.few_labels.steps=5"] if option == "few_labels" else []
    likelihood = ["measures.likelihood.samples=[1,5]"] if option == "likelihood" else []
    frechet = [f"measures.frechet.path='{tmp_path}'"] if option == "frechet" else []
    overrides = [f"measures={option}", *([few[option]] if option in few else []), *steps, *likelihood, *frechet]
    for measure in components_of("model=vae", *overrides).measures.values():
        testing.check_measure(measure)


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in groups()["views"] if option not in ("none", "all", "default")])
def test_view(option: str) -> None:
    kinds = [components_of(f"views={option}", *words).views for words in ((), ("dataset=wine", "likelihood=gaussian"))]
    views = {**kinds[0], **kinds[1]}
    assert views
    for view in views.values():
        testing.check_view(view)


@pytest.mark.parametrize("option", [option for option in groups()["penalty"] if option != "none"])
def test_penalty(option: str) -> None:
    config, *_ = api.compose_config([*DIGITS, f"penalty={option}"])
    penalties = components_of("model=vae", "model.code_dim=4", f"penalty={option}").objective.penalties
    for name in config.penalty:
        testing.check_penalty(penalties[name])


@pytest.mark.parametrize("option", groups()["sparsity"])
def test_penalties_of_sparsity(option: str) -> None:
    components = components_of(
        "model=linear", "model.code_dim=4", *([f"sparsity={option}"]), *SMALL_SPARSITY.get(option, ())
    )
    for penalty in components.objective.penalties.values():
        testing.check_penalty(penalty, SigmoidUnits if option == "kl" else None)


# The published data sets are checked on tiny archives in test_datasets.py.
@pytest.mark.parametrize("option", ["digits", "toy", "shapes", "folder", "npz"])
def test_dataset(option: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    np.savez(tmp_path / "images.npz", x_train=pixels[:8], x_test=pixels[8:])
    settings = {
        "folder": [f"dataset.path='{tmp_path}'", "dataset.size=8"],
        "npz": [f"dataset.path='{tmp_path / 'images.npz'}'"],
    }
    testing.check_dataset(components_of(f"dataset={option}", *settings.get(option, ())).dataset)


# --- The checks find what they are for --------------------------------------------------------------------------------


class OutOfRange:
    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + 1


class InPlace:
    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.mul_(0.5)


class Unseeded:
    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand_like(x)


@pytest.mark.parametrize(
    ("noise", "message"), [(OutOfRange(), "leaves"), (InPlace(), "in place"), (Unseeded(), "two calls with one seed")]
)
def test_wrong_noise_is_found(noise: Noise, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_noise(noise)


class Unsampled(Gaussian):
    """A Gaussian bottleneck that forgets to sample."""

    def forward(self, features: Tensor) -> Any:
        training, self.training = self.training, False
        try:
            return super().forward(features)
        finally:
            self.training = training


class Unscaled(Bernoulli):
    """A likelihood that is a mean over the batch."""

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        return super().nll(decoded, x).mean().expand(len(x))


class BatchSum(L2):
    """A penalty that sums over the batch."""

    def forward(self, model: Any, out: Any) -> Tensor:
        return super().forward(model, out).sum().expand(len(out.x))


def test_wrong_components_are_found() -> None:
    with pytest.raises(AssertionError, match="does not sample in training mode"):
        testing.check_bottleneck(Unsampled)
    with pytest.raises(AssertionError, match="depends on the other images"):
        testing.check_likelihood(Unscaled())
    with pytest.raises(AssertionError, match="depends on the other images"):
        testing.check_penalty(BatchSum())


class LeakyEncoder(Encoder):
    """An encoder that mixes the images of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 5)
        self.num_features = 5

    def forward(self, x: Tensor) -> Any:
        from aetrain.model.records import Encoded

        features = self.layer(x.flatten(1))
        return Encoded(hidden=(), features=features - features.mean(0))


def test_wrong_encoder_is_found() -> None:
    with pytest.raises(AssertionError, match="another result in another batch"):
        testing.check_encoder(lambda shape: LeakyEncoder())
