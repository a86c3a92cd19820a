"""Published data sets whose addresses and MD5 sums torchvision has, beside MNIST, Fashion-MNIST and CIFAR.

Their files are parsed here, from the archives as published. The labels start from 0.
"""

import bz2
import gzip
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.mnist import Archives, parse_idx
from aetrain.data.published_dataset import CACHE, Arrays, PublishedDataset, PublishedFile, read_tar, to_labels

SPLITS = ("train", "test")

UPPER_CASE = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LOWER_CASE = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")
# Lower-case letters that do not look like their upper-case form: the others are merged with it.
DISTINCT_LOWER_CASE = tuple("abdefghnqrt")

EmnistSplit = Literal["letters", "balanced", "byclass", "bymerge", "digits", "mnist"]


@final
@dataclass(kw_only=True)
class Kmnist(Archives):
    """Kuzushiji-MNIST (Clanuwat et al. 2018): ten characters of cursive Japanese in the format of MNIST."""

    name: ClassVar[str] = "KMNIST"
    shapes: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    names: ClassVar[tuple[str, ...]] = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@final
@dataclass(kw_only=True)
class Qmnist(Archives):
    """QMNIST (Yadav & Bottou 2019): MNIST rebuilt from its source, with 60000 test images in place of 10000."""

    name: ClassVar[str] = "QMNIST"
    shapes: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    array_names: ClassVar[Sequence[str]] = (
        "qmnist-train-images-idx3-ubyte",
        "qmnist-train-labels-idx2-int",
        "qmnist-test-images-idx3-ubyte",
        "qmnist-test-labels-idx2-int",
    )

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the four archives, each with one address."""
        return [published_at(url, md5) for split in SPLITS for url, md5 in source.resources[split]]

    def parse(self, file: Path) -> Arrays:
        """Return the array of a file; of the eight numbers about an image the first is its class."""
        arrays = super().parse(file)
        return {name: to_labels(array[:, 0]) if array.dim() == 2 else array for name, array in arrays.items()}


@final
@dataclass(kw_only=True)
class Emnist(PublishedDataset):
    """EMNIST (Cohen et al. 2017): handwritten letters and digits, 28x28, in the format of MNIST.

    `split` chooses the images and classes: `letters` (26, upper and lower case as one), `byclass` (10 digits, 26 upper
    and 26 lower case letters), `bymerge` and `balanced` (47: 15 lower case letters are as their upper case), `digits`
    and `mnist`.
    """

    split: EmnistSplit = "letters"

    name: ClassVar[str] = "EMNIST"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 28, 28)."""
        return 1, 28, 28

    @property
    def class_names(self) -> tuple[str, ...]:
        """The characters of the split."""
        match self.split:
            case "letters":
                return LOWER_CASE
            case "byclass":
                return (*DIGITS, *UPPER_CASE, *LOWER_CASE)
            case "balanced" | "bymerge":
                return (*DIGITS, *UPPER_CASE, *DISTINCT_LOWER_CASE)
            case _:
                return DIGITS

    @property
    def cache_name(self) -> str:
        """The name of the cache: each split has its own."""
        return f"{self.split}.{CACHE}"

    @property
    def file_names(self) -> Sequence[str]:
        """The name of the archive of all splits."""
        return ["gzip.zip"]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the archive of all splits."""
        return [published_at(source.url, source.md5)]

    def parse(self, file: Path) -> Arrays:
        """Return the arrays of the split; the published images are transposed, and letters start from 1."""
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            for split in SPLITS:
                prefix = f"gzip/emnist-{self.split}-{split}"
                images = parse_idx(gzip.decompress(archive.read(f"{prefix}-images-idx3-ubyte.gz")))
                labels = parse_idx(gzip.decompress(archive.read(f"{prefix}-labels-idx1-ubyte.gz")))
                arrays[f"{split}_images"] = images.transpose(1, 2).contiguous()
                arrays[f"{split}_labels"] = to_labels(labels.int() - int(self.split == "letters"))
        return arrays


@final
@dataclass(kw_only=True)
class Usps(PublishedDataset):
    """USPS (Hull 1994): digits from envelopes, 16x16, grey on black; 7291 to train on, 2007 to test with.

    The text files of LIBSVM. Values from -1 to 1 become 0..255.
    """

    name: ClassVar[str] = "USPS"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 16, 16)."""
        return 1, 16, 16

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty: the classes are digits."""
        return ()

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def file_names(self) -> Sequence[str]:
        """The names of the training and the test file."""
        return ["usps.bz2", "usps.t.bz2"]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the training and the test file."""
        return files_of_splits(source.split_list)

    def parse(self, file: Path) -> Arrays:
        """Return the arrays of a file of lines `label index:value ...`, with labels from 1."""
        from sklearn.datasets import load_svmlight_file

        with bz2.open(file) as stream:
            values, labels = load_svmlight_file(stream, n_features=256, dtype=np.float32, zero_based=False)
        grey = (values.toarray() + 1) / 2 * 255  # [N, 256] float32; rounded down, as by torchvision
        if grey.min() < 0 or grey.max() > 255:
            raise ValueError("it holds values outside of -1 to 1")
        split = "test" if file.name == self.file_names[1] else "train"
        return {
            f"{split}_images": torch.from_numpy(grey.astype(np.uint8)).view(-1, 16, 16),
            f"{split}_labels": to_labels(torch.from_numpy(labels) - 1),
        }


