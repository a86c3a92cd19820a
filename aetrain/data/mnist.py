"""MNIST, Fashion-MNIST, and other data sets in their format: four idx archives of grey images."""

import gzip
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.published_dataset import Arrays, PublishedDataset, PublishedFile, format_shape

# The four idx files and the shapes of their arrays; an archive has the same name with .gz.
SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}

# The type of an idx file's values, by its third byte.
IDX_DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 12: np.dtype(">i4")}


@dataclass(kw_only=True)
class Archives(PublishedDataset):
    """A data set published as four idx archives of 28x28 grey images in ten classes.

    An unpacked file is read where its archive is missing. `shapes` are those of the arrays where they are fixed.
    """

    array_names: ClassVar[Sequence[str]] = tuple(SHAPES)
    shapes: ClassVar[Mapping[str, tuple[int, ...]]] = SHAPES
    names: ClassVar[tuple[str, ...]] = ()  # of the classes; empty where they are numbers only

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 28, 28)."""
        return 1, 28, 28

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; empty where they are digits."""
        return self.names

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def file_names(self) -> Sequence[str]:
        """The names of the four archives."""
        return [f"{name}.gz" for name in self.array_names]

    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the four archives, each of which every mirror has."""
        files = []
        for name, md5 in source.resources:
            urls = [mirror + name for mirror in source.mirrors]
            files.append(PublishedFile(name, md5, urls))
        return files

    def find_file(self, folder: Path, name: str) -> Path | None:
        """Return the archive, whose MD5 sum is known, else the unpacked file, else None."""
        files = (folder / name, folder / name.removesuffix(".gz"))
        return next((file for file in files if os.path.isfile(file)), None)

    def parse(self, file: Path) -> Arrays:
        """Return the array of an archive or an unpacked file, uint8."""
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        name = file.name.removesuffix(".gz")
        return {name: parse_idx(content, self.shapes.get(name))}

    def check_arrays(self, arrays: Arrays) -> None:
        """Raise ValueError where arrays are no images and labels of this data set."""
        super().check_arrays(arrays)
        for name, shape in self.shapes.items():
            if name in arrays and arrays[name].shape != shape:
                raise ValueError(f"it does not hold {format_shape(shape)} bytes")


@final
@dataclass(kw_only=True)
class Mnist(Archives):
    """MNIST (LeCun et al. 1998): handwritten digits, 28x28, grey on black; 60000 to train on, 10000 to test with."""

    name: ClassVar[str] = "MNIST"


@final
@dataclass(kw_only=True)
class FashionMnist(Archives):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): ten kinds of clothing in the format of MNIST."""

    name: ClassVar[str] = "FashionMNIST"
    names: ClassVar[tuple[str, ...]] = (
        *("T-shirt", "trousers", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "boot"),
    )


def parse_idx(content: bytes, shape: Sequence[int] | None = None) -> Tensor:
    """Return the array of an idx file: uint8, or int32 where the file has these.

    An idx file is two zeros, 8 for uint8 or 12 for int32, the number of dimensions, the dimensions as int32, the
    values; all numbers are big-endian. Raise ValueError where the content is of another format, or not of a known
    `shape`.
    """
    start = 4 + 4 * content[3] if len(content) >= 4 else 4
    if len(content) < start or content[:2] != b"\0\0" or content[2] not in IDX_DTYPES:
        expected = "an idx file" if shape is None else f"{format_shape(shape)} bytes"
        raise ValueError(f"it does not hold {expected}")
    dtype = IDX_DTYPES[content[2]]
    stated_shape = struct.unpack(f">{content[3]}i", content[4:start])
    expected_shape = tuple(stated_shape if shape is None else shape)
    num_bytes = math.prod(expected_shape) * dtype.itemsize
    if stated_shape != expected_shape or len(content) != start + num_bytes:
        raise ValueError(f"it does not hold {format_shape(expected_shape)} bytes")
    values = np.frombuffer(bytearray(content), dtype, offset=start).reshape(expected_shape)
    return torch.from_numpy(values if dtype.itemsize == 1 else values.astype(np.int32))
