"""Images of users as they come: any labels, any names of splits, any range of values, and parts of a data set."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from sklearn.datasets import load_digits

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.renames import upgrade_config
from aetrain.data.class_numbers import number_labels
from aetrain.data.dataset import Dataset
from aetrain.data.digits import Digits
from aetrain.data.examples import Examples
from aetrain.data.folder import Folder
from aetrain.data.image_dataset import ImageDataset
from aetrain.data.mnist import FashionMnist, Mnist
from aetrain.data.npz import Npz
from aetrain.data.shapes import Shapes
from aetrain.data.split_names import resembles_split
from aetrain.data.toy import Toy
from aetrain.evaluation.measures.few_labels import balanced_subset


def save(folder: Path, **arrays: Any) -> str:
    """Save arrays in a file; return its path."""
    np.savez(folder / "own.npz", **arrays)
    return str(folder / "own.npz")


def bright(count: int, value: int = 255) -> np.ndarray:
    """Return images of 4x4 pixels with a white corner, in which the image's number is the second pixel."""
    images = np.zeros((count, 4, 4), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = value, np.arange(count)
    return images


def write_image(path: Path, pixels: Any = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((8, 8), pixels, np.uint8) if isinstance(pixels, int) else pixels
    Image.fromarray(array).save(path)


# --- Labels -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def threes_and_eights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Scikit-learn's digits 3 and 8 with their own labels."""
    digits = load_digits()
    rows = (digits.target == 3) | (digits.target == 8)
    pixels = (digits.images[rows] / 16 * 255).astype("uint8")
    return save(tmp_path_factory.mktemp("d38"), x=pixels, y=digits.target[rows])


def test_clusters_are_as_many_as_the_labels_have_values(
    threes_and_eights: str, run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    directory = run(
        *("dataset=npz", f"dataset.path='{threes_and_eights}'", "measures=probes", "epochs=0", "views=none"),
        *(
            "measures.probes.methods=[kmeans]",
            "measures.probes.restarts=1",
            "model=linear",
            "likelihood=gaussian",
            "device=cpu",
        ),
    )
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["test/probe_kmeans_pixels"] == 100
    assert metrics["test/probe_nmi_pixels"] == pytest.approx(1)
    line = "data: 321 training and 36 test images of 1x8x8, 2 classes (3, 8)"
    assert line in caplog.messages
    assert line in (directory / "aetrain.log").read_text()
    codes = np.load(api.run([f"run={directory}", "mode=encode"]).directory / "codes.npz")
    with np.load(threes_and_eights) as stored:
        values = sorted(stored["y"].tolist())
    assert codes["class_names"].tolist() == ["3", "8"]
    numbers = np.concatenate([codes["train_labels"], codes["test_labels"]])
    assert sorted(codes["class_names"][numbers].astype(int).tolist()) == values


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([3, 8, 3, 3], [0, 1, 0, 0], ("3", "8")),
        ([-1, 1, -1, 1], [0, 1, 0, 1], ("-1", "1")),
        ([9_000_000, 2**40, 9_000_000, 5], [1, 2, 1, 0], ("5", "9000000", str(2**40))),
        ([2**64 - 1, 2**63, 2**63, 2**63], [1, 0, 0, 0], (str(2**63), str(2**64 - 1))),
        ([1.0, 2.0, 2.0, 1.0], [0, 1, 1, 0], ("1", "2")),
        ([0.0, 1.0, 2.0, 1.0], [0, 1, 2, 1], ()),
        ([2, 0, 1, 1], [2, 0, 1, 1], ()),
        ([True, False, False, True], [1, 0, 0, 1], ("False", "True")),
        (["dog", "cat", "dog", "élan"], [1, 0, 1, 2], ("cat", "dog", "élan")),
    ],
)
@pytest.mark.parametrize("column", [False, True])
def test_labels_are_numbered_and_their_values_are_names(
    labels: Sequence[Any], numbers: list[int], names: tuple[str, ...], column: bool, tmp_path: Path
) -> None:
    stored = np.array(labels).reshape(-1, 1) if column else np.array(labels)
    path = save(tmp_path, x_train=bright(4), y_train=stored, x_test=bright(2), y_test=stored[:2])
    splits = Npz(path=path).load()
    assert splits.train.classes.tolist() == numbers
    assert splits.test.classes.tolist() == numbers[:2]
    assert splits.train.class_names == splits.test.class_names == names
    assert splits.train.classes.dtype == torch.int64
    assert [splits.train.class_name(number) for number in numbers] == [
        str(int(label)) if isinstance(label, float) else str(label) for label in labels
    ]


def test_classes_are_selected_by_their_values(threes_and_eights: str, tmp_path: Path) -> None:
    splits = Npz(path=threes_and_eights, classes=[8, 3]).load()
    assert splits.train.class_names == ("8", "3")
    alone = Npz(path=threes_and_eights, classes=[8]).load()
    assert len(alone.train) + len(alone.test) == 174
    assert torch.equal(alone.test.pixels, splits.test.pixels[splits.test.classes == 0])
    with pytest.raises(ValueError, match=r"classes=\[0\]: no class 0 in this data set: use 3, 8"):
        Npz(path=threes_and_eights, classes=[0]).load()
    # The folder 10 is the second in alphabetical order.
    for name in ("1", "2", "10"):
        for number in range(4):
            write_image(tmp_path / name / f"{number}.png", int(name))
    ones = Folder(path=str(tmp_path), size=8, classes=[1]).load()
    assert ones.train.class_names == ("1",)
    assert ones.train.pixels.unique().tolist() == [1]


class Signs(ImageDataset):
    """A data set whose labels are -1 and 1, and 5 in one test image."""

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return 1, 4, 4

    def read(self) -> tuple[Examples, Examples]:
        pixels = torch.from_numpy(bright(6))[:, None]
        return Examples(pixels[:4], torch.tensor([-1, 1, 1, -1])), Examples(pixels[4:], torch.tensor([1, 5]))


def test_labels_of_an_own_data_set_are_numbered_and_new_ones_of_test_images_named() -> None:
    dataset = Signs()
    splits = dataset.load()
    assert splits.train.classes.tolist() == [0, 1, 1, 0]
    assert splits.test.classes.tolist() == [1, 2]
    assert splits.test.class_names == ("-1", "1", "5")
    assert dataset.warnings == ["test images are of classes without training images: 5"]
    assert Signs(classes=[-1, 1]).load().test.classes.tolist() == [1]
    assert len(dataset.load_all()) == 6
    assert dataset.warnings == [], "all images have no splits"


def test_numbers_of_labels_do_not_depend_on_the_parts() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(-50, 50, 200)
    (whole,), names = number_labels([labels])
    parts, same_names = number_labels([labels[:30], labels[30:31], labels[31:]])
    assert names == same_names == tuple(map(str, sorted(set(labels.tolist()))))
    assert np.array_equal(np.concatenate(parts), whole)
    assert [int(names[number]) for number in whole] == labels.tolist()


@pytest.mark.parametrize("count", [1, 7, 40])
def test_balanced_subset_takes_turns_also_among_many_classes(count: int) -> None:
    labels = torch.tensor([0] * 20 + [2] * 9 + [7] * 3 + [1_000_000_000_000] * 8)
    chosen = labels[balanced_subset(labels, count, seed=3)]
    assert len(chosen) == count
    counts = {value: int((chosen == value).sum()) for value in labels.unique().tolist()}
    for value, number in counts.items():
        available = int((labels == value).sum())
        assert number in (available, max(counts.values()), max(counts.values()) - 1)
    order = balanced_subset(labels, 40, seed=3)
    assert torch.equal(order[:count], balanced_subset(labels, count, seed=3))


# --- Splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [("training", "testing", None), ("Train", "TEST", "val"), ("train", "Test", "Validation"), ("x", "y", "valid")],
)
def test_known_spellings_of_folders_are_splits(train: str, test: str, validation: str | None, tmp_path: Path) -> None:
    folders = {"train": train, "test": test, **({"validation": validation} if validation else {})}
    if train == "x":
        folders["train"], folders["test"] = "TRAINING", "Testing"
    for value, folder in enumerate(folders.values(), start=100):
        for name in ("cat", "dog"):
            write_image(tmp_path / folder / name / f"{value}.png", value)
    dataset = Folder(path=str(tmp_path), size=8)
    splits = dataset.load()
    for value, split in enumerate(folders, start=100):
        images = getattr(splits, split)
        assert images.pixels.unique().tolist() == [value]
        assert sorted(images.classes.tolist()) == [0, 1]
        assert images.class_names == ("cat", "dog")
    assert len(splits.validation) == (2 if validation else 0)
    assert dataset.warnings == []
    assert [len(names) for names in dataset.files()] == [2] * len(folders)
    if validation is None:
        return
    with pytest.raises(ValueError, match=f"validation=1 holds training images out, but folder {validation!r}.* use 0"):
        Folder(path=str(tmp_path), size=8, validation=1).load()