@final
@dataclass(kw_only=True)
class Svhn(PublishedDataset):
    """SVHN (Netzer et al. 2011): house numbers, 32x32, colour; 73257 to train on, 26032 to test with.

    The cropped digits, without the 531131 easier ones of the set `extra`.
    """

    name: ClassVar[str] = "SVHN"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return 3, 32, 32

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty: the classes are digits."""
        return ()

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def file_names(self) -> Sequence[str]:
        """The names of the training and the test file."""
        return ["train_32x32.mat", "test_32x32.mat"]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the training and the test file."""
        return files_of_splits(source.split_list)

    def parse(self, file: Path) -> Arrays:
        """Return the arrays of a MATLAB file with X [32, 32, 3, N] and y [N, 1], in which the digit 0 is 10."""
        from scipy.io import loadmat

        content = loadmat(file, variable_names=("X", "y"))
        split = file.name.split("_")[0]
        images = np.ascontiguousarray(np.transpose(content["X"], (3, 2, 0, 1)))
        return {
            f"{split}_images": torch.from_numpy(images),
            f"{split}_labels": to_labels(torch.from_numpy(content["y"].astype(np.int64)).flatten() % 10),
        }


@final
@dataclass(kw_only=True)
class Stl10(PublishedDataset):
    """STL-10 (Coates, Ng & Lee 2011): photographs of ten kinds of things, 96x96, colour.

    The labelled images alone, 5000 to train on and 8000 to test with; the 100000 without labels are not read.
    """

    name: ClassVar[str] = "STL10"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(3, 96, 96)."""
        return 3, 96, 96

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"

    @property
    def file_names(self) -> Sequence[str]:
        """The name of the archive."""
        return ["stl10_binary.tar.gz"]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the archive."""
        return [PublishedFile(source.filename, source.tgz_md5, [source.url])]

    def parse(self, file: Path) -> Arrays:
        """Return the arrays of the archive: bytes in the order N, channel, column, row, and labels from 1."""
        folder = "stl10_binary"
        members = read_tar(file, [f"{folder}/{split}_{kind}.bin" for split in SPLITS for kind in ("X", "y")])
        arrays = {}
        for split in SPLITS:
            images = to_bytes(members[f"{folder}/{split}_X.bin"]).view(-1, 3, 96, 96)
            labels = to_bytes(members[f"{folder}/{split}_y.bin"])
            arrays[f"{split}_images"] = images.transpose(2, 3).contiguous()
            arrays[f"{split}_labels"] = to_labels(labels.int() - 1)
        return arrays


def published_at(url: str, md5: str) -> PublishedFile:
    """Return a file with one address, under the name that it has there."""
    return PublishedFile(url.rpartition("/")[2], md5, [url])


def files_of_splits(split_list: Mapping[str, Sequence[str]]) -> list[PublishedFile]:
    """Return the training and the test file of a table of address, name and MD5 sum by split."""
    return [PublishedFile(name, md5, [url]) for url, name, md5 in (split_list[split] for split in SPLITS)]


def to_bytes(content: bytes) -> Tensor:
    """Return bytes as a tensor [N] uint8."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
