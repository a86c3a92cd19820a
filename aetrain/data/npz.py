"""A data set of a user's own arrays in an .npz file, or in .npy files."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.arrays import stored_image_shape
from aetrain.data.class_numbers import number_labels
from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Examples
from aetrain.data.mapped_rows import MappedRows, largest_value
from aetrain.data.npy_files import NpyFiles, chunks, map_images, value_range
from aetrain.data.npz_file import WHOLE_LAYOUTS, Arrays, Header, NpzFile
from aetrain.data.pixel_values import MAX_DARK, StoredValues, to_bytes
from aetrain.data.split_names import resembles_split
from aetrain.data.user_dataset import UserDataset
from aetrain.data.user_files import Array, quote_names, test_count


@final
@dataclass(kw_only=True)
class Npz(UserDataset):
    """Arrays in a NumPy .npz file: `x_train` and `x_test` (and `y_train`, `y_test`), as in Keras' mnist.npz.

    Or `train` and `test` (and `train_labels`, `test_labels`), or `train_images` and `test_images`; or all in one,
    `images` (and `labels`) or `x` (and `y`). `x_val` and so on are validation images. Any spelling of `split_names` is
    understood, in any case. Without test images `test_fraction` of the images are for testing, the same ones in every
    run. Images are [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels (the first of these that fits), of
    uint8 0..255, bool, or floats in [0, 1], or of any numbers from 0 where `white` is set; they are rounded to 8 bits.
    Labels are whole numbers or texts, [N] or [N, 1].

    `path` may also be a folder of .npy files with these names (x_train.npy and so on), or one .npy file of images. They
    are memory-mapped: a batch is read when it is needed.
    """

    @property
    def file(self) -> NpzFile:
        """The file, or the files of its arrays."""
        return NpyFiles(self.path) if NpyFiles.are_at(self.path) else NpzFile(self.path)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W), from the headers of the arrays; a ValueError where they are not images and labels."""
        headers, shapes = self.file.headers(), {}
        splits = self._splits(headers)
        for images, labels in splits.values():
            shapes[images] = self._image_shape(images, headers[images])
            if labels:
                self._check_labels(labels, headers[labels], headers[images].shape[0])
        first, *others = shapes.values()
        if others != [first] * len(others):
            both = ", ".join(f"{name} is {headers[name]}" for name in shapes)
            raise self.file.error(f"{both}: their images must be of one shape")
        return first

    def read(self) -> tuple[Examples, ...]:
        """Return the images of the splits in the order in which they are stored."""
        headers, stored_shape = self.file.headers(), self.stored_shape
        splits = self._splits(headers)
        self._warn_of_arrays_like_splits(headers, splits)
        self.values = StoredValues(self.white)
        pixels = [self._pixels(arrays.images, stored_shape) for arrays in splits.values()]
        self.warn_of_clipping()
        images = dict(zip(splits, self._images(pixels, [arrays.labels for arrays in splits.values()]), strict=True))
        train, test = images["train"], images.get("test")
        if test is None:
            train, test = self._cut_test_images(train, splits["train"])
        return (train, test, images["validation"]) if "validation" in images else (train, test)

    def _splits(self, headers: dict[str, Header]) -> dict[str, Arrays]:
        """Return the names of the arrays of each split."""
        splits = self.file.splits(headers)
        if "validation" in splits:
            self.check_own_validation(f"array {splits['validation'].images!r}")
        return splits

    def _cut_test_images(self, images: Examples, arrays: Arrays) -> tuple[Examples, Examples]:
        """Return training and test images out of those of a file without test images."""
        images = replace(images, rows=torch.arange(len(images)))
        order = fixed_order(len(images))
        count = test_count(len(images), self.test_fraction)
        if arrays.images.lower() not in dict(WHOLE_LAYOUTS):
            self.add_conversion(
                f"{self.path} has no test images: {count:,} of the {len(images):,} in {arrays.images} are for test "
                f"(dataset.test_fraction={self.test_fraction:g})"
            )
        return images[order[count:].sort().values], images[order[:count].sort().values]

    def _warn_of_arrays_like_splits(self, headers: dict[str, Header], splits: dict[str, Arrays]) -> None:
        """Warn of arrays whose names suggest a split, and which are not read."""
        used = {name for arrays in splits.values() for name in arrays}
        names = [name for name in headers if name not in used and resembles_split(name)]
        if names:
            self.add_warning(
                f"{self.path}: no images are read from {quote_names(names)}: the arrays of splits are x_train, x_test "
                "and x_val"
            )

    def _image_shape(self, name: str, header: Header) -> tuple[int, int, int]:
        """Return (C, H, W) of the images in an array; raise ValueError where it holds no images."""
        shape, dtype = header
        if dtype.kind not in ("b", "f", "u", "i") or (self.white is None and dtype.kind in "ui" and dtype != np.uint8):
            raise self.file.error(
                f"{name} is {header}: use uint8 from 0 to 255, floats from 0 to 1, or bool; or name the value that is "
                "white, such as dataset.white=65535"
            )
        if 0 in shape:
            raise self.file.error(f"{name} is empty ({header})")
        if (image_shape := stored_image_shape(shape)) is not None:
            return image_shape
        raise self.file.error(f"{name} is {header}: use [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels")

    def _check_labels(self, name: str, header: Header, count: int) -> None:
        if header.shape not in ((count,), (count, 1)) or header.dtype.kind not in "biufU":
            raise self.file.error(f"{name} is {header}: use one integer or text for each of the {count} images")

    def _pixels(self, name: str, stored_shape: tuple[int, int, int]) -> Tensor | MappedRows:
        """Return the images as uint8 [N, C, H, W]; add their values to `values`. Those of .npy files stay there."""
        file, array = self.file, self.file.array(name)
        white = self.white or (255.0 if array.dtype == np.uint8 else 1.0)
        if isinstance(file, NpyFiles):
            return self._map(file, name, array, white, stored_shape)
        self._check_values(name, array.min(), array.max(), white)
        self.values.add(array, white)
        if self.white or array.dtype.kind != "u":
            array = to_bytes(array, white)
        if array.ndim == 4 and array.shape[1:] != stored_shape:
            array = np.moveaxis(array, 3, 1)
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *stored_shape)

    def _map(
        self, file: NpyFiles, name: str, array: Array, white: float, stored_shape: tuple[int, int, int]
    ) -> MappedRows:
        """Return images whose rows are read when they are needed; bytes need no check of their values."""
        mapped = map_images(array, file.path_of(name), stored_shape, white)
        if array.dtype == np.uint8 and white == 255:
            self.values.add_largest(largest_value(mapped, enough=MAX_DARK), white)
        else:
            self._check_values(name, *value_range(array), white)
            for part in chunks(array):
                self.values.add(part, white)
        return mapped

    def _check_values(self, name: str, low: Any, high: Any, white: float) -> None:
        """Raise ValueError where the smallest or the largest value, NaN where any is, is no value of a pixel."""
        if not (low >= 0 and high <= (np.finfo(np.float64).max if self.white else white)):
            number = int(high) if np.isfinite(high) else 255
            allowed = "values from 0" if self.white else "floats from 0 to 1, or uint8"
            fix = f"; or dataset.white={number} where {number} is white" if not self.white and low >= 0 else ""
            raise self.file.error(f"{name} has values from {low:g} to {high:g}: use {allowed}{fix}")

    def _images(self, pixels: list[Tensor | MappedRows], names: list[str | None]) -> list[Examples]:
        """Return the images of each split, with their numbered classes where they have labels."""
        arrays = [self.file.array(name).reshape(-1) for name in names if name is not None]
        if not arrays:
            return [Examples(part) for part in pixels]
        try:
            labels, class_names = number_labels(arrays)
        except ValueError as error:
            raise self.file.error(f"{', '.join(filter(None, names))}: {error}") from None
        pairs = zip(pixels, labels, strict=True)
        return [Examples(part, torch.from_numpy(numbers), class_names) for part, numbers in pairs]