def test_validation_folder_is_watched_in_training_and_encoded(run: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        for number in range(count):
            write_image(folder / split / "ab"[number % 2] / f"{number}.png", 50 + 10 * number)
    directory = run(
        *("dataset=folder", f"dataset.path='{folder}'", "dataset.size=8", "dataset.subset=8", "model=linear"),
        *("epochs=1", "views=none", "device=cpu"),
    )
    history = (directory / "history.jsonl").read_text()
    assert "validation/sse" in history
    assert "test/sse" not in history
    api.run([f"run={directory}", "mode=encode"])
    codes = np.load(directory / "codes.npz")
    assert sorted(codes["validation_files"].tolist()) == ["val/a/0.png", "val/a/2.png", "val/b/1.png"]
    assert [len(codes[split]) for split in ("train", "validation", "test")] == [8, 3, 4]


def test_training_folder_without_test_images_is_cut(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / "train" / f"{number}.png", 100 + number)
    for number in range(5):
        write_image(tmp_path / "val" / f"{number}.png", 200 + number)
    dataset = Folder(path=str(tmp_path), size=8, test_fraction=0.2)
    splits = dataset.load()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 5, 4)
    assert int(splits.test.pixels.max()) < 200
    assert f"{tmp_path} has no folder 'test': 4 of the 20 images in 'train' are for test" in dataset.conversions[0]


