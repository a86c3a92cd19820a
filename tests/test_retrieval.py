"""Retrieval of documents: by the cosine, beside latent semantic analysis, and by bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documents import write_documents
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics.pairwise import cosine_similarity

from aetrain import api
from aetrain.data.examples import Prepare
from aetrain.data.sparse_rows import SparseRows
from aetrain.evaluation.measures.baselines import nearest_by_bits
from aetrain.evaluation.measures.lsa import LSA
from aetrain.evaluation.measures.measure import EvalInputs, encode_all
from aetrain.evaluation.measures.retrieval import Retrieval, precision_at_k
from aetrain.runs import entry, train
from aetrain.runs.build import build

Array = np.ndarray[Any, Any]


@pytest.fixture
def inputs(tmp_path: Path) -> EvalInputs:
    """Return an untrained model of three units and 60 documents of three topics."""
    write_documents(tmp_path / "documents.csv")
    with (tmp_path / "documents.csv").open("a") as file:
        file.write("train,food,\n" * 12)  # documents without words are similar to none
    overrides = [
        *("dataset=text", f"dataset.path={tmp_path / 'documents.csv'}", "dataset.words=30", "dataset.weighting=tfidf"),
        *("model.hidden=[8]", "model.code_dim=3", "views=none", "device=cpu", "likelihood=gaussian"),
    ]
    config, _, full_overrides = api.compose_config(overrides)
    components = build(entry.check(config, full_overrides))
    splits = components.dataset.load()
    return EvalInputs(
        components.model.eval(),
        components.objective,
        components.noise,
        splits,
        components.dataset.prepare,
        components.make_untrained,
        components.seed,
        train.fit_pca_baseline(components, splits),
    )


def by_cosine(test: Array, train: Array, labels: tuple[Array, Array], k: int) -> float:
    """Return the precision at k in %, by scikit-learn's cosines."""
    order = (-cosine_similarity(test, train)).argsort(1)[:, :k]
    return float(100 * (labels[1][order] == labels[0][:, None]).mean())


def test_documents_are_compared_by_the_cosine_of_code_words_and_lsa(inputs: EvalInputs) -> None:
    metrics = Retrieval(at=[4], queries=None, lsa=[5])(inputs)
    train, test = inputs.splits.train, inputs.splits.test
    assert isinstance(train.values, SparseRows)
    assert isinstance(test.values, SparseRows)
    x, y = (values.dense().flatten(1).numpy() for values in (train.values, test.values))
    labels = (test.classes.numpy(), train.classes.numpy())
    test_codes, train_codes = (encode_all(inputs.model, split, inputs.prepare).numpy() for split in (test, train))
    assert metrics["precision_4"] == pytest.approx(by_cosine(test_codes, train_codes, labels, 4))
    assert metrics["precision_4_input"] == pytest.approx(by_cosine(y, x, labels, 4))
    for suffix, size in (("lsa", 3), ("lsa_5", 5)):
        svd = TruncatedSVD(size, algorithm="arpack", random_state=1).fit(x)
        expected = by_cosine(svd.transform(y), svd.transform(x), labels, 4)
        assert metrics[f"precision_4_{suffix}"] == pytest.approx(expected), suffix
    assert set(metrics) == {f"precision_4{suffix}" for suffix in ("", "_input", "_pca", "_lsa", "_lsa_5")}
    euclidean = Retrieval(at=[4], queries=None, distance="euclidean")(inputs)
    assert euclidean["precision_4"] != metrics["precision_4"]
    assert euclidean["precision_4_pca"] != metrics["precision_4_pca"]


def test_lsa_is_the_singular_value_decomposition(inputs: EvalInputs) -> None:
    train = inputs.splits.train
    assert isinstance(train.values, SparseRows)
    dense = train.values.dense()
    _, _, rows = torch.linalg.svd(dense.flatten(1).double(), full_matrices=False)
    lsa = LSA.fit(train, 6, Prepare())
    torch.testing.assert_close((lsa.components.double() @ rows[:6].t()).abs(), torch.eye(6).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(lsa.first(2).encode(train, Prepare()), dense.flatten(1) @ lsa.components[:2].t())
    assert len(LSA.fit(train, 1000, Prepare()).components) == min(dense.flatten(1).shape) - 1


def test_bits_are_compared_by_the_hamming_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries = (torch.rand(count, 9, generator=generator) > 0.5 for count in (300, 70))
    distances = (queries[:, None] != rows[None]).sum(2)
    expected = distances.argsort(dim=1, stable=True)[:, :40]
    assert torch.equal(nearest_by_bits(queries, rows, 40, batch_size=32), expected)


def test_a_binary_code_is_a_code_above_its_mean(inputs: EvalInputs) -> None:
    metrics = Retrieval(at=[4], queries=None, lsa=[], binary=True)(inputs)
    train, test = inputs.splits.train, inputs.splits.test
    codes = [encode_all(inputs.model, split, inputs.prepare) for split in (test, train)]
    bits = [code > codes[1].mean(0) for code in codes]
    retrieved = train.classes[(bits[0][:, None] != bits[1][None]).sum(2).argsort(dim=1, stable=True)]
    assert metrics["precision_4_binary"] == pytest.approx(100 * precision_at_k(retrieved, test.classes, 4))


def test_components_of_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lsa=\[0\] has no components"):
        Retrieval(lsa=[0])
