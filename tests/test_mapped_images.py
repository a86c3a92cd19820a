"""Images that stay in a file: the cache of a folder, arrays in .npy files, and runs that are the same as in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from sklearn.datasets import load_digits

import aetrain
from aetrain.data import examples, image_cache
from aetrain.data import folder as folder_module
from aetrain.data.array_dataset import ImagesOfArray
from aetrain.data.digests import digest_data
from aetrain.data.examples import Batches, Examples, Prepare, Splits, in_order, with_targets
from aetrain.data.folder import Folder
from aetrain.data.image_reader import ImageReader
from aetrain.data.mapped_rows import MappedArray, MappedRows, join_mapped, largest_value
from aetrain.data.npz import Npz
from aetrain.data.program_data import passing

COUNT = 60


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's first digits as bytes [N, 8, 8], and their classes."""
    digits = load_digits()
    return (digits.images[:COUNT] / 16 * 255).astype("uint8"), digits.target[:COUNT]


@pytest.fixture
def digits_folder(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    """A folder of these digits with a folder for each class."""
    for number, (pixels, label) in enumerate(zip(*images, strict=True)):
        path = tmp_path / "digits" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "digits"


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Folder]:
    """Return a function that makes a data set of a folder with a cache, however small it is."""
    monkeypatch.setattr(folder_module, "MIN_CACHE_BYTES", 1)
    return lambda path, **settings: Folder(path=str(path), size=8, data_dir=str(tmp_path / "data"), **settings)


def assert_equal(mapped: Splits, stored: Splits) -> None:
    """Check that splits are equal, the ones mapped and the others in memory."""
    for name in ("train", "validation", "test"):
        a, b = getattr(mapped, name), getattr(stored, name)
        assert isinstance(a.values, MappedRows)
        assert isinstance(b.values, torch.Tensor)
        assert a.values.shape == b.values.shape
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.classes, b.classes)
        assert torch.equal(a.rows, b.rows)
        assert a.names == b.names


# --- Rows -------------------------------------------------------------------------------------------------------------


def mapped_rows(count: int, start: int = 0) -> MappedRows:
    pixels = (np.arange(count * 4) + start).astype(np.uint8).reshape(count, 1, 2, 2)
    return MappedRows.of(MappedArray(pixels, f"{start}"), (1, 2, 2))


def test_rows_are_selected_as_those_of_a_tensor() -> None:
    rows = mapped_rows(10)
    stored, index = rows.dense(), torch.tensor([7, 0, 3])
    assert rows.shape == stored.shape
    assert torch.equal(rows[index].dense(), stored[index])
    assert torch.equal(rows[2:5][1:].dense(), stored[3:5])
    assert torch.equal(rows.index_select(0, index)[index.argsort()].dense(), stored[index.sort().values])
    assert [len(part) for part in rows.split(4)] == [4, 4, 2]


def test_arrays_are_joined_without_a_copy() -> None:
    first, second = mapped_rows(4), mapped_rows(3, start=100)
    parts = [second[torch.tensor([2, 0])], first[1:3], join_mapped([first[:1], second[:1]])]
    joined = join_mapped(parts)
    assert len(joined.arrays) == 2
    assert torch.equal(joined.dense(), torch.cat([part.dense() for part in parts]))


def test_largest_value_reads_no_more_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = MappedArray.read
    monkeypatch.setattr("aetrain.data.mapped_rows.CHUNK_SIZE", 2)

    def count(self: MappedArray, rows: np.ndarray) -> np.ndarray:
        reads.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(MappedArray, "read", count)
    assert largest_value(mapped_rows(10), enough=9) == 15
    assert reads == [2, 2]
    assert largest_value(mapped_rows(10), enough=255) == 39


def test_batches_of_mapped_rows_are_those_of_a_tensor() -> None:
    rows = mapped_rows(10)
    for prepare in (Prepare(), Prepare(dynamic=True), Prepare(random_crop=1)):
        batches = []
        for values in (rows, rows.dense()):
            torch.manual_seed(0)
            batches.append([*Batches(Examples(values), 3, prepare), *in_order(Examples(values), 4, prepare)])
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


# --- The cache of a folder --------------------------------------------------------------------------------------------