def test_folders_that_look_like_splits_are_named(tmp_path: Path) -> None:
    def folder(name: str, *folders: str) -> Folder:
        for number, subfolder in enumerate(folders):
            for image in "ab":
                write_image(tmp_path / name / subfolder / f"{image}{number}.png")
        return Folder(path=str(tmp_path / name), size=8)

    for dataset, names in (
        (folder("wrong", "trains", "test2", "cats"), "'test2' and 'trains'"),
        (folder("unknown", "train_images", "holdout"), "'holdout' and 'train_images'"),
        (folder("below", "cats/train", "cats/test", "dogs/train"), "'test' and 'train'"),
        (folder("alone", "valid", "invalid"), "'valid'"),
    ):
        dataset.load()
        (warning,) = dataset.warnings
        assert warning.startswith(f"{dataset.path}: the images in {names} are read like all others, not as a split")
    beside = folder("beside", "train", "test", "dev", "more/deeper", ".hidden")
    splits = beside.load()
    assert (len(splits.train), len(splits.test)) == (2, 2)
    assert beside.warnings == [
        f"{beside.path}: only 'test' and 'train' are read, as the splits, without 'dev' and 'more'"
    ]
    with pytest.raises(ValueError, match=r"has a folder 'train' only, beside 'bus' and 'car': .* if it is a class"):
        folder("vehicles", "train", "bus", "car").load()
    with pytest.raises(ValueError, match=r"has the folders 'Train' and 'training', which are both for train images"):
        folder("twice", "Train", "training", "test").load()
    for dataset in (folder("classes", "cats", "trainers", "valley", "develop"), folder("plain", "")):
        dataset.load()
        assert dataset.warnings == []


