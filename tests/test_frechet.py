"""The Frechet distance against scipy, and what it says of pictures that are real, blurred, mean or noise."""

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
from aetrain.data.images import Images, Prepare
from aetrain.evaluation.measures import feature_classifier
from aetrain.evaluation.measures.feature_classifier import load_or_train_classifier
from aetrain.evaluation.measures.frechet import distance
from aetrain.runs import train
from aetrain.runs.build import build


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "STEPS", 250)


def test_distance_is_that_of_scipy_s_matrix_root() -> None:
    a, b = normal(200, 6) @ normal(6, 6, seed=1), normal(150, 6, seed=2) @ normal(6, 6, seed=3) + 0.7
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    known = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(cov_a + cov_b - 2 * root.real)
    assert distance(a, b) == pytest.approx(known, rel=1e-8)
    assert distance(b, a) == pytest.approx(known, rel=1e-8)


def test_distance_of_normal_distributions_that_commute_and_of_a_set_to_itself() -> None:
    a = normal(5000, 3)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
    assert distance(a, 2 * a + 1) == pytest.approx(
        float(((a.mean(0) + 1) ** 2).sum()) + float(a.t().cov().trace()), rel=1e-8
    )  # (2 - 1)^2 times the variance, and the shift m + 1
    few = normal(3, 8)  # fewer than units: a covariance without full rank
    assert math.isfinite(distance(few, normal(4, 8, seed=1)))


def test_noise_is_further_from_images_than_the_mean_image_and_images_are_near(tmp_path: Path) -> None:
    train, test = Digits().read()
    known = load_or_train_classifier(train, Prepare(), tmp_path)
    x, others = (images.pixels.float() / 255 for images in (test, train[: len(test)]))
    with torch.no_grad():
        real = known.features(x)
        floor = distance(real, known.features(others))
        blurred = distance(real, known.features(torch.nn.functional.avg_pool2d(x, 3, 1, 1)))
        mean = distance(real, known.features(x.mean(0, keepdim=True).expand_as(x)))
        noise = distance(real, known.features(torch.rand_like(x)))
        right = (known(x).argmax(1) == test.labels).float().mean()
    assert right > 0.9
    assert floor < blurred < mean
    assert 5 * floor < min(mean, noise)


def test_a_judge_is_trained_once_and_leaves_the_global_generator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = Digits().read()
    before = torch.get_rng_state()
    first = load_or_train_classifier(train, Prepare(), tmp_path / "judges").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    (file,) = (tmp_path / "judges").iterdir()

    def again(*_: object) -> None:
        raise AssertionError("trained again")

    trained = feature_classifier.train
    monkeypatch.setattr(classifier, "train", again)
    second = load_or_train_classifier(train, Prepare(), tmp_path / "judges").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setattr(classifier, "train", trained)
    file.write_bytes(file.read_bytes()[:100])
    third = load_or_train_classifier(train, Prepare(), tmp_path / "judges").state_dict()
    assert all(torch.equal(first[name], third[name]) for name in first), (
        "a damaged file is replaced by the same classifier"
    )
    assert file.stat().st_size > 1000


def test_other_images_have_a_judge_of_their_own() -> None:
    train, _ = Digits().read()
    assert train.labels is not None
    names = {
        feature_classifier.digest(train, Prepare()),
        feature_classifier.digest(train, Prepare(dynamic=True)),
        feature_classifier.digest(train[1:], Prepare()),
        feature_classifier.digest(Images(train.pixels, train.labels.flip(0)), Prepare()),
    }
    assert len(names) == 4


def test_a_folder_that_is_read_only_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "judges"
    folder.mkdir()
    folder.chmod(0o555)
    load_or_train_classifier(Digits().read()[0][:200], Prepare(), folder)
    assert not any(folder.iterdir())
    folder.chmod(0o755)


@pytest.mark.parametrize("binarize", ["none", "static"])
def test_it_is_measured_of_reconstructions_and_samples(binarize: str, run: Callable[..., Path], tmp_path: Path) -> None:
    words = ("dataset=digits", "views=none", "device=cpu", "measures=frechet", f"data_dir='{tmp_path}'")
    directory = run(*words, "model=vae", "epochs=1", f"dataset.binarize={binarize}")
    metrics = json.loads((directory / "metrics.json").read_text())
    values = [metrics[f"test/frechet_{name}"] for name in ("floor", "reconstructions", "samples")]
    assert all(math.isfinite(value) for value in values)
    assert 0 < values[0] < min(values[1:])
    assert len([*(tmp_path / "judges").glob("*.safetensors")]) == 1


def test_a_model_without_a_prior_has_no_samples(tiny: Callable[..., Path], tmp_path: Path) -> None:
    metrics = json.loads((tiny("measures=frechet", f"data_dir='{tmp_path}'") / "metrics.json").read_text())
    assert "test/frechet_reconstructions" in metrics
    assert "test/frechet_samples" not in metrics


def test_images_without_classes_are_refused_before_training(run: Callable[..., Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"measures\.frechet: .*have no classes"):
        run("dataset=npz", f"dataset.path='{tmp_path / 'mine.npz'}'", "views=none", "measures=frechet")
    assert not (tmp_path / "run" / "checkpoint").exists()
    config, _, words = api.composed([*TINY, "measures=frechet"])
    assert build(train.checked(config, words)).measures
