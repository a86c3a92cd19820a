"""Recommendations: recall and NDCG of held-out users, their baselines, and mode=recommend."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_ratings import random_table, write

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.evaluation.measures.recommendation import ndcg, rank_items, recall
from aetrain.report.page import write_report
from aetrain.runs import entry

SMALL = ("model.hidden=[]", "model.code_dim=3", "epochs=1", "views=none", "device=cpu", "batch_size=8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with 400 ratings of 30 users and 40 items; user `single` has one more."""
    table = random_table(30, 40, 400)
    rows = zip(table.users, table.items, table.values, strict=True)
    lines = [f"u{user},film {item},{value}\n" for user, item, value in rows]
    return write(tmp_path / "ratings.csv", "".join([*lines, "single,film 3,5\n"]))


def test_recall_and_ndcg_are_those_of_liang() -> None:
    rng = np.random.default_rng(0)
    scores, seen, hidden = rng.random((9, 12)), rng.random((9, 12)) < 0.2, rng.random((9, 12)) < 0.4
    hidden &= ~seen
    hidden[:, 0], seen[:, 0] = True, False
    ranked = rank_items(torch.tensor(scores), torch.tensor(seen).float(), 12)
    hits, counts = torch.tensor(hidden).gather(1, ranked).double(), torch.tensor(hidden.sum(1))
    for k in (1, 3, 12):
        recalls, gains = [], []
        for user in range(9):
            order = [item for item in np.argsort(-scores[user]) if not seen[user, item]][:k]
            wanted = set(np.flatnonzero(hidden[user]))
            recalls.append(len(wanted & set(order)) / min(k, len(wanted)))
            gain = sum(1 / math.log2(rank + 2) for rank, item in enumerate(order) if item in wanted)
            gains.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(wanted)))))
        assert recall(hits, counts, k).tolist() == pytest.approx(recalls)
        assert ndcg(hits, counts, k).tolist() == pytest.approx(gains)


def test_ndcg_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(1)
    scores, hidden = rng.random((5, 30)), rng.random((5, 30)) < 0.3
    ranked = rank_items(torch.tensor(scores), torch.zeros(5, 30), 10)
    hits = torch.tensor(hidden).gather(1, ranked).double()
    mean = float(ndcg(hits, torch.tensor(hidden.sum(1)), 10).mean())
    assert mean == pytest.approx(ndcg_score(hidden.astype(float), scores, k=10))


def test_measure_has_the_model_and_its_baselines(file: Path, run: Callable[..., Path]) -> None:
    data = ("dataset=ratings", f"dataset.path={file}", "dataset.implicit=true", "dataset.threshold=2")
    directory = run(
        *data, "dataset.test_fraction=0.3", "measures=recommendation", "measures.recommendation.recall_at=[5]", *SMALL
    )
    trained = api.load(directory)
    assert trained.config.likelihood._target_.endswith("Multinomial")
    metrics = trained.metrics
    splits = trained.dataset.load()
    x, test = (part.values.matrix.toarray() for part in (splits.train, splits.test))  # type: ignore[union-attr]
    assert splits.test.targets is not None
    hidden = splits.test.targets.matrix.toarray() > 0  # type: ignore[union-attr]
    vectors = np.linalg.svd(x, full_matrices=False)[2][:3]
    scores = {
        "": trained.reconstruct(test.astype(np.float32)).reshape(len(test), -1),
        "_popularity": np.tile(x.sum(0) - 1e-6 * np.arange(x.shape[1]), (len(test), 1)),
        "_svd": test @ vectors.T @ vectors,
    }
    for suffix, score in scores.items():
        score = np.where(test > 0, -np.inf, score)
        top = np.argsort(-score, kind="stable")[:, :5]
        own = [hidden[user, top[user]].sum() / min(5, hidden[user].sum()) for user in range(len(test))]
        if suffix != "_popularity":  # equal counts are ranked in any order
            assert metrics[f"test/recall_5{suffix}"] == pytest.approx(np.mean(own), abs=1e-6)
        assert 0 <= metrics[f"test/ndcg_100{suffix}"] <= 1


def test_hidden_items_have_no_baselines_of_pca_and_the_mean(file: Path, run: Callable[..., Path]) -> None:
    """They reconstruct the items that a user is known to have, and predict none of the hidden ones."""
    data = ("dataset=ratings", f"dataset.path={file}", "dataset.implicit=true", "dataset.threshold=2")
    directory = run(*data, "dataset.test_fraction=0.3", *SMALL)
    metrics = api.load(directory).metrics
    assert metrics["test/sse"] > 0
    assert not {"test/pca_sse", "test/mean_sse"} & metrics.keys()
    page, _ = write_report(directory, directory)
    assert "with as many units has" not in page.read_text()


def test_measure_refuses_ratings_that_are_not_implicit(file: Path, run: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"measures\.recommendation.*dataset\.implicit=true"):
        run("dataset=ratings", f"dataset.path={file}", "measures=recommendation", *SMALL)


@pytest.mark.parametrize("settings", [["rows=users"], ["rows=items"], ["implicit=true", "threshold=2"]])
def test_mode_recommend_lists_rated_and_new_items(
    settings: list[str], file: Path, run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    directory = run("dataset=ratings", f"dataset.path={file}", *(f"dataset.{text}" for text in settings), *SMALL)
    known = {
        name: float(value)
        for user, name, value in (line.split(",") for line in file.read_text().splitlines())
        if user == "u4"
    }
    caplog.set_level(logging.INFO)
    result = recommend(directory, "u4")
    if "implicit=true" not in settings:
        best = sorted(known.values(), reverse=True)[:10]
        assert [known[name] for name in result["rated"]] == best
        predicted = [float(line.split()[0]) for line in caplog.records[-1].getMessage().splitlines()[2:]]
        assert predicted == sorted(predicted, reverse=True)
        assert all(0.5 <= rating <= 5 for rating in predicted)
    assert len(result["recommended"]) == 10
    assert not set(result["recommended"]) & set(known)
    if "implicit=true" not in settings:
        assert recommend(directory, "single")["rated"] == ["film 3"]
    with pytest.raises(ConfigError, match=r"user=nobody: there is no such user in the ratings: use one of "):
        recommend(directory, "nobody")


def recommend(directory: Path, user: str) -> dict[str, Any]:
    return entry.run(*api.compose_config(["mode=recommend", f"run='{directory}'", f"user={user}", "device=cpu"]))