@pytest.mark.parametrize(
    "name", ["test2", "x_dev", "trains", "EvalSet", "hold-out", "TEST", "my_validation", "held out"]
)
def test_names_that_suggest_a_split(name: str) -> None:
    assert resembles_split(name)


@pytest.mark.parametrize("name", ["trainers", "contest", "latest", "valve", "devil", "evaluate", "0", "", "household"])
def test_names_that_suggest_no_split(name: str) -> None:
    assert not resembles_split(name)


@pytest.mark.parametrize(
    ("images", "labels", "validation"),
    [
        ("x_{}", "y_{}", "val"),
        ("X_{}", "Y_{}", "valid"),
        ("{}_images", "{}_labels", "val"),  # as in MedMNIST
        ("{}", "{}_labels", "validation"),
        ("images_{}", "labels_{}", "val"),
    ],
)
def test_known_names_of_arrays_are_splits(images: str, labels: str, validation: str, tmp_path: Path) -> None:
    pixels = bright(9)
    rows = {"train": slice(0, 4), validation: slice(4, 6), "test": slice(6, 9)}
    arrays: dict[str, Any] = {images.format(split): pixels[part] for split, part in rows.items()}
    arrays |= {labels.format(split): np.arange(9)[part] for split, part in rows.items()}
    dataset = Npz(path=save(tmp_path, **arrays))
    splits = dataset.load()
    for part, numbers in ((splits.train, [0, 1, 2, 3]), (splits.validation, [4, 5]), (splits.test, [6, 7, 8])):
        assert part.classes.tolist() == part.pixels[:, 0, 0, 1].tolist() == numbers
    with pytest.raises(ValueError, match=rf"validation=1 .*array '{images.format(validation)}'"):
        _ = Npz(path=dataset.path, validation=1).stored_shape  # before the arrays are read
    del arrays[labels.format(validation)]
    with pytest.raises(ValueError, match=f"but no {labels.format(validation).lower()}: add it"):
        Npz(path=save(tmp_path, **arrays)).load()


def test_arrays_without_test_images_are_cut_and_unread_ones_named(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=bright(20), x_dev=bright(3), x_test2=bright(3), weights=np.zeros(3))
    dataset = Npz(path=path, test_fraction=0.2)
    splits = dataset.load()
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert f"{path} has no test images: 4 of the 20 in x_train are for test" in dataset.conversions[0]
    (warning,) = dataset.warnings
    assert warning.startswith(f"{path}: no images are read from 'x_dev' and 'x_test2': the arrays of splits are")
    both = save(tmp_path, x_train=bright(3), x_test=bright(3), x_val=bright(3), x_valid=bright(3))
    with pytest.raises(ValueError, match="holds x_val and x_valid, which are both for validation images"):
        Npz(path=both).load()


# --- The range of the values ------------------------------------------------------------------------------------------


DEEP = [("uint8", 16, 16), ("uint8", 1, 1), ("uint16", 3824, 4095), ("int32", 3824, 4095), ("float32", 3824, 4095)]


@pytest.mark.parametrize(("dtype", "largest", "white"), DEEP)
def test_white_of_arrays(dtype: str, largest: int, white: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, largest, (20, 4, 4), endpoint=True)
    values[0, 0, 0] = largest
    path = save(tmp_path, images=values.astype(dtype))
    expected = sorted(np.rint(values / white * 255).astype(int).flatten().tolist())
    dataset = Npz(path=path, white=white)
    splits = dataset.load()
    pixels = torch.cat([splits.train.pixels, splits.test.pixels])
    assert sorted(pixels.flatten().tolist()) == expected
    assert int(pixels.max()) == {16: 255, 1: 255, 3824: 238}[largest]
    assert dataset.warnings == []


