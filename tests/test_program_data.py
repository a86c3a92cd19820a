"""Data of a program in Python: arrays, frames, sparse matrices and tensors as data sets of a run, and its results."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.table import Table
from aetrain.data.vector_dataset import VectorDataset

SMALL = ("epochs=1", "batch_size=16", "views=none", "device=cpu", "model=deep", "model.hidden=[8]", "model.code_dim=2")
RNG = np.random.default_rng(0)
X = RNG.normal(50, 10, (60, 4))
LABELS = np.array(["low", "high"])[(X[:, 0] > 50).astype(int)]
FRAME = pd.DataFrame({"age": X[:, 0], "colour": RNG.choice(["red", "blue"], 60), "kind": LABELS})


@pytest.fixture(scope="module")
def frame_run(tmp_path_factory: pytest.TempPathFactory) -> aetrain.Trained:
    """A run on a frame with a missing number and a missing category."""
    frame = FRAME.copy()
    frame.loc[3, "age"] = np.nan
    frame.loc[4, "colour"] = None
    return aetrain.run(SMALL, directory=tmp_path_factory.mktemp("frame"), data=frame, dataset={"label": "kind"})


def test_arrays_and_tensors_are_one_data_set(tmp_path: Path) -> None:
    run = aetrain.run(SMALL, directory=tmp_path / "a", data=X, labels=LABELS)
    again = aetrain.run(SMALL, directory=tmp_path / "b", data=torch.from_numpy(X), labels=pd.Series(LABELS))
    assert run.metrics["test/loss"] == again.metrics["test/loss"]
    assert run.data.describe() == "54 training and 6 test examples of 4 features, 2 classes (high, low)"
    assert run.data.train.feature_names == ("x1", "x2", "x3", "x4")
    codes, back = run.encode(X), run.reconstruct(X)
    assert type(codes) is np.ndarray
    assert codes.shape == (60, 2)
    assert abs(back - X).mean() < 20, "in the units of X"
    np.testing.assert_allclose(run.decode(codes), back, rtol=1e-5)
    np.testing.assert_allclose(run.encode(X[0]), codes[0], atol=1e-6)
    np.testing.assert_allclose(run.encode(torch.from_numpy(X)), codes, atol=1e-6)
    np.testing.assert_allclose(run.encode(scipy.sparse.csr_array(X)), codes, atol=1e-6)
    values, rows = run.data.test.pixels, run.data.test.rows
    assert rows is not None
    np.testing.assert_allclose(run.encode(values), codes[rows], atol=1e-5, err_msg="examples of the run are scaled")
    assert run.reconstruct(values).shape == values.shape
    hole = X[:2].copy()
    hole[0, 1] = np.nan
    mean = X.copy()[:2]
    assert isinstance(run.dataset, VectorDataset)
    mean[0, 1] = run.dataset.inverse(torch.zeros(1, 4)).iloc[0, 1]
    np.testing.assert_allclose(run.encode(hole), run.encode(mean), atol=1e-5, err_msg="a missing value is the mean")


def test_large_numbers_keep_their_digits(tmp_path: Path) -> None:
    """float32 has steps of 128 at this size."""
    times = 1.7e9 + RNG.uniform(0, 200, (60, 1)) + np.array([[0.0, 1000]])
    run = aetrain.run(SMALL, directory=tmp_path / "run", data=times)
    codes, values, rows = run.encode(times), run.data.test.pixels, run.data.test.rows
    assert rows is not None
    np.testing.assert_allclose(run.encode(values), codes[rows], atol=1e-5)
    assert isinstance(run.dataset, VectorDataset)
    expected = run.dataset.inverse(run.reconstruct(values)).to_numpy()
    for back in (run.reconstruct(times)[rows], run.decode(codes.astype(np.float64))[rows]):
        assert back.dtype == np.float64
        np.testing.assert_allclose(back - 1.7e9, expected - 1.7e9, atol=0.1)
    assert run.reconstruct(times.astype(np.float32)).dtype == np.float32


def test_masked_values_are_missing(tmp_path: Path) -> None:
    masked = np.ma.masked_array(np.where(X > 60, 1e20, X), mask=X > 60)
    run = aetrain.run(SMALL, directory=tmp_path / "a", data=masked)
    again = aetrain.run(SMALL, directory=tmp_path / "b", data=np.where(X > 60, np.nan, X))
    assert run.metrics["test/loss"] == again.metrics["test/loss"]
    np.testing.assert_array_equal(run.encode(masked), run.encode(np.where(X > 60, np.nan, X)))
    whole = np.ma.masked_array(X, mask=False)
    np.testing.assert_array_equal(run.encode(whole), run.encode(X))


def test_objects_that_are_numbers_are_numbers(tmp_path: Path) -> None:
    frame = FRAME[["age", "colour"]].assign(price=[Decimal(str(round(x, 2))) for x in X[:, 1]], big=2**70)
    frame.loc[3, "age"] = np.nan
    run = aetrain.run(SMALL, directory=tmp_path / "run", data=frame.T.T)
    assert run.data.train.feature_names == ("age", "colour=blue", "colour=red", "price", "big")
    assert isinstance(run.dataset, VectorDataset)
    np.testing.assert_allclose(
        run.dataset.inverse(run.data.train.pixels)["price"], X[run.data.train.rows, 1], atol=0.01
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(2)[(X[:, 0] > 50).astype(int)], r"labels has the shape \[60, 2\]: use one label for each example"),
        (np.array([None, *LABELS[1:]]), r"labels has no label for example 0 \(train, counted from 0\): add it"),
        (pd.Series(LABELS).where(pd.Series(LABELS) == "low"), "labels has no label for example"),
        (np.where(X[:, 0] > 50, 1.0, np.nan), "labels has no label for example"),
        ("low", "labels has the value low for 60 examples"),
    ],
)
def test_labels_are_one_for_each_example(labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        aetrain.run(SMALL, directory=tmp_path / "run", data=X, labels=labels)


def test_labels_in_a_column_are_accepted(tmp_path: Path) -> None:
    run = aetrain.run(SMALL, directory=tmp_path / "run", data=torch.from_numpy(X).bfloat16(), labels=LABELS[:, None])
    assert run.data.describe().endswith("2 classes (high, low)")


def test_a_run_is_loaded_without_its_data(tmp_path: Path) -> None:
    run = aetrain.run(SMALL, directory=tmp_path / "run", data={"train": X[:40], "test": X[40:]})
    loaded = aetrain.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.encode(X), run.encode(X))
    with pytest.raises(
        ConfigError, match=r"arrays of a program in Python: pass them again.*aetrain.load\(run, data=X\)"
    ):
        _ = loaded.data
    data = {"train": X[:40], "test": X[40:]}
    assert len(aetrain.load(tmp_path / "run", data=data).data.test) == 20
    evaluated = aetrain.run([f"run={tmp_path / 'run'}", "mode=eval"], data=data)
    assert evaluated.metrics["test/sse"] == run.metrics["test/sse"]
    with pytest.warns(UserWarning, match="trained on other data: 20 test examples then, 4 now"):
        _ = aetrain.load(tmp_path / "run", data={"train": X[:40], "test": X[:4]}).data
    longer = aetrain.run([f"resume={tmp_path / 'run'}", "epochs=2"], data=data)
    assert longer.metrics["epochs"] == 2
    with pytest.raises(ConfigError, match="arrays of a program in Python"):
        aetrain.run([*SMALL, "dataset=array"], directory=tmp_path / "none")


def test_frames_keep_their_columns_and_units(frame_run: aetrain.Trained, tmp_path: Path) -> None:
    assert frame_run.data.train.feature_names == ("age", "colour=blue", "colour=red")
    frame = FRAME.set_index(pd.Index([f"row{n}" for n in range(60)]))[["colour", "kind", "age"]]
    codes, back = frame_run.encode(frame), frame_run.reconstruct(frame)
    assert list(codes.index) == list(back.index) == list(frame.index)
    assert list(back.columns) == ["age", "colour"]
    assert set(back.colour) <= {"red", "blue"}
    assert abs(back.age - frame.age).mean() < 20
    pd.testing.assert_frame_equal(frame_run.decode(codes), back, rtol=1e-4)
    with pytest.raises(ValueError, match="column 'age' is missing; did you mean 'aged'"):
        frame_run.encode(frame.rename(columns={"age": "aged"}))
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    table = Table(path=str(tmp_path / "t.csv"), label="kind")
    array = aetrain.run(SMALL, directory=tmp_path / "run", data=FRAME, dataset={"label": "kind"})
    assert torch.equal(table.load().test.pixels, array.data.test.pixels), "a frame is the table of its file"


def test_sparse_matrices_stay_sparse(tmp_path: Path) -> None:
    matrix = scipy.sparse.random(60, 30, 0.2, format="csr", random_state=0)
    run = aetrain.run(SMALL, directory=tmp_path / "run", data=matrix)
    assert isinstance(run.data.train.values, SparseRows)
    np.testing.assert_allclose(run.encode(matrix), run.encode(matrix.toarray()), atol=1e-6)
    with pytest.raises(
        ConfigError, match=r"dataset.scaling=standard would fill a sparse matrix: use dataset.scaling=none"
    ):
        aetrain.run(SMALL, directory=tmp_path / "no", data=matrix, dataset={"scaling": "standard"})


@pytest.mark.parametrize(
    "images", [RNG.integers(0, 256, (30, 8, 8), np.uint8), RNG.random((30, 8, 8, 3)), torch.rand(30, 1, 8, 8)]
)
def test_images_of_a_program(images: Any, tmp_path: Path) -> None:
    run = aetrain.run(SMALL, directory=tmp_path, data=images, labels=np.arange(30) % 3, likelihood="gaussian")
    shape = run.model.image_shape
    assert shape == ((3, 8, 8) if images.ndim == 4 and images.shape[-1] == 3 else (1, 8, 8))
    splits = run.data
    assert (len(splits.train), len(splits.test), splits.train.num_classes) == (27, 3, 3)
    assert splits.test.rows is not None
    scale = 1 if images.dtype == np.uint8 else 255
    expected = torch.as_tensor(images)[splits.test.rows] * scale
    expected = expected.movedim(-1, 1) if images.shape[-1] == 3 else expected
    assert torch.equal(splits.test.pixels, expected.double().round().to(torch.uint8).reshape(-1, *shape))
    assert aetrain.load(tmp_path).encode(images).shape == (30, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": X, "labels": LABELS[:5]}, r"labels has 5 entries for 60 examples \(train\)"),
        ({"data": {"train": X, "holdout": X}}, "data has the key 'holdout': use train, test, validation"),
        ({"data": {"test": X}}, "data has no key 'train'"),
        ({"data": {"train": X, "test": X}, "labels": LABELS}, "labels are of train, but data of train, test"),
        ({"data": {"train": X, "test": X[:, :2]}}, "data has rows of the shapes"),
        ({"data": np.array([["a", "b"]] * 9)}, r"data is .*: use numbers \[N, D\]"),
        ({"data": np.where(X > 60, np.inf, X)}, "column 'x1', data row .* is inf"),
        ({"data": np.zeros((9, 4, 4, 2))}, r"data has the shape \[9, 4, 4, 2\]: use images"),
        ({"data": X.reshape(10, 6, 4)}, "data has values from .*: use images .* with floats in"),
        ({"data": FRAME, "labels": LABELS, "dataset": {"label": "kind"}}, "both name the labels: use one"),
        (
            {"data": FRAME.assign(when=pd.Timestamp(0))},
            r"column 'when' has entries of the type datetime.*drop=\[when\]",
        ),
    ],
)
def test_bad_data_is_one_message(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        aetrain.run(SMALL, directory=tmp_path, **arguments)


def test_bad_vectors_are_refused(frame_run: aetrain.Trained) -> None:
    for x in (np.zeros((2, 5)), np.zeros((2, 3), complex), np.array([["a", "b", "c"]])):
        with pytest.raises(
            ValueError, match=r"x has the shape .*: use numbers \[N, 3\], or a DataFrame with the columns"
        ):
            frame_run.encode(x)
    with pytest.raises(ValueError, match="x has infinite values"):
        frame_run.encode(np.full((1, 3), np.inf))