def test_batches_of_large_images_in_evaluation_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(7 * 12, dtype=torch.uint8).view(7, 3, 2, 2)
    small = [*in_order(Examples(values), 5, Prepare())]
    assert [len(x) for x in small] == [5, 2]
    for max_values, sizes in ((30, [2, 2, 2, 1]), (11, [1] * 7)):
        monkeypatch.setattr(examples, "MAX_BATCH_VALUES", max_values)
        large = [*in_order(Examples(values), 5, Prepare())]
        assert [len(x) for x in large] == sizes
        assert torch.equal(torch.cat(large), torch.cat(small))
        pairs = [*with_targets(Examples(values, targets=255 - values), 5, Prepare())]
        assert [len(x) for x, _ in pairs] == [len(target) for _, target in pairs] == sizes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"validation": 9, "test_fraction": 0.3, "binarize": "threshold"},
        {"classes": [3, 8, 1], "subset": 7, "channels": 3, "binarize": "static"},
    ],
)
def test_a_cached_folder_is_that_in_memory(
    settings: dict[str, Any], digits_folder: Path, cached: Callable[..., Folder]
) -> None:
    dataset = cached(digits_folder, **settings)
    mapped, stored = dataset.load(), Folder(path=str(digits_folder), size=8, **settings).load()
    if settings.get("binarize") == "static":  # is drawn once, in memory
        assert torch.equal(mapped.train.pixels, stored.train.pixels)
    else:
        assert_equal(mapped, stored)
    assert torch.equal(dataset.load_all().pixels, Folder(path=str(digits_folder), size=8, **settings).load_all().pixels)
    if "binarize" not in settings:
        assert digest_data(mapped).files == digest_data(stored).files


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list to which every decoded file is added."""
    paths: list[Path] = []
    decode = ImageReader.__call__

    def count(self: ImageReader, path: Path) -> np.ndarray:
        paths.append(path)
        return decode(self, path)

    monkeypatch.setattr(ImageReader, "__call__", count)
    return paths


def test_a_folder_is_decoded_once_until_it_changes(
    digits_folder: Path, cached: Callable[..., Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = count_decoded(monkeypatch)
    first, second = cached(digits_folder, channels=1), cached(digits_folder, test_fraction=0.5)
    first.load()
    second.load()
    assert len(paths) == COUNT
    assert second.conversions == first.conversions
    cached(digits_folder, channels=3).load()
    assert len(paths) == 2 * COUNT
    before = digest_data(cached(digits_folder).load())
    file = next(digits_folder.rglob("*.png"))
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(file)
    changed = digest_data(cached(digits_folder).load()).describe_change(before)
    assert changed == f"1 file was changed ({file.relative_to(digits_folder)})"
    assert len(paths) == 3 * COUNT
    assert len([*(tmp_path / "data" / "decoded").iterdir()]) == 3


def test_small_folders_have_no_cache(digits_folder: Path, tmp_path: Path) -> None:
    Folder(path=str(digits_folder), size=8, data_dir=str(tmp_path / "data")).load()
    assert not (tmp_path / "data").exists()


def test_a_cache_is_written_as_a_whole_or_not_at_all(
    digits_folder: Path, cached: Callable[..., Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digits_folder / "3" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 61 images cannot be read: remove it; the first is .*broken\.png"):
        cached(digits_folder).load()
    assert not (tmp_path / "data").exists()
    (digits_folder / "3" / "broken.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(image_cache.ImageDecoder, "check", lambda self, source: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cached(digits_folder).load()
    assert not (tmp_path / "data").exists()
    cached(digits_folder).load()


@pytest.mark.parametrize("name", ["pixels.npy", "checksums.npy", "reader.json"])
def test_a_damaged_cache_is_made_again(
    name: str, digits_folder: Path, cached: Callable[..., Folder], tmp_path: Path
) -> None:
    expected = digest_data(cached(digits_folder).load())
    (cache,) = (tmp_path / "data" / "decoded").iterdir()
    content = (cache / name).read_bytes()
    (cache / name).write_bytes(content[: len(content) // 2])
    assert digest_data(cached(digits_folder).load()) == expected
    assert (cache / name).read_bytes() == content


def test_a_data_dir_that_cannot_be_written_is_one_message(
    digits_folder: Path, cached: Callable[..., Folder], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ValueError, match=r"data_dir='.*' cannot take the decoded images .*: set data_dir"):
        cached(digits_folder).load()


def test_a_run_on_a_cache_is_that_in_memory(
    digits_folder: Path, tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (
        *("dataset=folder", f"dataset.path='{digits_folder}'", "dataset.size=8", f"data_dir='{tmp_path / 'data'}'"),
        *("model=vae", "likelihood=bernoulli", "dataset.validation=8", "views=[reconstructions]"),
    )
    stored = tiny(*settings, name="stored")
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(folder_module, "MIN_CACHE_BYTES", 1)
    mapped = tiny(*settings, name="mapped")
    assert (tmp_path / "data").exists()
    results = [json.loads((run / "metrics.json").read_text()) for run in (stored, mapped)]
    for name in ("seconds", "train/seconds_per_epoch"):
        assert all(result.pop(name) > 0 for result in results)
    assert results[0] == results[1]
    for figure in (stored / "figures").iterdir():
        assert figure.read_bytes() == (mapped / "figures" / figure.name).read_bytes()


# --- Arrays in .npy files ---------------------------------------------------------------------------------------------


def save_arrays(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("kind", ["uint8", "float32", "bool", "channels_last", ">f8"])
def test_npy_files_are_those_in_an_npz(kind: str, images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pixels, labels = images
    match kind:
        case "channels_last":
            pixels = np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)
        case "bool":
            pixels = pixels > 127
        case "float32" | ">f8":
            pixels = (pixels / 255).astype(kind)
    arrays: dict[str, Any] = {
        "x_train": pixels[:40],
        "y_train": labels[:40],
        "x_test": pixels[40:],
        "y_test": labels[40:],
    }
    np.savez(tmp_path / "own.npz", **arrays)
    settings: dict[str, Any] = {"validation": 5, "classes": [0, 1, 2, 3]}
    npy = Npz(path=str(save_arrays(tmp_path / "own", **arrays)), **settings)
    npz = Npz(path=str(tmp_path / "own.npz"), **settings)
    assert_equal(npy.load(), npz.load())
    assert torch.equal(npy.load_all().pixels, npz.load_all().pixels)
    assert npy.values.largest == npz.values.largest or kind in ("uint8", "channels_last")


def test_one_npy_file_has_images_without_classes(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", images[0])
    np.savez(tmp_path / "own.npz", images=images[0])
    npy, npz = (Npz(path=str(tmp_path / f"own.{suffix}")).load() for suffix in ("npy", "npz"))
    assert isinstance(npy.train.values, MappedRows)
    assert torch.equal(npy.train.pixels, npz.train.pixels)
    assert torch.equal(npy.test.pixels, npz.test.pixels)
    np.save(tmp_path / "own.npy", images[0][::-1])
    change = digest_data(Npz(path=str(tmp_path / "own.npy")).load()).describe_change(digest_data(npy))
    assert change.startswith("other pixels of the")


def test_npy_files_that_are_no_images_are_one_message(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    for array, message in (
        (np.zeros((3, 4)), r"images is float64 \[3, 4\]: use \[N, H, W\]"),
        (np.full((3, 4, 4), np.nan, np.float32), "images has values from nan to nan"),
        (np.full((3, 4, 4), 2, np.float32), r"images has values from 2 to 2: use floats from 0 to 1"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=message):
            Npz(path=str(path)).load()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"own\.npy cannot be read as an \.npy file"):
        Npz(path=str(path)).load()
    with pytest.raises(ValueError, match=r"does not exist .*: use an \.npy file"):
        Npz(path=str(tmp_path / "other.npy")).load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no arrays, but should hold x_train"):
        Npz(path=str(tmp_path / "empty")).load()


def test_a_mapped_array_of_a_program_stays_in_its_file(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", images[0])
    mapped = np.load(tmp_path / "own.npy", mmap_mode="r")
    splits = []
    for data in (mapped, images[0]):
        with passing(data, images[1]):
            splits.append(ImagesOfArray(test_fraction=0.2, validation=5).load())
    assert_equal(*splits)
    overrides = [*TINY[3:], "model=linear", "likelihood=gaussian", f"hydra.run.dir='{tmp_path / 'run'}'"]
    losses = [aetrain.run([*overrides, f"hydra.run.dir='{tmp_path / name}'"], data=data).metrics["test/loss"]
              for name, data in (("mapped", mapped), ("stored", images[0]))]  # fmt: skip
    assert losses[0] == losses[1]
