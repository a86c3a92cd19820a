"""Tables of numbers that stay in their .npy file: the same values, figures and messages as in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data import mapped_vectors, scaling
from aetrain.data.examples import Examples
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.table import Table

LINEAR = ("model=linear", "model.code_dim=2", "epochs=2", "batch_size=16", "views=none", "device=cpu", "dataset=table")


def numbers(missing: bool = False, seed: int = 0) -> np.ndarray:
    """Return correlated numbers [60, 5] of different scales, the last one a label of three classes."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)) * [1, 10, 100, 1e-3, 1] + [0, 5, 1e4, 0, 0]
    x[:, 4] = random.integers(0, 3, 60)
    if missing:
        x[:, :4][random.random((60, 4)) < 0.1] = np.nan
    return x


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of an .npy file."""
    return str(tmp_path / "x.npy")


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Map files of any size, and read 7 rows and 2 columns at a time."""
    monkeypatch.setattr(mapped_vectors, "MIN_MAPPED_BYTES", 0)
    monkeypatch.setattr(mapped_vectors, "CHUNK_SIZE", 7)
    monkeypatch.setattr(scaling, "MAX_VALUES", 120)
    return monkeypatch


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "bool"])
@pytest.mark.parametrize("scaler", ["standard", "minmax", "robust", "none"])
def test_mapped_values_are_those_in_memory(dtype: str, scaler: Any, path: str, all_mapped: pytest.MonkeyPatch) -> None:
    np.save(path, numbers(missing=dtype.startswith("float")).clip(-9e3, 9e3).astype(dtype))
    settings: dict[str, Any] = {"path": path, "scaling": scaler, "validation": 10}
    if dtype != "bool":
        settings |= {"label": "x5", "drop": ["x2"]}
    mapped_set = Table(**settings)
    mapped = mapped_set.load()
    all_mapped.setattr(mapped_vectors, "MIN_MAPPED_BYTES", 2**20)
    stored_set = Table(**settings)
    stored = stored_set.load()
    assert mapped_set.has_missing == stored_set.has_missing
    assert mapped_set.columns.feature_names == stored_set.columns.feature_names
    for a, b in zip(
        (mapped.train, mapped.validation, mapped.test), (stored.train, stored.validation, stored.test), strict=True
    ):
        assert isinstance(a.values, MappedRows)
        assert a.values.dtype == torch.float32
        assert isinstance(b.values, torch.Tensor)
        torch.testing.assert_close(a.pixels, b.values, equal_nan=True, rtol=1e-6, atol=1e-6)
        assert_same_labels(a, b)


def assert_same_labels(a: Examples, b: Examples) -> None:
    """Check that examples have the same classes and names."""
    assert (a.labels is None) == (b.labels is None)
    if a.labels is not None and b.labels is not None:
        assert torch.equal(a.labels, b.labels)
    assert a.class_names == b.class_names
    assert a.feature_names == b.feature_names


@pytest.mark.parametrize("missing", [False, True])
def test_a_run_on_a_mapped_table_is_that_in_memory(
    missing: bool, path: str, tmp_path: Path, all_mapped: pytest.MonkeyPatch
) -> None:
    np.save(path, numbers(missing))
    runs = {}
    for name, min_bytes in (("mapped", 0), ("memory", 2**20)):
        all_mapped.setattr(mapped_vectors, "MIN_MAPPED_BYTES", min_bytes)
        overrides = [*LINEAR, f"dataset.path={path}", "dataset.label=x5", "measures=anomaly", "dataset.validation=6"]
        overrides += ["dataset.train_classes=[0,1]", "dataset.test_fraction=0.4"]
        runs[name] = aetrain.run(overrides, directory=tmp_path / name)
    assert runs["mapped"].metrics["epochs"] == 2
    test = {key: value for key, value in runs["memory"].metrics.items() if key.startswith(("test/", "validation/"))}
    assert len(test) > 10
    for key, value in test.items():
        if "seconds" not in key:
            assert runs["mapped"].metrics[key] == pytest.approx(value, rel=1e-4), key
    all_mapped.setattr(mapped_vectors, "MIN_MAPPED_BYTES", 0)
    resumed = aetrain.run([f"resume={tmp_path / 'mapped'}", "epochs=3"])
    assert resumed.metrics["epochs"] == 3
    np.save(path, numbers(missing, seed=1))
    with pytest.raises(ConfigError, match="values"):
        aetrain.run([f"resume={tmp_path / 'mapped'}", "epochs=4"])


def test_arrays_of_a_program_stay_in_their_files(tmp_path: Path) -> None:
    x = numbers(missing=True)[:, :4]
    splits = {"train": x[:40], "test": x[40:]}
    for name, values in splits.items():
        np.save(tmp_path / f"{name}.npy", values)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in splits}
    settings = [setting for setting in LINEAR if not setting.startswith("dataset")]
    run = aetrain.run(settings, data=mapped, directory=tmp_path / "mapped")
    other = aetrain.run(settings, data=splits, directory=tmp_path / "memory")
    assert isinstance(run.data.test.values, MappedRows)
    assert run.metrics["test/sse"] == pytest.approx(other.metrics["test/sse"], rel=1e-5)
    np.testing.assert_allclose(run.encode(x[:5]), other.encode(x[:5]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "value", "settings", "message"),
    [
        (40, np.inf, {}, "column 'x3', data row 41 is inf"),
        (40, 1e300, {"scaling": "none"}, "too large for 32-bit floats"),
        (slice(None), np.nan, {}, "column 'x3' has no value in a training row"),
        (0, 0, {"drop": ["x9"]}, "no column 'x9' for dataset.drop"),
        (0, 0, {"label": "x9"}, "no column 'x9' for dataset.label"),
        (3, np.nan, {"label": "x3"}, r"column 'x3' \(dataset.label\) is empty in data row 4"),
        (0, 0, {"drop": ["x1", "x2", "x3", "x4", "x5"]}, "no columns"),
    ],
)
def test_bad_values_are_the_messages_of_a_table_in_memory(
    row: Any, value: float, settings: Any, message: str, path: str, all_mapped: pytest.MonkeyPatch
) -> None:
    x = numbers()
    x[row, 2] = value
    np.save(path, x)
    for min_bytes in (0, 2**20):
        all_mapped.setattr(mapped_vectors, "MIN_MAPPED_BYTES", min_bytes)
        with pytest.raises(ValueError, match=message):
            Table(path=path, **settings).load()


def test_a_constant_column_is_a_warning(path: str, all_mapped: pytest.MonkeyPatch) -> None:
    x = numbers()
    x[:, 1] = 3
    np.save(path, x)
    dataset = Table(path=path)
    dataset.load()
    assert dataset.warnings == ["constant in all training rows: x2"]


def test_a_damaged_file_and_no_table_are_the_messages_of_the_reader(path: str, all_mapped: pytest.MonkeyPatch) -> None:
    np.save(path, numbers())
    Path(path).write_bytes(Path(path).read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read"):
        Table(path=path).load()
    np.save(path, np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match="for images use dataset=npz"):
        Table(path=path).load()
