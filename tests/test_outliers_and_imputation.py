"""Outliers by their error, values that are hidden and filled in, and iterative PCA, each computed a second way."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from torch import Tensor

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.columns import Column, Columns
from aetrain.data.examples import Examples, Prepare
from aetrain.data.hidden_values import hide_values
from aetrain.data.scikit_tables import Wine
from aetrain.data.table import Table
from aetrain.evaluation.iterative_pca import IterativePCA
from aetrain.evaluation.measures.anomaly import Anomaly

WINE = ("dataset=wine", "batch_size=32", "views=none", "device=cpu", "model=deep", "model.hidden=[16]")


def observed_error(x: Tensor, fitted: Tensor) -> float:
    """Return the squared error summed over known values."""
    return float((x - fitted).square().nansum())


def low_rank(n: int = 40, d: int = 6, k: int = 2) -> Tensor:
    """Return examples [N, D] near a plane, a fifth of whose values is missing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, k, generator=generator) @ torch.randn(k, d, generator=generator) + 3
    x = (x + 0.1 * torch.randn(n, d, generator=generator)).double()
    return x.masked_fill(torch.rand(n, d, generator=generator) < 0.2, torch.nan)


def test_iterative_pca_minimises_the_error_of_known_values() -> None:
    """A second way: gradient descent on a mean and two factors, without a value that is filled in."""
    x = low_rank()
    fitted = IterativePCA.fit(x, 2)
    filled = fitted.fill(x)
    projected = fitted.mean + (filled - fitted.mean) @ fitted.components.t() @ fitted.components
    generator = torch.Generator().manual_seed(1)
    shapes = ((40, 2), (2, 6), (6,))
    factors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    optimizer = torch.optim.LBFGS(factors, max_iter=2000, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x.nan_to_num(0.0) - factors[0] @ factors[1] - factors[2])[~x.isnan()].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert observed_error(x, projected) == pytest.approx(float(closure().detach()), rel=1e-3)
    assert torch.equal(filled[~x.isnan()], x[~x.isnan()])


def test_iterative_pca_of_complete_examples_is_pca() -> None:
    x = low_rank().nan_to_num(3.0)
    fitted, expected = IterativePCA.fit(x, 2), PCA(2).fit(x.numpy())
    cosines = fitted.components.numpy() @ expected.components_.T
    np.testing.assert_allclose(abs(cosines), np.eye(2), atol=1e-6)
    np.testing.assert_allclose(fitted.mean, expected.mean_)


def test_a_new_example_is_filled_in_by_least_squares() -> None:
    x = low_rank()
    fitted = IterativePCA.fit(x, 2)
    row = x[x.isnan().sum(1) == 2][0]
    known = ~row.isnan()
    scores = torch.linalg.lstsq(fitted.components.t()[known], (row - fitted.mean)[known]).solution
    expected = fitted.mean + scores @ fitted.components
    torch.testing.assert_close(fitted.fill(row[None])[0][~known], expected[~known], rtol=1e-3, atol=1e-3)


def test_errors_of_hidden_values_and_their_baselines(run: Callable[..., Path]) -> None:
    words = (*WINE, "dataset.missing=0.3", "epochs=2", "model.code_dim=2", "measures=imputation")
    trained = aetrain.load(run(*words))
    splits, metrics = trained.data, trained.metrics
    x, targets = splits.test.pixels.flatten(1), splits.test.targets
    assert isinstance(targets, Tensor)
    target, train = targets.flatten(1), splits.train.pixels.flatten(1)
    hidden = x.isnan()
    assert 0.25 < float(hidden.float().mean()) < 0.35
    assert 0.25 < float(train.isnan().float().mean()) < 0.35

    def rmse(filled: Tensor) -> float:
        return float((filled - target)[hidden].square().mean().sqrt())

    assert metrics["test/rmse"] == pytest.approx(rmse(trained.reconstruct(splits.test.pixels).flatten(1)), rel=1e-5)
    assert metrics["test/rmse_column_mean"] == pytest.approx(rmse(train.nanmean(0).expand_as(x)), rel=1e-5)
    filled = IterativePCA.fit(train, 2).fill(x)
    assert metrics["test/rmse_iterative_pca"] == pytest.approx(rmse(filled.float()), rel=1e-5)
    assert metrics["test/iterative_pca_components"] == 2
    chosen = run(*words, "measures.imputation.components=[1,2,12]", "epochs=0", name="chosen")
    best = json.loads((chosen / "metrics.json").read_text())
    assert best["test/iterative_pca_components"] in (1, 2), "12 components of 13 columns fit the noise"
    with pytest.raises(ConfigError, match=r"measures.imputation: .*held out: use dataset.missing=0.3"):
        run(*WINE, "measures=imputation", name="complete")


