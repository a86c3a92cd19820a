"""A data set of a user's own arrays in an .npz file."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.dataset import Dataset, fixed_order
from aetrain.data.images import Images
from aetrain.data.user_files import Array, check_fraction, describe_error, describe_path, test_count

# Names of images and their labels: of a training and a test split, or of all images, which are then split.
Layout = tuple[tuple[str, str], ...]
LAYOUTS: tuple[Layout, ...] = (
    (("x_train", "y_train"), ("x_test", "y_test")),
    (("train", "train_labels"), ("test", "test_labels")),
    (("images", "labels"),),
    (("x", "y"),),
)


class Header(NamedTuple):
    """The shape and type of an array in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@final
@dataclass(kw_only=True)
class Npz(Dataset):
    """Arrays in a NumPy .npz file: `x_train` and `x_test` (and `y_train`, `y_test`), as in Keras' mnist.npz.

    Or `train` and `test` (and `train_labels`, `test_labels`); or all in one, `images` (and `labels`) or `x` (and `y`),
    of which `test_fraction` are for testing, the same ones in every run. Images are [N, H, W], [N, C, H, W] or
    [N, H, W, C] with 1 or 3 channels (the first of these that fits), of uint8 0..255, bool, or floats in [0, 1], which
    are rounded to 8 bits. Labels are integers from 0, [N] or [N, 1].
    """

    path: str
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W), from the headers of the arrays; a ValueError where they are not images and labels."""
        headers, shapes = self._headers(), {}
        for images, labels in self._splits(headers):
            shapes[images] = self._image_shape(images, headers[images])
            if labels:
                self._check_labels(labels, headers[labels], headers[images].shape[0])
        first, *others = shapes.values()
        if not others and headers[next(iter(shapes))].shape[0] < 2:
            raise self._error(f"{next(iter(shapes))} has only 1 image, and 2 are needed to train and to test")
        if others != [first] * len(others):
            both = ", ".join(f"{name} is {headers[name]}" for name in shapes)
            raise self._error(f"{both}: their images must be of one shape")
        return first

    def read(self) -> tuple[Images, Images]:
        """Return the training and test images in the order in which they are stored."""
        headers, stored_shape = self._headers(), self.stored_shape
        splits = [
            Images(self._pixels(images, stored_shape), self._labels(labels) if labels else None)
            for images, labels in self._splits(headers)
        ]
        if len(splits) == 2:
            return splits[0], splits[1]
        (images,) = splits
        order = fixed_order(len(images))
        count = test_count(len(images), self.test_fraction)
        return images[order[count:].sort().values], images[order[:count].sort().values]

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"path={self.path!r}: {problem}")

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        """Yield the file for reading; every exception while it is read means that the file is damaged."""
        path = Path(os.path.expanduser(self.path))
        if not os.path.isfile(path):
            raise ValueError(f"path={self.path!r} {describe_path(path)}: use an .npz file")
        try:
            with warnings.catch_warnings(), zipfile.ZipFile(path) as file:
                warnings.simplefilter("ignore")  # NumPy's, about headers written by Python 2
                yield file
        except Exception as error:  # NumPy and zipfile raise any exception about bytes of another format
            raise self._error(
                f"cannot be read as an .npz file ({describe_error(error)}): "
                "save it again with numpy.savez(path, x_train=..., x_test=...)"
            ) from None

    def _headers(self) -> dict[str, Header]:
        """Return the shapes and types of the file's arrays by name, without reading the arrays."""
        headers = {}
        with self._open() as file:
            for member in file.infolist():
                if member.filename.endswith(".npy"):
                    with file.open(member) as stream:
                        header = read_header(stream, member.filename, member.file_size)
                    headers[member.filename.removesuffix(".npy")] = header
        return headers

    def _array(self, name: str) -> Array:
        with self._open() as file, file.open(f"{name}.npy") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    def _splits(self, headers: dict[str, Header]) -> list[tuple[str, str | None]]:
        """Return the names of images and labels (None where there are none): of two splits, or of all images."""
        for layout in LAYOUTS:
            if any(images not in headers for images in image_names(layout)):
                continue
            missing = [labels for _, labels in layout if labels not in headers]
            if 0 < len(missing) < len(layout):
                raise self._error(f"has labels for one split, but no {missing[0]}: add it, or leave out both")
            return [(images, None if missing else labels) for images, labels in layout]
        content = ", ".join(headers) or "no arrays"
        choices = " or ".join(" and ".join(image_names(layout)) for layout in LAYOUTS)
        raise self._error(f"holds {content}, but should hold {choices}")

    def _image_shape(self, name: str, header: Header) -> tuple[int, int, int]:
        """Return (C, H, W) of the images in an array; raise ValueError where it holds no images."""
        shape, dtype = header
        if not (dtype == np.uint8 or dtype.kind in "bf"):
            raise self._error(f"{name} is {header}: use uint8 from 0 to 255, floats from 0 to 1, or bool")
        if 0 in shape:
            raise self._error(f"{name} is empty ({header})")
        match shape:
            case (_, height, width):
                return 1, height, width
            case (_, (1 | 3) as channels, height, width) | (_, height, width, (1 | 3) as channels):
                image_shape = channels, height, width
                return image_shape
        raise self._error(f"{name} is {header}: use [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels")

    def _check_labels(self, name: str, header: Header, count: int) -> None:
        if header.shape not in ((count,), (count, 1)) or header.dtype.kind not in "iu":
            raise self._error(f"{name} is {header}: use one integer for each of the {count} images")

    def _pixels(self, name: str, stored_shape: tuple[int, int, int]) -> Tensor:
        """Return the images as uint8 [N, C, H, W]."""
        array = self._array(name)
        if array.dtype.kind == "b":
            array = array.astype(np.uint8) * np.uint8(255)
        elif array.dtype.kind == "f":
            low, high = array.min(), array.max()  # NaN where any value is NaN
            if not (low >= 0 and high <= 1):
                raise self._error(f"{name} has values from {low:g} to {high:g}: use floats from 0 to 1, or uint8")
            array = np.rint(np.multiply(array, 255, dtype=np.float32)).astype(np.uint8)
        if array.ndim == 4 and array.shape[1:] != stored_shape:
            array = np.moveaxis(array, 3, 1)
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *stored_shape)

    def _labels(self, name: str) -> Tensor:
        """Return the labels as int64 [N]."""
        labels = torch.from_numpy(self._array(name).astype(np.int64)).flatten()
        if labels.min() < 0:
            raise self._error(f"{name} has negative labels: use integers from 0")
        return labels


def image_names(layout: Layout) -> list[str]:
    """Return the names of the arrays of images in a layout."""
    return [images for images, _ in layout]


def read_header(stream: IO[bytes], name: str, num_bytes: int) -> Header:
    """Return the header of an .npy stream of `num_bytes` bytes.

    Raise ValueError where the array has not the size that the header states, before memory is allocated for it. The
    size of pickled objects is not known.
    """
    is_version_1 = np.lib.format.read_magic(stream) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_version_1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != num_bytes - stream.tell():
        raise ValueError(f"{name} has not the size that it states")
    return Header(shape, dtype)
