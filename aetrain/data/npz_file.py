"""The arrays in an .npz file by split: images or vectors, and their labels."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from aetrain.data.split_names import SPELLINGS
from aetrain.data.user_files import Array, describe_error, describe_path

# Names of images and their labels, in which {} is a spelling of the split; and of all images, which are then split.
SPLIT_LAYOUTS = (
    ("x_{}", "y_{}"),
    ("{}", "{}_labels"),
    ("{}_images", "{}_labels"),
    ("images_{}", "labels_{}"),
)
WHOLE_LAYOUTS = (("images", "labels"), ("x", "y"))
CHOICES = "x_train and x_test or train and test or images or x"


class Arrays(NamedTuple):
    """The names of the array of a split's images and of that of their labels; None where there are none."""

    images: str
    labels: str | None


class Header(NamedTuple):
    """The shape and type of an array in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class NpzFile:
    """An .npz file whose arrays are read one at a time. Errors are ValueErrors that begin with its path."""

    path: str

    def error(self, problem: str) -> ValueError:
        """Return the error about a problem of the file."""
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
            raise self.error(
                f"cannot be read as an .npz file ({describe_error(error)}): "
                "save it again with numpy.savez(path, x_train=..., x_test=...)"
            ) from None

    def headers(self) -> dict[str, Header]:
        """Return the shapes and types of the file's arrays by name, without reading the arrays."""
        headers = {}
        with self._open() as file:
            for member in file.infolist():
                if member.filename.endswith(".npy"):
                    with file.open(member) as stream:
                        header = read_header(stream, member.filename, member.file_size)
                    headers[member.filename.removesuffix(".npy")] = header
        return headers

    def array(self, name: str) -> Array:
        """Return an array by its name."""
        with self._open() as file, file.open(f"{name}.npy") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    def splits(self, headers: dict[str, Header]) -> dict[str, Arrays]:
        """Return the names of the arrays of each split; all images are those of `train` where there is no `test`."""
        names = {name.lower(): name for name in headers}
        for layout in SPLIT_LAYOUTS:
            splits = {}
            for split in SPELLINGS:
                arrays = self._arrays_of_split(layout, split, names)
                if arrays is not None:
                    splits[split] = arrays
            if "train" in splits:
                break
        else:
            whole = next((layout for layout in WHOLE_LAYOUTS if layout[0] in names), None)
            if whole is None:
                raise self.error(f"holds {', '.join(headers) or 'no arrays'}, but should hold {CHOICES}")
            return {"train": Arrays(names[whole[0]], names.get(whole[1]))}
        self._check_all_have_labels(layout, splits)
        return splits

    def _arrays_of_split(self, layout: tuple[str, str], split: str, names: dict[str, str]) -> Arrays | None:
        """Return the names of a split's arrays under any spelling; ValueError where there are two."""
        images_name, labels_name = layout
        spellings = [spelling for spelling in SPELLINGS[split] if images_name.format(spelling) in names]
        if not spellings:
            return None
        images = [names[images_name.format(spelling)] for spelling in spellings]
        if len(images) > 1:
            raise self.error(f"holds {' and '.join(images)}, which are both for {split} images: leave one out")
        return Arrays(images[0], names.get(labels_name.format(spellings[0])))

    def _check_all_have_labels(self, layout: tuple[str, str], splits: dict[str, Arrays]) -> None:
        """Raise ValueError where some splits have labels and others have none."""
        missing = [arrays.images for arrays in splits.values() if arrays.labels is None]
        if 0 < len(missing) < len(splits):
            prefix, _, suffix = layout[0].partition("{}")
            name = layout[1].format(missing[0][len(prefix) : len(missing[0]) - len(suffix)])
            raise self.error(f"has labels for one split, but no {name}: add it, or leave out all labels")


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