def test_iterative_pca_has_fewer_components_than_columns(run: Callable[..., Path]) -> None:
    """As many would span all examples: a missing value would stay the mean of its column."""
    for x in (low_rank(), low_rank(n=5, d=6, k=2)):
        assert len(IterativePCA.fit(x, 20).components) == min(x.shape) - 1
    wide = (*WINE, "dataset.missing=0.3", "epochs=0", "model.code_dim=20", "measures=imputation")
    metrics = json.loads((run(*wide) / "metrics.json").read_text())
    assert metrics["test/iterative_pca_components"] == 12
    assert metrics["test/rmse_iterative_pca"] != metrics["test/rmse_column_mean"]


def test_own_missing_values_are_not_counted(tmp_path: Path, run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(0, 1, (60, 3)).round(4)
    lines = ["a,b,c,colour", *(f"{a},{b},{c},{'rgb'[n % 3]}" for n, (a, b, c) in enumerate(numbers))]
    lines[3::4] = [",".join(["", *line.split(",")[1:3], ""]) for line in lines[3::4]]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    dataset = Table(path=str(tmp_path / "t.csv"), missing=0.4, test_fraction=0.5)
    test = dataset.load().test
    x = test.pixels.flatten(1)
    assert isinstance(test.targets, Tensor)
    target = test.targets.flatten(1)
    colour = x[:, 3:].isnan()
    assert torch.equal(colour.any(1), colour.all(1)), "the features of a category are hidden together"
    assert target[:, 0].isnan().any()
    counted = x.isnan() & ~target.isnan()
    words = [
        "dataset=table",
        f"dataset.path='{tmp_path / 't.csv'}'",
        "dataset.missing=0.4",
        "dataset.test_fraction=0.5",
    ]
    trained = aetrain.load(run(*words, *WINE[1:], "epochs=1"))
    error = (trained.reconstruct(trained.data.test.pixels).flatten(1) - target)[counted]
    assert trained.metrics["test/rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    assert trained.metrics["test/mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)


def test_hidden_together() -> None:
    columns = Columns((Column("a"), Column("c", ("x", "y", "z"))))
    examples = Examples(torch.zeros(500, 1, 1, 4), kind="vector")
    groups = torch.from_numpy(columns.column_of_feature)
    hidden = hide_values(examples, 0.3, Prepare(), 0, True, groups).pixels.flatten(1).isnan()
    assert torch.equal(hidden[:, 1:].any(1), hidden[:, 1:].all(1))
    assert 0.25 < float(hidden[:, 0].float().mean()) < 0.35
    assert 0.25 < float(hidden[:, 1].float().mean()) < 0.35
    assert not torch.equal(hidden[:, 0], hidden[:, 1])


def test_outliers_by_their_error(run: Callable[..., Path]) -> None:
    normal = "dataset.train_classes=[class 0,class 1]"
    trained = aetrain.load(run(*WINE, normal, "epochs=3", "model.code_dim=2", "measures=anomaly"))
    splits, metrics = trained.data, trained.metrics
    assert sorted(splits.train.classes.unique().tolist()) == [0, 1]
    train, x, is_outlier = splits.train.pixels.flatten(1), splits.test.pixels, splits.test.classes == 2
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5, err_msg="the scaling is that of the normal rows")
    errors = (trained.reconstruct(x) - x).square().flatten(1).sum(1)
    assert metrics["test/roc_auc"] == pytest.approx(roc_auc_score(is_outlier, errors))
    pca, rows = PCA(2).fit(train), x.flatten(1).numpy()
    errors = np.square(pca.inverse_transform(pca.transform(rows)) - rows).sum(1)
    assert metrics["test/roc_auc_pca"] == pytest.approx(roc_auc_score(is_outlier, errors), abs=1e-3)
    forest = IsolationForest(random_state=0).fit(train.numpy())
    assert metrics["test/roc_auc_forest"] == roc_auc_score(is_outlier, -forest.score_samples(rows))


def test_outliers_need_both_kinds() -> None:
    splits = Wine().load()
    with pytest.raises(ValueError, match=r"normal=null leaves no anomaly .* dataset.train_classes="):
        Anomaly().check_images(splits)
    with pytest.raises(ValueError, match=r"normal=\[class 9\]: no class 'class 9' in this data set: use 0 \(class 0\)"):
        Anomaly(normal=["class 9"]).check_images(splits)
    Anomaly(normal=["class 1"]).check_images(splits)