@pytest.mark.parametrize(("dtype", "largest", "white"), DEEP)
@pytest.mark.parametrize("channels", [1, 3])
def test_white_of_files(dtype: str, largest: int, white: int, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, largest, (8, 8), endpoint=True)
    values[0, 0] = largest
    suffix = "tif" if dtype in ("int32", "float32") else "png"
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.{suffix}", values.astype(dtype))
    dataset = Folder(path=str(tmp_path), size=8, channels=channels, white=white)
    pixels = dataset.load().train.pixels[0]
    for plane in pixels:
        assert np.array_equal(plane.numpy(), np.rint(values / white * 255))
    assert int(pixels.max()) == {16: 255, 1: 255, 3824: 238}[largest]
    assert dataset.warnings == []


def test_values_are_rounded_once_also_where_images_are_resized(tmp_path: Path) -> None:
    """In 8 bits, 0..16 would be resized to 17 levels of grey; here the mean of the image stays."""
    ramp = np.linspace(0, 16, 64).round().astype(np.uint8)
    colour = np.stack([ramp[None].repeat(64, 0)] * 3, 2)
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", colour)
    pixels = Folder(path=str(tmp_path), size=16, white=16).load().train.pixels[0, 0].double()
    assert len(pixels.unique()) == 16
    assert (pixels.mean() - ramp.mean() / 16 * 255).abs() < 0.5


def test_transparent_parts_are_white_whatever_white_is(tmp_path: Path) -> None:
    for mode in ("RGBA", "LA"):
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.paste((8, 8, 8, 255), (0, 0, 4, 8))
        for name in ("a", "b"):
            image.convert(mode).save(tmp_path / f"{name}.png")
        pixels = Folder(path=str(tmp_path), size=8, white=16).load().train.pixels[0, 0]
        assert pixels[:, :4].unique().tolist() == [128]
        assert pixels[:, 4:].unique().tolist() == [255]


NEARLY_BLACK = [
    ("uint8", 16, "16 of 255", "16"),
    ("uint8", 1, "1 of 255", "1"),
    ("uint16", 3824, "3824 of 65535", "4095"),
    ("uint16", 255, "255 of 65535", "255"),
    ("int32", 3824, "3824 of 65535", "4095"),
]


