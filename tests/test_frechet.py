"""The Frechet distance against scipy, and its order of real images, blurred images, the mean image and noise."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import TINY
from torch import Tensor

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.digits import Digits
from aetrain.data.examples import Examples, Prepare, Splits
from aetrain.data.noise import NoNoise
from aetrain.evaluation.measures import feature_classifier
from aetrain.evaluation.measures.feature_classifier import load_or_train_classifier
from aetrain.evaluation.measures.frechet import Frechet, frechet_distance
from aetrain.evaluation.measures.measure import EvalInputs
from aetrain.objective.objective import Objective
from aetrain.runs import entry
from aetrain.runs.build import build


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_classifier, "NUM_STEPS", 250)


def test_the_distance_is_that_with_the_matrix_root_of_scipy() -> None:
    a, b = normal(200, 6) @ normal(6, 6, seed=1), normal(150, 6, seed=2) @ normal(6, 6, seed=3) + 0.7
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(cov_a + cov_b - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_the_distance_of_covariances_that_commute_and_of_a_set_to_itself() -> None:
    a = normal(5000, 3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, 2 * a + 1) == pytest.approx(
        float(((a.mean(0) + 1) ** 2).sum()) + float(a.t().cov().trace()), rel=1e-8
    )  # (2 - 1)^2 times the variance, and the shift of the mean, m + 1
    few = normal(3, 8)  # fewer images than features: the covariance has no full rank
    assert math.isfinite(frechet_distance(few, normal(4, 8, seed=1)))


def test_blurred_images_are_nearer_than_the_mean_image_and_noise(tmp_path: Path) -> None:
    train, test = Digits().read()
    classifier = load_or_train_classifier(train, Prepare(), tmp_path)
    x, train_x = (images.pixels.float() / 255 for images in (test, train[: len(test)]))
    with torch.no_grad():
        real = classifier.features(x)
        floor = frechet_distance(real, classifier.features(train_x))
        blurred = frechet_distance(real, classifier.features(torch.nn.functional.avg_pool2d(x, 3, 1, 1)))
        mean = frechet_distance(real, classifier.features(x.mean(0, keepdim=True).expand_as(x)))
        noise = frechet_distance(real, classifier.features(torch.rand_like(x)))
        accuracy = (classifier(x).argmax(1) == test.labels).float().mean()
    assert accuracy > 0.9
    assert floor < blurred < mean
    assert 5 * floor < min(mean, noise)


@pytest.mark.slow
def test_a_classifier_is_trained_once_and_does_not_change_the_global_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = Digits().read()
    before = torch.get_rng_state()
    first = load_or_train_classifier(train, Prepare(), tmp_path / "classifiers").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    (file,) = (tmp_path / "classifiers").iterdir()

    def fail(*_: object) -> None:
        raise AssertionError("trained a second time")

    train_classifier = feature_classifier.train_classifier
    monkeypatch.setattr(feature_classifier, "train_classifier", fail)
    second = load_or_train_classifier(train, Prepare(), tmp_path / "classifiers").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setattr(feature_classifier, "train_classifier", train_classifier)
    file.write_bytes(file.read_bytes()[:100])
    third = load_or_train_classifier(train, Prepare(), tmp_path / "classifiers").state_dict()
    assert all(torch.equal(first[name], third[name]) for name in first), "the same classifier replaces a damaged file"
    assert file.stat().st_size > 1000


def test_other_images_have_another_classifier() -> None:
    train, _ = Digits().read()
    assert train.labels is not None
    digests = {
        feature_classifier.classifier_digest(train, Prepare()),
        feature_classifier.classifier_digest(train, Prepare(dynamic=True)),
        feature_classifier.classifier_digest(train[1:], Prepare()),
        feature_classifier.classifier_digest(Examples(train.pixels, train.labels.flip(0)), Prepare()),
    }
    assert len(digests) == 4


def test_a_read_only_folder_is_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "classifiers"
    folder.mkdir()
    folder.chmod(0o555)
    load_or_train_classifier(Digits().read()[0][:200], Prepare(), folder)
    assert not any(folder.iterdir())
    folder.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("binarize", ["none", "static"])
def test_reconstructions_and_samples_have_a_distance(binarize: str, run: Callable[..., Path], tmp_path: Path) -> None:
    overrides = ("dataset=digits", "views=none", "device=cpu", "measures=frechet", f"data_dir='{tmp_path}'")
    directory = run(*overrides, "model=vae", "epochs=1", f"dataset.binarize={binarize}")
    metrics = json.loads((directory / "metrics.json").read_text())
    floor, *distances = [metrics[f"test/frechet_{name}"] for name in ("floor", "reconstructions", "samples")]
    assert all(math.isfinite(value) for value in (floor, *distances))
    assert 0 < floor < min(distances)
    assert len([*(tmp_path / "classifiers").glob("*.safetensors")]) == 1


def test_the_floor_is_that_of_training_images_of_all_classes_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is sorted by class begins with images of few classes, which are far from the test images."""
    config, _, overrides = api.compose_config([*TINY])
    model = build(entry.check(config, overrides)).model.eval()
    train, test = Digits().read()
    classifier = load_or_train_classifier(train, Prepare(), tmp_path)
    monkeypatch.setattr("aetrain.evaluation.measures.frechet.load_or_train_classifier", lambda *_: classifier)
    floors = []
    for order in (torch.arange(len(train)), train.classes.argsort(stable=True)):
        splits = Splits(train[order], train[:0], test)
        inputs = EvalInputs(model, Objective({}), NoNoise(), splits, Prepare(), lambda: model, 0)
        floors.append(Frechet(str(tmp_path))(inputs)["frechet_floor"])
    assert max(floors) < 2 * min(floors)


def test_missing_pixels_are_refused_before_data_are_read() -> None:
    config, _, overrides = api.compose_config([*TINY, "measures=frechet", "dataset.missing=0.3"])
    with pytest.raises(ConfigError, match=r"measures\.frechet: .*whole images.*use dataset\.missing=0"):
        build(entry.check(config, overrides))


def test_a_model_without_a_prior_has_no_samples(tiny: Callable[..., Path], tmp_path: Path) -> None:
    metrics = json.loads((tiny("measures=frechet", f"data_dir='{tmp_path}'") / "metrics.json").read_text())
    assert "test/frechet_reconstructions" in metrics
    assert "test/frechet_samples" not in metrics


def test_images_without_classes_are_refused_before_training(run: Callable[..., Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"measures\.frechet: .*have no classes"):
        run("dataset=npz", f"dataset.path='{tmp_path / 'mine.npz'}'", "views=none", "measures=frechet")
    assert not (tmp_path / "run" / "checkpoint").exists()
    config, _, overrides = api.compose_config([*TINY, "measures=frechet"])
    assert build(entry.check(config, overrides)).measures
