"""PCA against scikit-learn, also where the images vary in fewer directions than the code has units."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Reference

from aetrain.data.digits import Digits
from aetrain.evaluation.evaluator import STANDARD_METRICS
from aetrain.model.pca import PCA
from aetrain.storage.run_directory import RunDirectory

PIXELS = 12


def images(count: int, pixels: int = PIXELS, rank: int | None = None) -> torch.Tensor:
    """Return random images [N, 1, 1, P]; `rank` different ones, repeated."""
    x = torch.rand(rank or count, 1, 1, pixels, generator=torch.Generator().manual_seed(count))
    return x[torch.arange(count) % len(x)]


def reference_reconstruction(train: torch.Tensor, test: torch.Tensor, k: int) -> np.ndarray[Any, Any]:
    """Return scikit-learn's projection [M, P], without the directions in which the training images do not vary."""
    flat_train, flat_test = train.flatten(1).double().numpy(), test.flatten(1).double().numpy()
    if np.ptp(flat_train, 0).max() == 0:  # scikit-learn divides by the total variance
        return np.tile(flat_train[0], (len(flat_test), 1))
    reference = Reference(svd_solver="full").fit(flat_train)
    components = reference.components_[reference.explained_variance_ > 1e-10][:k]
    centred = flat_test - reference.mean_
    return centred @ components.T @ components + reference.mean_


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize(
    ("count", "rank"), [(200, None), (13, None), (12, None), (6, None), (2, None), (1, None), (200, 4), (8, 1)]
)
def test_reconstruction_is_that_of_scikit_learn(count: int, rank: int | None, k: int) -> None:
    train, test = images(count, rank=rank), images(30) + 0.5
    pca = PCA.fit(train.split(5), k)
    distinct = rank or count
    assert len(pca.components) == min(k, PIXELS, distinct - 1)
    gram = pca.components @ pca.components.t()
    torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
    expected = reference_reconstruction(train, test, k)
    np.testing.assert_allclose(pca.reconstruct(test).flatten(1).numpy(), expected, atol=2e-5)
    assert pca.encode(test).shape == (30, len(pca.components))


def test_variances_are_those_of_scikit_learn() -> None:
    train = images(200)
    expected = Reference().fit(train.flatten(1).numpy()).explained_variance_ * 199 / 200
    np.testing.assert_allclose(PCA.fit([train], PIXELS).variances.numpy(), expected, rtol=1e-4)


def test_real_directions_of_little_variance_are_kept() -> None:
    x = images(500)
    x[..., 0] *= 0.01  # a variance of 1e-4 of the others
    assert len(PCA.fit(x.split(100), PIXELS).components) == PIXELS


def test_angle_between_spans_of_unequal_dimension() -> None:
    basis = torch.eye(4)
    plane, line, none = (PCA(torch.zeros(4), basis[:k], torch.ones(k)) for k in (2, 1, 0))
    assert line.angle_to(plane) == 0, "the line lies in the plane"
    assert plane.angle_to(line) == 90, "one direction of the plane is perpendicular to the line"
    assert none.angle_to(line) == 0
    assert line.angle_to(none) == 90
    diagonal = PCA(torch.zeros(4), (basis[:1] + basis[2:3]) / 2**0.5, torch.ones(1))
    assert line.angle_to(diagonal) == pytest.approx(45, abs=1e-4)


@pytest.mark.parametrize(("subset", "code_dim"), [(10, 32), (1, 4)])
def test_error_of_more_components_than_images(subset: int, code_dim: int, run: Callable[..., Path]) -> None:
    directory = run(
        *("dataset=digits", f"dataset.subset={subset}", f"model.code_dim={code_dim}", "model.hidden=[8]", "epochs=0"),
        *("views=none", "device=cpu"),
    )
    splits = Digits(subset=subset).load()
    train, test = (images.pixels.float() / 255 for images in (splits.train, splits.test))
    expected = reference_reconstruction(train, test, code_dim)
    error = np.square(expected - test.flatten(1).numpy()).sum(1).mean()
    assert RunDirectory(directory).metrics()["test/pca_sse"] == pytest.approx(error, rel=1e-4)


LINEAR = ("model=linear", "model.code_dim=4", "likelihood=gaussian")


@pytest.mark.parametrize(
    ("overrides", "is_linear"),
    [
        (LINEAR, True),
        ((*LINEAR, "model.hidden=[8]", "model.activation=identity"), True),
        ((*LINEAR, "sparsity=l1"), True),
        (("model=vae", "model.hidden=[]", "model.code_dim=4", "likelihood=gaussian"), True),
        ((*LINEAR, "model.hidden=[8]"), False),
        ((*LINEAR, "likelihood.output=sigmoid"), False),
        ((*LINEAR, "likelihood=bernoulli"), False),
        ((*LINEAR, "model.code_activation=relu"), False),
        ((*LINEAR, "sparsity=topk", "sparsity.k=2"), False),
        (("model=conv", "model.code_dim=4", "likelihood=gaussian"), False),
        (("model=vqvae", "likelihood=gaussian"), False),
    ],
)
def test_the_angle_is_that_of_linear_reconstructions(
    overrides: tuple[str, ...], is_linear: bool, tiny: Callable[..., Path]
) -> None:
    directory = tiny(*overrides, "epochs=0", "dataset.subset=32")
    assert ("test/pca_angle" in RunDirectory(directory).metrics()) == is_linear
    descriptions = json.loads((directory / "descriptions.json").read_text())
    assert ("pca_angle" in descriptions) == is_linear
    assert "pca_angle" in STANDARD_METRICS["PCA"]
