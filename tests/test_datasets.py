"""Published data sets in tiny archives of the original formats, the selection of classes, and the drawn shapes."""

import bz2
import gzip
import hashlib
import io
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from aetrain import api, testing
from aetrain.config.paths import groups
from aetrain.data import shapes
from aetrain.data.cifar import ArrayUnpickler, Cifar10, Cifar100, load_arrays
from aetrain.data.digits import Digits
from aetrain.data.examples import Examples
from aetrain.data.folder import Folder
from aetrain.data.image_dataset import ImageDataset
from aetrain.data.mnist import parse_idx
from aetrain.data.npz import Npz
from aetrain.data.published_dataset import CACHE, PublishedDataset
from aetrain.data.shapes import Shapes
from aetrain.data.torchvision_sets import Emnist, Kmnist, Qmnist, Stl10, Svhn, Usps

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9/"
SPLITS = ("train", "test")
COUNTS = {"train": 70, "test": 20}

SOURCES = (Kmnist, Qmnist, Emnist, Usps, Cifar10, Cifar100, Svhn, Stl10)
EMNIST_CLASSES = {"letters": 26, "balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "mnist": 10}

Content = dict[str, np.ndarray[Any, Any]]  # `train_images` [N, C, H, W] uint8, `train_labels` [N] from 0, and so on


# --- Tiny archives in the original formats ----------------------------------------------------------------------------


def random_content(shape: tuple[int, int, int], num_classes: int) -> Content:
    generator = np.random.default_rng(0)
    content: Content = {}
    for split, count in COUNTS.items():
        content[f"{split}_images"] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        content[f"{split}_labels"] = np.arange(count) % num_classes
    return content


def idx(array: np.ndarray[Any, Any]) -> bytes:
    code = {np.dtype("u1"): 8, np.dtype(">i4"): 12}[array.dtype]
    return bytes((0, 0, code, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


class Python2Pickler(pickle._Pickler):
    """A pickler that writes strings and bytes as those of Python 2, by which the CIFAR archives were made."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_str(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(content)) + content)  # type: ignore[attr-defined]
        self.memoize(text)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = save_str


def python2_pickle(content: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def write_kmnist(raw: Path, content: Content) -> None:
    for name, prefix in (("train", "train"), ("test", "t10k")):
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(content[f"{name}_images"][:, 0])))
        labels = content[f"{name}_labels"].astype(np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def write_qmnist(raw: Path, content: Content) -> None:
    for name in SPLITS:
        (raw / f"qmnist-{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(content[f"{name}_images"][:, 0])))
        details = np.arange(COUNTS[name] * 8).reshape(-1, 8) + 1000
        details[:, 0] = content[f"{name}_labels"]
        (raw / f"qmnist-{name}-labels-idx2-int.gz").write_bytes(gzip.compress(idx(details.astype(">i4"))))


def write_emnist(raw: Path, content: Content) -> None:
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for split, num_classes in EMNIST_CLASSES.items():
            for name in SPLITS:
                transposed = np.ascontiguousarray(content[f"{name}_images"][:, 0].transpose(0, 2, 1))
                labels = np.arange(COUNTS[name]) % num_classes + (split == "letters")
                prefix = f"gzip/emnist-{split}-{name}"
                archive.writestr(f"{prefix}-images-idx3-ubyte.gz", gzip.compress(idx(transposed)))
                archive.writestr(f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(idx(labels.astype(np.uint8))))


def write_usps(raw: Path, content: Content) -> None:
    for name, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        lines = []
        for image, label in zip(content[f"{name}_images"], content[f"{name}_labels"], strict=True):
            values = enumerate(image.ravel() / 127.5 - 1, 1)
            lines.append(f"{label + 1} " + " ".join(f"{number}:{value:.6f}" for number, value in values) + " \n")
        (raw / file).write_bytes(bz2.compress("".join(lines).encode()))


def write_cifar(source: type[Cifar10 | Cifar100], raw: Path, content: Content) -> None:
    with tarfile.open(raw / source.archive, "w:gz") as archive:
        for name, members in zip(SPLITS, (source.train_members, source.test_members), strict=True):
            rows = np.array_split(content[f"{name}_images"].reshape(COUNTS[name], -1), len(members))
            labels = np.array_split(content[f"{name}_labels"], len(members))
            for member, part, part_labels in zip(members, rows, labels, strict=True):
                batch = {"batch_label": "a batch", "data": part, source.label_key: part_labels.tolist()}
                add_member(archive, member, python2_pickle(batch))
        folder, (meta, key) = source.test_members[0].split("/")[0], CIFAR_META[source]
        add_member(archive, f"{folder}/{meta}", python2_pickle({key: list(source.names)}))


CIFAR_META: dict[type, tuple[str, str]] = {
    Cifar10: ("batches.meta", "label_names"),
    Cifar100: ("meta", "fine_label_names"),
}


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_svhn(raw: Path, content: Content) -> None:
    for name in SPLITS:
        labels = content[f"{name}_labels"]
        arrays = {
            "X": content[f"{name}_images"].transpose(2, 3, 1, 0),
            "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8),
        }
        scipy.io.savemat(raw / f"{name}_32x32.mat", arrays, do_compression=True)


def write_stl10(raw: Path, content: Content) -> None:
    with tarfile.open(raw / "stl10_binary.tar.gz", "w:gz") as archive:
        for name in SPLITS:
            columns_first = np.ascontiguousarray(content[f"{name}_images"].transpose(0, 1, 3, 2))
            add_member(archive, f"stl10_binary/{name}_X.bin", columns_first.tobytes())
            labels = (content[f"{name}_labels"] + 1).astype(np.uint8)
            add_member(archive, f"stl10_binary/{name}_y.bin", labels.tobytes())


WRITERS: dict[type[PublishedDataset], Callable[[Path, Content], None]] = {
    Kmnist: write_kmnist,
    Qmnist: write_qmnist,
    Emnist: write_emnist,
    Usps: write_usps,
    Cifar10: lambda raw, content: write_cifar(Cifar10, raw, content),
    Cifar100: lambda raw, content: write_cifar(Cifar100, raw, content),
    Svhn: write_svhn,
    Stl10: write_stl10,
}


def write_archives(source: type[PublishedDataset], data: Path) -> Content:
    """Write tiny archives of a data set below `data`; return their content."""
    dataset = source(path=str(data))
    content = random_content(dataset.stored_shape, dataset.num_classes)
    raw = data / source.name / "raw"
    raw.mkdir(parents=True)
    WRITERS[source](raw, content)
    return content


def publish(monkeypatch: pytest.MonkeyPatch, source: type[PublishedDataset], raw: Path, address: str = NOWHERE) -> None:
    """Give the class in torchvision the MD5 sums of the files in `raw`, and one address."""

    def md5(name: str) -> str:
        file = raw / name
        return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() if file.exists() else "0" * 32

    def entry(name: str) -> tuple[str, str]:
        return f"{address}{name}", md5(name)

    published = getattr(torchvision.datasets, source.name)
    names = source(path="").file_names
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if source is Kmnist:
        monkeypatch.setattr(published, "mirrors", [address])
        monkeypatch.setattr(published, "resources", [(name, md5(name)) for name in names])
    elif source is Qmnist:
        resources = {"train": [entry(name) for name in names[:2]], "test": [entry(name) for name in names[2:]]}
        monkeypatch.setattr(published, "resources", resources)
    elif source is Emnist:
        monkeypatch.setattr(published, "url", address + names[0])
        monkeypatch.setattr(published, "md5", md5(names[0]))
    elif source in (Usps, Svhn):
        lists = {split: [address + name, name, md5(name)] for split, name in zip(SPLITS, names, strict=True)}
        monkeypatch.setattr(published, "split_list", lists)
    else:
        monkeypatch.setattr(published, "url", address + names[0])
        monkeypatch.setattr(published, "tgz_md5", md5(names[0]))


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Content]:
    """Return a function that writes the tiny archives of a data set into a folder, published without a network."""

    def archives(source: type[PublishedDataset], data: Path = tmp_path) -> Content:
        content = write_archives(source, data)
        publish(monkeypatch, source, data / source.name / "raw")
        return content

    return archives


# --- The published data sets ------------------------------------------------------------------------------------------


def test_names_and_addresses_are_those_of_torchvision() -> None:
    """The names of the files are known without torchvision, so that a cache is read without it."""
    for source in SOURCES:
        dataset = source(path="")
        published = dataset.published_files(getattr(torchvision.datasets, source.name))
        assert [file.name for file in published] == list(dataset.file_names)
        for file in published:
            assert file.md5 is not None
            assert len(file.md5) == 32
            assert all(url.startswith("http") and url.endswith(file.name) for url in file.urls)
            assert file.urls


@pytest.mark.parametrize("source", SOURCES)
def test_archives_are_read_as_written(
    source: type[PublishedDataset], archives: Callable[..., Content], tmp_path: Path
) -> None:
    content = archives(source)
    dataset = source(path=str(tmp_path))
    for _ in range(2):  # from the archives, and from the cache
        for split, images in zip(SPLITS, dataset.read(), strict=True):
            pixels, labels = content[f"{split}_images"], content[f"{split}_labels"]
            assert images.pixels.dtype == torch.uint8
            assert images.pixels.shape == (COUNTS[split], *dataset.stored_shape)
            tolerance = 1 if source is Usps else 0  # it rounds down
            assert np.abs(images.pixels.numpy().astype(int) - pixels).max() <= tolerance
            assert images.classes.dtype == torch.int64
            assert images.classes.tolist() == labels.tolist()
            assert images.class_names == dataset.class_names
            assert len(images.class_names) in (0, dataset.num_classes)
    assert (tmp_path / source.name / dataset.cache_name).is_file()
    assert not list(tmp_path.rglob(".building*"))


def read_by_torchvision(source: type[PublishedDataset], data: Path, split: str) -> tuple[Any, Any]:
    """Return the images and labels that torchvision reads from unpacked files."""
    raw = data / source.name / "raw"
    published, is_train = getattr(torchvision.datasets, source.name), split == "train"
    for file in raw.glob("*.tar.gz"):
        with tarfile.open(file) as archive:
            archive.extractall(raw, filter="data")
    for file in raw.glob("*.zip"):
        with zipfile.ZipFile(file) as zipped:
            for name in zipped.namelist():
                (raw / Path(name).name).write_bytes(zipped.read(name))
    for file in raw.glob("*-*.gz"):
        if not file.name.endswith(".tar.gz"):
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    match source.name:
        case "KMNIST" | "QMNIST":
            dataset = published(data, train=is_train)
        case "EMNIST":
            dataset = published(data, split="letters", train=is_train)
        case "SVHN" | "STL10":
            dataset = published(raw, split=split)
        case _:
            dataset = published(raw, train=is_train)
    labels = dataset.labels if source.name in ("SVHN", "STL10") else dataset.targets
    return np.asarray(dataset.data), np.asarray(labels)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:dtype")  # NumPy's, about CIFAR's pickles
def test_archives_equal_those_that_torchvision_reads(
    source: type[PublishedDataset], archives: Callable[..., Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives(source)
    for module in ("cifar", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_: True)
    for split, images in zip(SPLITS, source(path=str(tmp_path)).read(), strict=True):
        expected, labels = read_by_torchvision(source, tmp_path, split)
        if source is Emnist:
            expected, labels = expected.transpose(0, 2, 1), labels - 1  # torchvision leaves them as they are
        if source in (Cifar10, Cifar100):
            expected = expected.transpose(0, 3, 1, 2)
        if source is Qmnist:
            labels = labels[:, 0]
        assert np.array_equal(images.pixels.numpy().reshape(expected.shape), expected)
        assert images.classes.tolist() == labels.tolist()


@pytest.mark.parametrize(("split", "num_classes"), EMNIST_CLASSES.items())
def test_each_split_of_emnist_has_its_classes_and_cache(
    split: Any, num_classes: int, archives: Callable[..., Content], tmp_path: Path
) -> None:
    archives(Emnist)
    dataset = Emnist(path=str(tmp_path), split=split)
    train, _ = dataset.read()
    assert dataset.num_classes == num_classes
    assert int(train.classes.max()) == min(num_classes, COUNTS["train"]) - 1
    names = torchvision.datasets.EMNIST.classes_split_dict[split]
    assert list(dataset.class_names) == [name for name in names if name != "N/A"]
    assert [file.name for file in (tmp_path / "EMNIST").glob("*.safetensors")] == [f"{split}.{CACHE}"]


def test_class_names_of_cifar_are_distinct_and_in_alphabetical_order() -> None:
    assert len(set(Cifar10.names)) == 10
    assert len(set(Cifar100.names)) == 100
    assert list(Cifar100.names) == sorted(Cifar100.names)


@pytest.mark.parametrize("source", SOURCES)
def test_missing_archives_without_a_network_give_one_message(
    source: type[PublishedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    publish(monkeypatch, source, data)
    dataset = source(path=str(data))
    with pytest.raises(ValueError, match=f"path='{data}': {source.name} is not in {data}/{source.name}/raw") as error:
        dataset.read()
    for needed in (*dataset.file_names, "dataset=digits", "data_dir", "AETRAIN_DATA", "refused"):
        assert needed in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not data.exists()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_archive_is_named(
    source: type[PublishedDataset], damage: str, archives: Callable[..., Content], tmp_path: Path
) -> None:
    archives(source)
    dataset = source(path=str(tmp_path))
    dataset.read()
    file = tmp_path / source.name / "raw" / dataset.file_names[-1]
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged \(its MD5 sum .*could not be downloaded .*delete it") as error:
        dataset.read()
    assert str(file) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_archive_of_another_format_is_damaged_although_its_md5_sum_fits(
    source: type[PublishedDataset], archives: Callable[..., Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives(source)
    dataset = source(path=str(tmp_path))
    raw = tmp_path / source.name / "raw"
    for content in (b"", b"garbage" * 100, gzip.compress(b"garbage" * 100)):
        (raw / dataset.file_names[0]).write_bytes(content)
        publish(monkeypatch, source, raw)
        with pytest.raises(ValueError, match=f"{dataset.file_names[0]} is damaged"):
            dataset.read()


def test_images_without_labels_of_the_same_number_are_refused(
    archives: Callable[..., Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives(Kmnist)
    raw = tmp_path / "KMNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(19, np.uint8))))
    publish(monkeypatch, Kmnist, raw)
    with pytest.raises(ValueError, match=r"KMNIST/raw is damaged .*20 images and 19 labels"):
        Kmnist(path=str(tmp_path)).read()


@pytest.mark.parametrize("source", SOURCES)
def test_cache_is_reused_and_invalidated(
    source: type[PublishedDataset], archives: Callable[..., Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archives(source)
    dataset = source(path=str(tmp_path))
    dataset.read()
    cache = tmp_path / source.name / dataset.cache_name
    parse, parsed = source.parse, []

    def counting_parse(self: Any, file: Path) -> Any:
        parsed.append(file.name)
        return parse(self, file)

    monkeypatch.setattr(source, "parse", counting_parse)
    written = cache.stat().st_mtime_ns
    dataset.read()
    assert parsed == []
    raw = tmp_path / source.name / "raw"
    for file in raw.iterdir():
        os.utime(file, ns=(0, 0))
    assert dataset.read()[0].classes.tolist() == content["train_labels"].tolist()
    assert parsed == list(dataset.file_names), "an archive with another time is not read again"
    assert cache.stat().st_mtime_ns > written
    cache.write_bytes(cache.read_bytes()[:-9])
    dataset.read()
    assert len(parsed) == 2 * len(dataset.file_names), "a truncated cache is not built again"
    for file in raw.iterdir():
        file.unlink()
    assert len(dataset.read()[1]) == COUNTS["test"], "the cache is not valid without the archives"


READ_IN_TWO_PROCESSES = """
import sys
import torchvision.datasets
from aetrain.data.cifar import Cifar10
torchvision.datasets.CIFAR10.tgz_md5 = sys.argv[1]
train, test = Cifar10(path=sys.argv[2]).read()
print(len(train), len(test), int(train.pixels.sum()))
"""


@pytest.mark.slow
def test_two_processes_at_once_build_one_cache(archives: Callable[..., Content], tmp_path: Path) -> None:
    content = archives(Cifar10)
    command = [sys.executable, "-c", READ_IN_TWO_PROCESSES, torchvision.datasets.CIFAR10.tgz_md5, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert outputs == [f"70 20 {content['train_images'].astype(int).sum()}\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "CIFAR10").iterdir()) == [CACHE, "raw"]


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch attacked",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_name_functions_are_refused(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for attack in (Attack(), {"data": [Attack()]}, np.array([Attack()], dtype=object), eval, np.random.default_rng):
        with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
            ArrayUnpickler(io.BytesIO(pickle.dumps(attack, protocol)), encoding="latin1").load()
    assert not list(tmp_path.iterdir())


def test_names_below_numpy_that_run_code_are_refused() -> None:
    for name in ("numpy.testing\nrunstring", "numpy\nload", "numpy.core.multiarray\nfromfile", "builtins\nndarray"):
        with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
            load_arrays(b"c" + name.encode() + b"\n.")


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([np.dtype("u1"), np.dtype(">i4")]),
    cut=st.integers(1, 8),
)
def test_idx_arrays_are_read_as_written_and_never_in_part(shape: list[int], dtype: Any, cut: int) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    content = idx(array)
    assert np.array_equal(parse_idx(content).numpy(), array)
    for bad in (content[:-cut], content + b"\0" * cut):
        with pytest.raises(ValueError, match="it does not hold"):
            parse_idx(bad)


# --- The selection of classes -----------------------------------------------------------------------------------------


class Labelled(ImageDataset):
    """A data set of given labels; the pixel of an image is its number."""

    def __init__(
        self, train: Sequence[int] | None, test: Sequence[int], names: tuple[str, ...] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.labels, self.names = (train, test), names

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return 1, 1, 1

    def read(self) -> tuple[Examples, Examples]:
        train, test = (self.images(labels) for labels in self.labels)
        return train, test

    def images(self, labels: Sequence[int] | None) -> Examples:
        count = 5 if labels is None else len(labels)
        tensor = None if labels is None else torch.tensor(labels)
        return Examples(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), tensor, self.names)


@given(data=st.data())
def test_selected_classes_are_numbered_in_the_given_order(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(2, 6))
    labels = st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=30)
    every_class = list(range(num_classes))  # so that no split is empty
    train, test = every_class + data.draw(labels), every_class + data.draw(labels)
    names = tuple("abcdef"[:num_classes]) if data.draw(st.booleans()) else ()
    kept = data.draw(st.lists(st.sampled_from(every_class), min_size=1, unique=True))
    train_kept = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
    is_selected, is_train_selected = data.draw(st.booleans()), data.draw(st.booleans())
    by_name = data.draw(st.booleans())

    def setting(numbers: list[int], is_set: bool) -> list[int | str] | None:
        texts: list[int | str] = [names[number] if names else str(number) for number in numbers]
        values: list[int | str] = [*numbers]
        return (texts if by_name else values) if is_set else None

    dataset = Labelled(
        train, test, names, classes=setting(kept, is_selected), train_classes=setting(train_kept, is_train_selected)
    )
    splits = dataset.load()
    order = kept if is_selected else every_class
    train_order = train_kept if is_train_selected else order
    for images, all_labels, allowed in ((splits.train, train, train_order), (splits.test, test, order)):
        rows = [row for row, label in enumerate(all_labels) if label in allowed]
        assert images.pixels.flatten().tolist() == rows
        assert images.classes.tolist() == [order.index(all_labels[row]) for row in rows]
        if is_selected:
            assert images.class_names == tuple(names[number] if names else str(number) for number in order)
        else:
            assert images.class_names == names
    # The pixels are the rows of each split; the test images are counted after the training images.
    for images, start in ((splits.train, 0), (splits.validation, 0), (splits.test, len(train))):
        assert images.rows is not None
        assert images.rows.tolist() == [start + row for row in images.pixels.flatten().tolist()]


def test_validation_and_subset_are_taken_from_the_kept_classes() -> None:
    dataset = Digits(classes=[3, 5], validation=50, subset=100)
    splits = dataset.load()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (100, 50, len(splits.test))
    for images in (splits.train, splits.validation, splits.test):
        assert images.classes.unique().tolist() == [0, 1]
        assert images.class_names == ("3", "5")
    everything = Digits().load()
    expected = everything.test.pixels[torch.isin(everything.test.classes, torch.tensor([3, 5]))]
    assert torch.equal(Digits(classes=["5", "3"]).load().test.pixels, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["dog", "cow"]}, r"classes=\[dog,cow\]: no class 'cow'.*: use 0 \(cat\), 1 \(dog\), 2 \(elk\)"),
        ({"train_classes": [3]}, r"train_classes=\[3\]: no class 3 .*0 \(cat\)"),
        ({"classes": ["dog", 1]}, r"classes=\[dog,1\] has dog twice"),
        ({"classes": ["dog"], "train_classes": ["cat"]}, r"train_classes=\[cat\]: cat not in classes=\[dog\]"),
        ({"classes": ["elk"]}, r"classes=\[elk\] leaves no training images"),
    ],
)
def test_wrong_selection_gives_one_message(options: dict[str, Any], message: str) -> None:
    dataset = Labelled([0, 1], [0, 1, 2], ("cat", "dog", "elk"), **options)
    with pytest.raises(ValueError, match=message) as error:
        dataset.load()
    assert len(str(error.value).splitlines()) == 1


def test_selection_without_labels_or_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes=\[0\] needs images with classes"):
        Labelled(None, [0], classes=[0]).load()
    for setting in ("classes", "train_classes"):
        with pytest.raises(ValueError, match=rf"{setting}=\[\] keeps no examples"):
            Digits(**cast(Any, {setting: []}))


def test_unknown_class_is_refused_before_training(run: Callable[..., Path]) -> None:
    from aetrain.config.errors import ConfigError

    with pytest.raises(ConfigError, match=r"dataset.classes=\[3,ten\]: no class 'ten' .*: use 0, 1, 2, 3"):
        run("dataset=digits", "dataset.classes=[3,ten]", "epochs=1", "device=cpu")


def test_labels_of_an_npz_file_are_selected_where_they_have_gaps(tmp_path: Path) -> None:
    labels = np.array([7, 40, 40, 300, 7, 300, 40, 7, 300, 40])
    np.savez(tmp_path / "x.npz", images=np.zeros((10, 4, 4), np.uint8), labels=labels)
    splits = Npz(path=str(tmp_path / "x.npz"), test_fraction=0.4, classes=[300, 7]).load()
    assert splits.train.class_names == ("300", "7")
    assert len(splits.train) + len(splits.test) == 6
    with pytest.raises(ValueError, match="no class 8 in this data set: use 7, 40, 300"):
        Npz(path=str(tmp_path / "x.npz"), classes=[8]).load()


def test_encode_names_the_files_of_the_selected_classes(run: Callable[..., Path], tmp_path: Path) -> None:
    values = {"cat": 10, "dog": 120, "elk": 240}
    for name, value in values.items():
        for number in range(8):
            file = tmp_path / "animals" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value + number).save(file)
    trained = run(
        *("dataset=folder", f"dataset.path='{tmp_path}/animals'", "dataset.size=8", "dataset.classes=[elk,cat]"),
        *("dataset.train_classes=[elk]", "dataset.validation=2", "dataset.test_fraction=0.3", "views=none"),
        *("epochs=1", "device=cpu", "model=linear", "likelihood=gaussian", "model.code_dim=2"),
    )
    encoded = run("mode=encode", f"run='{trained}'", name="codes")
    codes = np.load(encoded / "codes.npz")
    model = api.load(trained)
    names = ("elk", "cat")
    seen = []
    for split in ("train", "validation", "test"):
        files, labels = codes[f"{split}_files"], codes[f"{split}_labels"]
        assert len(files) == len(labels) == len(codes[split]) > 0
        assert [names[label] for label in labels] == [file.split("/")[0] for file in files]
        pixels = np.stack([np.asarray(Image.open(tmp_path / "animals" / file)) for file in files])
        images = torch.from_numpy(pixels).float().div(255)[:, None]
        assert np.allclose(model.encode(images).numpy(), codes[split], atol=1e-5)
        seen += files.tolist()
        if split != "test":
            assert set(labels) == {0}
    assert len(set(seen)) == len(seen)
    assert not any(file.startswith("dog") for file in seen)
    reference = Folder(path=str(tmp_path / "animals"), size=8, test_fraction=0.3)
    assert set(seen) <= {*reference.files()[0], *reference.files()[1]}


# --- The drawn shapes -------------------------------------------------------------------------------------------------


def test_shapes_are_balanced_deterministic_and_disjoint() -> None:
    train, test = Shapes().read()
    again, _ = Shapes().read()
    assert (len(train), len(test)) == (12000, 2000)
    assert train.classes.bincount().tolist() == [4000] * 3
    assert sorted(test.classes.bincount().tolist()) == [666, 667, 667]
    assert torch.equal(train.pixels, again.pixels)
    assert train.class_names == ("square", "ellipse", "heart")
    assert train.factors is not None
    assert test.factors is not None
    assert train.factors.dtype == torch.float32
    factors = torch.cat([train.factors, test.factors])
    assert len(factors.unique(dim=0)) == 14000
    assert torch.equal(train.factors[:, 0].long(), train.classes)
    assert [len(column.unique()) for column in factors.unbind(1)] == [3, 6, 40, 32, 32]
    limits = [(0, 2), (0.5, 1), (0, 2 * np.pi * 39 / 40), (0, 1), (0, 1)]
    for column, (low, high) in zip(factors.unbind(1), limits, strict=True):
        assert column.min().item() == pytest.approx(low)
        assert column.max().item() == pytest.approx(high)


def test_shapes_are_drawn_fast() -> None:
    def seconds() -> float:
        start = time.process_time()
        Shapes().read()
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 3  # 1.2 on a quiet machine


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(size=st.integers(8, 48), count=st.integers(21, 120), binary=st.booleans(), row=st.integers(0, 20))
def test_factors_reproduce_the_image(size: int, count: int, binary: bool, row: int) -> None:
    train, test = Shapes(size=size, count=count, binary=binary).read()
    assert len(train) + len(test) == count
    for images in (train, test):
        index = row % len(images)
        assert images.factors is not None
        drawn = shapes.draw_images(images.factors[index : index + 1], size, binary)
        assert torch.equal(drawn[0], images.pixels[index])
        counts = images.classes.bincount(minlength=3)
        assert int(counts.max() - counts.min()) <= 1
    if binary:
        assert set(train.pixels.unique().tolist()) <= {0, 255}


def covered_area(number: int, size: int, supersampling: int) -> Tensor:
    """Return the share of each pixel that a shape covers, by counting points inside its outline."""
    factors = torch.tensor([[number, 0.8, 0.7, 0.3, 0.6]])
    points = shapes.draw_images(factors, size * supersampling, binary=True)
    return torch.nn.functional.avg_pool2d(points.float().div(255), supersampling)[0, 0]


@pytest.mark.parametrize("number", range(3))
def test_grey_of_an_edge_is_the_covered_share(number: int) -> None:
    factors = torch.tensor([[number, 0.8, 0.7, 0.3, 0.6]])
    grey = shapes.draw_images(factors, 32)[0, 0].float().div(255)
    exact = covered_area(number, 32, 32)
    assert (grey - exact).abs().max() < 0.2  # at the corners, where the edge is not straight
    assert (grey - exact).abs().mean() < 0.002


def test_area_of_the_shapes_is_that_of_geometry() -> None:
    """In a circle of radius 1: the square has the area 2, the ellipse pi / 2, the heart that of a square and a disc."""
    radius = 1 / (2 * (1.5 - np.sqrt(0.5)))  # of the circle around a heart whose square has the diagonal 1
    heart = (0.5 + np.pi / 8) / radius**2
    for number, area in enumerate((2, np.pi / 2, heart)):
        pixels = covered_area(number, 32, 32).sum().item()
        assert pixels == pytest.approx(area * (0.8 * shapes.MAX_RADIUS * 32) ** 2, rel=5e-3)


def test_each_factor_changes_the_image_as_it_says() -> None:
    def draw(*factors: float) -> Tensor:
        return shapes.draw_images(torch.tensor([factors]), 32, binary=False)[0, 0].float()

    base = draw(2, 0.75, 0.0, 0.5, 0.5)
    assert torch.equal(base, base.flip(1)), "a heart is symmetric"
    assert base[:16].sum() > base[16:].sum(), "its tip is below"
    rows, columns = torch.arange(32.0)[:, None], torch.arange(32.0)

    def centre(image: Tensor) -> tuple[float, float]:
        return float((image * columns).sum() / image.sum()), float((image * rows).sum() / image.sum())

    (x, y), (x_right, y_right) = centre(base), centre(draw(2, 0.75, 0.0, 1.0, 0.5))
    assert (x_right - x, y_right - y) == pytest.approx((8, 0), abs=0.05)
    assert centre(draw(2, 0.75, 0.0, 0.5, 0.0))[1] - y == pytest.approx(-8, abs=0.05)
    quarter = draw(2, 0.75, np.pi / 2, 0.5, 0.5)
    assert (quarter - base.rot90(-1)).abs().max() <= 1, "a quarter turn clockwise"
    ratio = draw(1, 1.0, 0.0, 0.5, 0.5).sum() / draw(1, 0.5, 0.0, 0.5, 0.5).sum()
    assert ratio.item() == pytest.approx(4, rel=0.02)


def test_no_shape_leaves_the_image() -> None:
    """The area of a shape depends on its kind and scale alone."""
    train, _ = Shapes().read()
    assert train.factors is not None
    areas = train.pixels.flatten(1).sum(1, dtype=torch.float32) / 255
    _, group = train.factors[:, :2].unique(dim=0, return_inverse=True)
    assert int(group.max()) == 17
    for number in range(18):
        members = areas[group == number]
        assert (members / members.mean() - 1).abs().max() < 0.05


def test_factors_follow_the_images() -> None:
    train, _ = Shapes(count=210).read()
    assert train.factors is not None
    index = torch.tensor([5, 3])
    for part, expected in ((train[index], train.factors[index]), (train[2:4], train.factors[2:4])):
        assert torch.equal(part.to(torch.device("cpu")).factors, expected)  # type: ignore[arg-type]
        assert part.factor_names == ("shape", "scale", "orientation", "x", "y")
    moved = train.to(torch.device("meta"))
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, Tensor)}
    assert tensors.keys() == {"values", "labels", "factors", "rows"}
    assert all(value.is_meta for value in tensors.values()), "an index on the device selects all of them"
    splits = Shapes(count=210, classes=["heart", "square"], validation=10, subset=40, binarize="static").load()
    for images in (splits.train, splits.validation, splits.test):
        assert images.factors is not None
        assert torch.equal(images.factors[:, 0], torch.tensor([2.0, 0.0])[images.classes])
        assert images.class_names == ("heart", "square")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 7}, "size=7 is too small"), ({"count": 20}, "count=20 is not"), ({"count": 737281}, "737280")],
)
def test_impossible_shapes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shapes(**options)


# --- Runs -------------------------------------------------------------------------------------------------------------


OPTIONS = {
    Kmnist: "kmnist",
    Qmnist: "qmnist",
    Emnist: "emnist",
    Usps: "usps",
    Cifar10: "cifar10",
    Cifar100: "cifar100",
    Svhn: "svhn",
    Stl10: "stl10",
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_data_set_keeps_its_contract(
    source: type[PublishedDataset], archives: Callable[..., Content], tmp_path: Path
) -> None:
    archives(source)
    testing.check_dataset(source(path=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_each_option_trains(
    source: type[PublishedDataset], archives: Callable[..., Content], run: Callable[..., Path], tmp_path: Path
) -> None:
    archives(source)
    directory = run(
        *(f"dataset={OPTIONS[source]}", f"data_dir='{tmp_path}'", "epochs=1", "views=none", "device=cpu"),
        *("model=linear", "likelihood=gaussian", "model.code_dim=2", "dataset.classes=[1,0]"),
        "dataset.random_crop=8",  # PCA of all pixels of a colour image takes half a minute
    )
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert metrics["test/sse"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("model", groups()["model"])
@pytest.mark.usefixtures("small_figures")
def test_colour_works_in_every_model_view_and_metric(model: str, run: Callable[..., Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    arrays: dict[str, Any] = {
        "x_train": pixels[:40],
        "y_train": labels[:40],
        "x_test": pixels[40:],
        "y_test": labels[40:],
    }
    np.savez(tmp_path / "colour.npz", **arrays)
    directory = run(
        *(f"model={model}", "dataset=npz", f"dataset.path='{tmp_path / 'colour.npz'}'", "noise=blur", "device=cpu"),
        *("epochs=1", "batch_size=20", "views=all", "measures=[robustness,probes,retrieval]"),
    )
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    with Image.open(directory / "figures" / "reconstructions.png") as picture:
        red, _, blue = picture.convert("RGB").split()
        assert red.tobytes() != blue.tobytes()
