"""A user's own images: arrays in an .npz file."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.dataset import SPLIT_SEED, Dataset, Images
from aetrain.data.own import Array, check_fraction, instead, share

# Names of images and their labels, for training and for the test, or to be split.
LAYOUTS = (
    (("x_train", "y_train"), ("x_test", "y_test")),
    (("train", "train_labels"), ("test", "test_labels")),
    (("images", "labels"),),
    (("x", "y"),),
)


class Header(NamedTuple):
    """What an array in the file is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@final
@dataclass(kw_only=True)
class Npz(Dataset):
    """Arrays in a NumPy .npz file: `x_train` and `x_test` (and `y_train`, `y_test`), as in Keras' mnist.npz.

    Or `train` and `test` (and `train_labels`, `test_labels`); or all in one, `images` (and `labels`) or `x` (and `y`),
    of which `test_fraction` are for the test, the same ones in every run. Images are [N, H, W], [N, C, H, W] or
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
        """(C, H, W), from the headers of the arrays."""
        headers, shapes = self._headers(), {}
        for images, labels in self._parts(headers):
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
        """The images in the order in which they are stored."""
        headers, stored_shape = self._headers(), self.stored_shape
        parts = [
            Images(self._pixels(images, stored_shape), self._labels(labels) if labels else None)
            for images, labels in self._parts(headers)
        ]
        if len(parts) == 2:
            return parts[0], parts[1]
        (everything,) = parts
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(SPLIT_SEED))
        count = share(len(everything), self.test_fraction)
        return everything[order[count:].sort().values], everything[order[:count].sort().values]

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"path={self.path!r}: {problem}")

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        """The file, for reading alone: whatever goes wrong inside is damage."""
        path = Path(os.path.expanduser(self.path))
        if not os.path.isfile(path):
            raise ValueError(f"path={self.path!r} {instead(path)}: use an .npz file")
        try:
            with warnings.catch_warnings(), zipfile.ZipFile(path) as file:
                warnings.simplefilter("ignore")  # NumPy's, about headers written by Python 2
                yield file
        except Exception as reason:  # NumPy and zipfile raise anything about bytes they did not write
            why = " ".join(str(reason).split()) or type(reason).__name__
            raise self._error(
                f"cannot be read as an .npz file ({why}): save it again with numpy.savez(path, x_train=..., x_test=...)"
            ) from None

    def _headers(self) -> dict[str, Header]:
        """What the file holds, without reading it."""
        headers = {}
        with self._open() as file:
            for member in file.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                with file.open(member) as stream:
                    old = np.lib.format.read_magic(stream) == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(stream)
                    # Before memory is asked for; the size of pickled objects is not known.
                    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                        raise ValueError(f"{member.filename} has not the size that it states")
                headers[member.filename.removesuffix(".npy")] = Header(shape, dtype)
        return headers

    def _array(self, name: str) -> Array:
        with self._open() as file, file.open(f"{name}.npy") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    def _parts(self, headers: dict[str, Header]) -> list[tuple[str, str | None]]:
        """The names of images and labels (None where there are none): of two splits, or of one to be split."""
        for layout in LAYOUTS:
            if any(images not in headers for images, _ in layout):
                continue
            missing = [labels for _, labels in layout if labels not in headers]
            if 0 < len(missing) < len(layout):
                raise self._error(f"has labels for one split, but no {missing[0]}: add it, or leave out both")
            return [(images, None if missing else labels) for images, labels in layout]
        wanted = " or ".join(" and ".join(images for images, _ in layout) for layout in LAYOUTS)
        raise self._error(f"holds {', '.join(headers) or 'no arrays'}, but should hold {wanted}")

    def _image_shape(self, name: str, header: Header) -> tuple[int, int, int]:
        """(C, H, W) of the images in an array, or what is wrong with it."""
        shape, dtype = header
        if not (dtype == np.uint8 or dtype.kind in "bf"):
            raise self._error(f"{name} is {header}: use uint8 from 0 to 255, floats from 0 to 1, or bool")
        if 0 in shape:
            raise self._error(f"{name} is empty ({header})")
        match shape:
            case (_, height, width):
                return 1, height, width
            case (_, (1 | 3) as channels, height, width) | (_, height, width, (1 | 3) as channels):
                found = channels, height, width
                return found
        raise self._error(f"{name} is {header}: use [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels")

    def _check_labels(self, name: str, header: Header, count: int) -> None:
        if header.shape not in ((count,), (count, 1)) or header.dtype.kind not in "iu":
            raise self._error(f"{name} is {header}: use one integer for each of the {count} images")

    def _pixels(self, name: str, stored_shape: tuple[int, int, int]) -> Tensor:
        """The images as uint8 [N, C, H, W]."""
        array = self._array(name)
        if array.dtype.kind == "b":
            array = array.astype(np.uint8) * np.uint8(255)
        elif array.dtype.kind == "f":
            low, high = array.min(), array.max()  # NaN where there is one
            if not (low >= 0 and high <= 1):
                raise self._error(f"{name} has values from {low:g} to {high:g}: use floats from 0 to 1, or uint8")
            array = np.rint(np.multiply(array, 255, dtype=np.float32)).astype(np.uint8)
        if array.ndim == 4 and array.shape[1:] != stored_shape:
            array = np.moveaxis(array, 3, 1)
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *stored_shape)

    def _labels(self, name: str) -> Tensor:
        """The labels as int64 [N]."""
        labels = torch.from_numpy(self._array(name).astype(np.int64)).flatten()
        if labels.min() < 0:
            raise self._error(f"{name} has negative labels: use integers from 0")
        return labels
