"""CIFAR-10 and CIFAR-100: photographs of 32x32 pixels in colour, published as pickles.

The pickles are read without running code that they name.
"""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch

from aetrain.data.published_dataset import Arrays, PublishedDataset, PublishedFile, read_tar, to_labels
from aetrain.data.user_files import Array

# In the order of their numbers, which is alphabetical.
CIFAR100_CLASSES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl"),
    *("boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair"),
    *("chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin"),
    *("elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp"),
    *("lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck"),
    *("pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road"),
    *("rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television"),
    *("tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf"),
    *("woman", "worm"),
)


@dataclass(kw_only=True)
class _Cifar(PublishedDataset):
    """CIFAR: photographs of 32x32, colour; 50000 to train on, 10000 to test with. The version for Python."""

    archive: ClassVar[str]
    train_members: ClassVar[Sequence[str]]
    test_members: ClassVar[Sequence[str]]
    label_key: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return 3, 32, 32

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.names

    @property
    def file_names(self) -> Sequence[str]:
        """The name of the archive."""
        return [self.archive]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the archive."""
        return [PublishedFile(source.filename, source.tgz_md5, [source.url])]

    def parse(self, file: Path) -> Arrays:
        """Return the arrays of the archive: pickles of a dict with rows [N, 3072] and a list of labels."""
        members = read_tar(file, (*self.train_members, *self.test_members))
        arrays = {}
        for split, names in zip(("train", "test"), (self.train_members, self.test_members), strict=True):
            batches = [load_arrays(members[name]) for name in names]
            images = np.concatenate([batch["data"] for batch in batches])
            labels = np.concatenate([batch[self.label_key] for batch in batches])
            arrays[f"{split}_images"] = torch.from_numpy(images).view(-1, 3, 32, 32)
            arrays[f"{split}_labels"] = to_labels(torch.from_numpy(labels))
        return arrays


@final
@dataclass(kw_only=True)
class Cifar10(_Cifar):
    """CIFAR-10 (Krizhevsky 2009): photographs of ten kinds of things, 32x32, colour."""

    name: ClassVar[str] = "CIFAR10"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    train_members: ClassVar[Sequence[str]] = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]
    test_members: ClassVar[Sequence[str]] = ["cifar-10-batches-py/test_batch"]
    label_key: ClassVar[str] = "labels"
    names: ClassVar[tuple[str, ...]] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )


@final
@dataclass(kw_only=True)
class Cifar100(_Cifar):
    """CIFAR-100 (Krizhevsky 2009): photographs of a hundred kinds of things, 32x32, colour."""

    name: ClassVar[str] = "CIFAR100"
    archive: ClassVar[str] = "cifar-100-python.tar.gz"
    train_members: ClassVar[Sequence[str]] = ["cifar-100-python/train"]
    test_members: ClassVar[Sequence[str]] = ["cifar-100-python/test"]
    label_key: ClassVar[str] = "fine_labels"
    names: ClassVar[tuple[str, ...]] = CIFAR100_CLASSES


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler of NumPy arrays in dicts, lists, strings and numbers; everything else is refused.

    A pickle can call any function that it names. The archive is verified before, but MD5 is no secure hash. The three
    names below are those that NumPy's arrays need, and they run no code.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what makes an array; raise UnpicklingError for any other name."""
        allowed = {
            # The function by which arrays are pickled; its module has another name in NumPy 1 and 2.
            "_reconstruct": np.empty(0).__reduce__()[0],
            "ndarray": np.ndarray,
            "dtype": np.dtype,
        }
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        return allowed[name]


def load_arrays(content: bytes) -> dict[str, Array]:
    """Return the arrays and lists in a pickled dict, written by Python 2, by their keys."""
    batch = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    return {key: np.asarray(value) for key, value in batch.items() if key in ("data", "labels", "fine_labels")}
