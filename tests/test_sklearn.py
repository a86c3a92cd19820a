"""The estimator of scikit-learn: its checks, its scores, its runs, and its place in pipelines and searches."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.sklearn import Autoencoder

X = np.random.default_rng(0).normal(3, 5, (60, 6))


def quick(**settings: Any) -> Autoencoder:
    """Return a small estimator that trains for one epoch."""
    overrides = {"model.hidden": [8], **settings.pop("overrides", {})}
    return Autoencoder(**{"code_dim": 2, "epochs": 1, "device": "cpu", **settings, "overrides": overrides})


@pytest.fixture(scope="module")
def table() -> Autoencoder:
    return quick().fit(X)


@pytest.mark.slow
def test_check_estimator() -> None:
    results = check_estimator(quick(), on_skip=None)
    assert len(results) > 50
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}  # packages that are not there


@pytest.mark.slow
def test_a_linear_autoencoder_finds_the_error_of_pca() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5)) + 0.01 * rng.normal(size=(400, 5)) + 7
    overrides = {"likelihood": "gaussian", "optimizer.lr": 1e-2}
    ae = Autoencoder("linear", code_dim=2, epochs=80, batch_size=40, overrides=overrides, device="cpu").fit(data)
    low, high = data.min(0), data.max(0)
    scaled = (data - low) / (high - low)
    again = PCA(2).fit(scaled).inverse_transform(PCA(2).fit_transform(scaled))
    pca_error = ((scaled - again) ** 2).sum(1).mean()
    mean_error = scaled.var(0).sum()
    assert -ae.score(data) < pca_error + 0.01 * mean_error
    restored = ae.inverse_transform(ae.transform(data))
    error = (((restored - data) / (high - low)) ** 2).sum(1)  # in the units of X, scaled by hand
    np.testing.assert_allclose(-ae.score_samples(data), error, rtol=0.05, atol=1e-4)  # decoded pixels are clipped


def test_scores_and_outliers(table: Autoencoder) -> None:
    scores = table.score_samples(X)
    assert table.score(X) == pytest.approx(scores.mean())
    assert table.offset_ == pytest.approx(np.quantile(scores, 0.1))
    np.testing.assert_array_equal(table.predict(X), np.where(scores < table.offset_, -1, 1))
    assert (table.predict(X) == -1).sum() == 6
    np.testing.assert_allclose(table.decision_function(X), scores - table.offset_)
    far = X[:1].copy()
    far[0, 0] = 1e3  # a value beyond the range of training is clipped for the network, but not for the error
    assert table.score_samples(far) < 10 * table.offset_


@pytest.mark.parametrize("model", ["deep", "vae"])
def test_the_loss_is_that_of_the_run(model: str) -> None:
    binary = (X > 3).astype(float)
    settings = {"likelihood": "gaussian"} if model == "deep" else {}
    ae = quick(model=model, metric="loss", scale=None, overrides=settings).fit(binary)
    expected = ae.metrics_["test/nll"] + ae.metrics_.get("test/kl", 0)
    assert -ae.score(binary) == pytest.approx(expected, rel=1e-4)


def test_codes_and_their_names(table: Autoencoder) -> None:
    codes = table.transform(X)
    assert codes.shape == (60, 2)
    assert list(table.get_feature_names_out()) == ["autoencoder0", "autoencoder1"]
    assert table.inverse_transform(codes).shape == X.shape
    low, high = X.min(0), X.max(0)
    with torch.no_grad():
        x = torch.tensor((X - low) / (high - low), dtype=torch.float32).reshape(60, 1, 1, 6)
        np.testing.assert_allclose(codes, table.model_.encode(x).z, atol=1e-5)
    with pytest.raises(ValueError, match="X has 3 features, but a code has 2 units"):
        table.inverse_transform(np.zeros((1, 3)))


def test_images_of_bytes() -> None:
    images = np.random.default_rng(2).integers(0, 256, (40, 8, 8), np.uint8)
    ae = Autoencoder("conv", code_dim=4, epochs=1, device="cpu").fit(images)
    assert ae.image_shape_ == (8, 8)
    with torch.no_grad():
        expected = ae.model_.encode(torch.from_numpy(images[:, None]) / 255).z
    codes = ae.transform(images)
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    again = ae.inverse_transform(codes)
    assert again.shape == images.shape
    assert again.max() > 1  # in the units of X, 0 to 255
    assert -ae.score(images) == pytest.approx(ae.metrics_["test/sse"], rel=1e-4)
    with pytest.raises(ValueError, match="the training data had uint8: use uint8 from 0 to 255"):
        ae.transform(images / 255)
    with pytest.raises(ValueError, match=r"\[2, 8, 8, 3\], with the channels last: use images \[N, C, H, W\]"):
        Autoencoder("conv").fit(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("model", ["deep", "vae"])
def test_a_seed_gives_the_same_codes(model: str) -> None:
    before = torch.get_rng_state()
    first, second, other = (quick(model=model, random_state=seed).fit(X).transform(X) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)
    assert quick(random_state=np.random.RandomState(0))._seed() == np.random.RandomState(0).randint(2**31 - 1)


def test_each_fit_keeps_a_run_below_its_directory(tmp_path: Path) -> None:
    ae = quick(directory=tmp_path / "runs").fit(X)
    again = clone(ae).fit(X)
    assert {ae.directory_, again.directory_} == {*(tmp_path / "runs").iterdir()}
    assert ae.directory_ is not None
    run = aetrain.load(ae.directory_)
    low, high = X.min(0), X.max(0)
    np.testing.assert_allclose(run.encode(((X - low) / (high - low)).clip(0, 1)), ae.transform(X), atol=1e-5)
    assert ae.metrics_ == run.metrics
    assert [line["epoch"] for line in ae.history_] == [0, 1]
    assert len(run.data.train) == 60
    assert quick().fit(X).directory_ is None


def test_overrides_win_and_the_fitted_estimator_can_be_pickled() -> None:
    overrides = {"epochs": 0, "optimizer": {"lr": 0.5}, "model": {"code_dim": 3}, "likelihood": "gaussian"}
    ae = quick(epochs=5, code_dim=2, overrides=overrides).fit(X)
    assert ae.config_.epochs == 0
    assert ae.config_.optimizer.lr == 0.5
    assert ae.transform(X).shape == (60, 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ae)).transform(X), ae.transform(X))


def test_wrong_parameters_are_refused() -> None:
    for name, value in (("scale", "x"), ("metric", "x"), ("contamination", 0.6), ("contamination", "auto")):
        with pytest.raises(ValueError, match=f"{name}={value!r} is not possible"):
            quick(**{name: value}).fit(X)
    with pytest.raises(ValueError, match=r"X has values from .*: use values in \[0, 1\], uint8"):
        quick(scale=None).fit(X)
    with pytest.raises(ConfigError, match=r"optimizer\.x"):
        quick(overrides={"optimizer.x": 1}).fit(X)


def test_warnings_of_the_training_are_logged_where_verbose(caplog: pytest.LogCaptureFixture) -> None:
    quick().fit(np.ones((20, 3)))
    assert not caplog.records
    quick(verbose=True).fit(np.ones((20, 3)))
    assert caplog.records


@pytest.mark.slow
def test_pipeline_and_grid_search() -> None:
    images, labels = load_digits(return_X_y=True)
    ae = Autoencoder(epochs=10, device="cpu", overrides={"optimizer.lr": 3e-3})
    pipeline = make_pipeline(ae, LogisticRegression(max_iter=2000)).fit(images[:1200], labels[:1200])
    assert pipeline.score(images[1200:], labels[1200:]) > 0.85
    pca = {"likelihood": "gaussian", "pretrain": "pca"}
    grid = {"code_dim": [1, 16], "overrides": [{}, pca]}
    search = GridSearchCV(quick(model="linear", epochs=0).set_params(overrides={}), grid, cv=2).fit(images[:600])
    assert search.best_params_ == {"code_dim": 16, "overrides": pca}
    assert search.best_estimator_.transform(images).shape == (1797, 16)


@pytest.mark.slow
def test_the_scores_separate_a_class_that_training_lacks() -> None:
    images, labels = load_digits(return_X_y=True)
    ae = Autoencoder(code_dim=8, epochs=40, batch_size=32, device="cpu").fit(images[:1200][labels[:1200] == 0])
    area = roc_auc_score(labels[1200:] == 0, ae.score_samples(images[1200:]))
    assert area > 0.97


@pytest.mark.slow
def test_standardised_tables_have_no_limit(tmp_path: Path) -> None:
    """A second way: PCA of standardised rows. A row far outside of the training data is not clipped."""
    rng = np.random.default_rng(1)
    data = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5)) * 100 + 0.1 * rng.normal(size=(400, 5)) + 700
    overrides = {"optimizer.lr": 1e-2}
    ae = Autoencoder(
        "linear", code_dim=2, epochs=60, batch_size=40, scale="standard", overrides=overrides, device="cpu"
    )
    ae.fit(data)
    scaled = (data - data.mean(0)) / data.std(0)
    again = PCA(2).fit(scaled).inverse_transform(PCA(2).fit_transform(scaled))
    assert -ae.score(data) < ((scaled - again) ** 2).sum(1).mean() + 0.05
    restored = ae.inverse_transform(ae.transform(data))
    np.testing.assert_allclose(restored, data, atol=0.2 * data.std())
    far = data[:1] + 10 * (data[:1] - data.mean(0))
    np.testing.assert_allclose(ae.inverse_transform(ae.transform(far)), far, rtol=0.2)
    assert ae.config_["likelihood"]["_target_"].endswith("Gaussian")
    for bad in (np.zeros((9, 4, 4)), np.zeros((9, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"scale='standard' is for rows \[N, D\] of floats"):
            quick(scale="standard").fit(bad)