@pytest.mark.parametrize(("dtype", "largest", "stated", "white"), NEARLY_BLACK)
def test_nearly_black_files_are_said_with_the_mend(
    dtype: str, largest: int, stated: str, white: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.{'tif' if dtype == 'int32' else 'png'}", np.full((8, 8), largest, dtype))
    dataset = Folder(path=str(tmp_path), size=8)
    dataset.load()
    assert dataset.warnings == [
        f"the largest stored value is {stated}: the images are nearly black; dataset.white={white} makes {white} white"
    ]
    mended = Folder(path=str(tmp_path), size=8, white=float(white))
    mended.load()
    assert mended.warnings == []


def test_dark_training_images_beside_bright_test_images_are_not_blamed_on_white(tmp_path: Path) -> None:
    for split, value in (("train", 16), ("test", 255)):
        (tmp_path / split).mkdir()
        write_image(tmp_path / split / "a.png", np.full((8, 8), value, np.uint8))
    dataset = Folder(path=str(tmp_path), size=8)
    dataset.load()
    assert dataset.warnings == [
        "the largest pixel of the training images is 16 of 255: they are nearly black; check their files"
    ]


def test_nearly_black_images_are_said_before_training_and_found_after(
    run: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = load_digits().images[:100].astype(np.uint8)
    words = ("dataset=npz", f"dataset.path='{save(tmp_path, x=pixels)}'", "epochs=0", "views=none", "device=cpu")
    directory = run(*words)
    (warning,) = [text for text in caplog.messages if "nearly black" in text and text.startswith("data: ")]
    assert "the largest stored value is 16 of 255" in warning
    assert "dataset.white=16" in warning
    (finding,) = [item for item in json.loads((directory / "findings.json").read_text()) if "black" in item["what"]]
    assert "16 of 255" in finding["evidence"]
    assert "dataset.white" in finding["remedy"]
    mended = run(*words, "dataset.white=16", name="mended")
    assert "black" not in (mended / "findings.json").read_text()


def test_largest_value_of_floats_is_named(tmp_path: Path) -> None:
    images = np.full((4, 4, 4), 0.0625)
    dataset = Npz(path=save(tmp_path, x=images))
    dataset.load()
    assert "the largest stored value is 0.0625 of 1: " in dataset.warnings[0]
    assert Npz(path=dataset.path, white=0.0625).load().train.pixels.unique().tolist() == [255]
    black = Npz(path=save(tmp_path, x=images * 0))
    black.load()
    assert black.warnings == ["every stored value is 0: all images are black"]


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_values_above_white_are_clipped_and_said_once(kind: str, tmp_path: Path) -> None:
    values = np.full((4, 8, 8), 100, np.uint16)
    values[0, 0, 0], values[1, 0, :3] = 300, 201
    if kind == "npz":
        dataset: Dataset = Npz(path=save(tmp_path, x=values), white=200)
    else:
        for number, image in enumerate(values):
            write_image(tmp_path / "own" / f"{number}.png", image)
        dataset = Folder(path=str(tmp_path / "own"), size=8, white=200)
    splits = dataset.load()
    pixels = torch.cat([splits.train.pixels, splits.test.pixels])
    assert int((pixels == 255).sum()) == 4
    assert int((pixels == 128).sum()) == 252
    (warning,) = dataset.warnings
    assert warning.startswith("1.56% of the stored values are above dataset.white=200 (the largest is 300)")


@pytest.mark.parametrize(
    ("array", "white", "complaint"),
    [
        (np.full((4, 4, 4), 3824, np.uint16), None, "x is uint16 .*or name the value that is white"),
        (np.full((4, 4, 4), 200.0), None, "values from 200 to 200: .* or dataset.white=200 where 200 is white"),
        (np.full((4, 4, 4), -1), 255, "values from -1 to -1: use values from 0"),
        (np.full((4, 4, 4), np.nan), 255, "values from nan to nan"),
        (np.full((4, 4, 4), np.inf), 255, "values from inf to inf"),
    ],
)
def test_impossible_values_are_refused(array: Any, white: float | None, complaint: str, tmp_path: Path) -> None:
    dataset = Npz(path=save(tmp_path, x=array), white=white)
    with pytest.raises(ValueError, match=complaint):
        dataset.load()


def test_files_with_impossible_values_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.tif", np.full((8, 8), -5, np.int32))
    with pytest.raises(ValueError, match=r"2 of 2 images cannot be read: .*its lowest value is -5"):
        Folder(path=str(tmp_path), size=8, white=255).load()
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.tif", np.full((8, 8), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"neither 8 nor 16 bits: name the value that is white with dataset\.white"):
        Folder(path=str(tmp_path), size=8).load()
    assert Folder(path=str(tmp_path), size=8, white=1.0).load().train.pixels.unique().tolist() == [128]


def test_ordinary_images_are_not_called_dark(tmp_path: Path) -> None:
    """A dark photo has light spots: here one of 65 of 255."""
    photo = np.random.default_rng(0).integers(0, 20, (8, 8, 3)).astype(np.uint8)
    photo[3, 3] = 65
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.jpg" if name == "a" else tmp_path / f"{name}.png", photo)
    for dataset in (Folder(path=str(tmp_path), size=8, channels=3), Digits(), Toy(), Shapes(count=100)):
        dataset.load()
        assert dataset.warnings == [], dataset


@pytest.mark.data
def test_real_images_are_not_called_dark(data_dir: Path) -> None:
    for source in (Mnist, FashionMnist):
        dataset = source(path=str(data_dir), classes=[1], subset=10)
        dataset.load()
        assert dataset.warnings == []


# --- Parts of a data set, and the line about it -----------------------------------------------------------------------


def test_subset_cuts_training_images_alone() -> None:
    dataset = Digits(subset=100)
    splits = dataset.load()
    whole = Digits().load()
    assert torch.equal(splits.test.pixels, whole.test.pixels)
    assert len(splits.train) == 100
    assert dataset.conversions == ["dataset.subset keeps 100 of 1,438 training images"]
    both = Digits(subset=100, test_subset=7)
    small = both.load()
    assert torch.equal(small.train.pixels, splits.train.pixels)
    assert len(small.test) == 7
    assert both.conversions[1] == "dataset.test_subset keeps 7 of 359 test images"
    assert len(Digits(test_subset=1000).load().test) == 359


def test_line_about_the_data(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    directory = tiny("dataset.validation=10", "dataset.test_subset=20", "epochs=0")
    lines = [text for text in caplog.messages if text.startswith("data: ")]
    assert lines == [
        "data: 64 training, 10 validation and 20 test images of 1x8x8, 10 classes",
        "data: dataset.subset keeps 64 of 1,428 training images",
        "data: dataset.test_subset keeps 20 of 359 test images",
    ]
    assert all(line in (directory / "aetrain.log").read_text() for line in lines)


def test_conversions_of_a_folder_are_said(tmp_path: Path) -> None:
    for number, size in enumerate([(640, 480), (640, 480), (32, 50)]):
        Image.new("RGB", size, (200, 0, 0)).save(tmp_path / f"{number}.png")
    dataset = Folder(path=str(tmp_path))
    splits = dataset.load()
    assert splits.describe() == "2 training and 1 test images of 1x28x28, no classes"
    assert dataset.conversions == [
        "3 images (3 in colour) of 32x50 to 640x480 pixels become 1x28x28 (grey); dataset.channels=3 keeps colour; "
        "a larger dataset.size keeps more detail"
    ]
    colour = Folder(path=str(tmp_path), channels=3)
    colour.load()
    assert "colour" not in colour.conversions[0]
    for number in range(3):
        Image.new("L", (28, 28), 200).save(tmp_path / f"{number}.png")
    dataset.load()
    assert dataset.conversions == []


def test_saved_config_of_an_earlier_version_cuts_its_test_images() -> None:
    saved = {"model": {}, "dataset": {"_target_": "aetrain.data.digits.Digits", "subset": 20}}
    assert upgrade_config(saved)["dataset"]["test_subset"] == 20
    assert "test_subset" not in saved["dataset"]
    for dataset in ({"subset": None}, {"subset": 20, "test_subset": None}):
        assert upgrade_config({"model": {}, "dataset": dataset})["dataset"] == dataset
    own = {"verbose": False, "dataset": {"_target_": "mine.Data", "subset": 20}}  # of this version, without test_subset
    assert upgrade_config(own)["dataset"] == own["dataset"]


def test_directory_of_other_test_images_is_refused(tiny: Callable[..., Path]) -> None:
    tiny("epochs=0")
    with pytest.raises(ConfigError, match=r"dataset\.test_subset: 64 there, 20 here"):
        tiny("epochs=0", "dataset.test_subset=20")
    assert "dataset.test_subset=64" in TINY


def test_files_of_several_pages_are_warned_of(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 100, 200)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.gif", save_all=True, append_images=pages[1:])
    pages[2].save(tmp_path / "photograph.mpo", save_all=True, append_images=pages[:1])
    (tmp_path / "photograph.mpo").rename(tmp_path / "photograph.jpg")
    write_image(tmp_path / "single.png", 200)
    dataset = Folder(path=str(tmp_path), size=8)
    pixels = dataset.load_all().pixels
    assert pixels.amax((1, 2, 3)).tolist() == [10, 200, 200, 10]
    assert "images have several pages or frames, of which the first is read: 2 files" in dataset.warnings
