"""Arrays in .npy files, which are memory-mapped: one file, or a folder of files with the names of an .npz file."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aetrain.data.mapped_rows import CHUNK_SIZE, MappedArray, MappedRows, describe_file
from aetrain.data.npz_file import Header, NpzFile, read_header
from aetrain.data.pixel_values import to_bytes
from aetrain.data.user_files import Array, describe_error

SUFFIX = ".npy"


class NpyFiles(NpzFile):
    """A file such as images.npy, or a folder with files such as x_train.npy and y_train.npy."""

    @staticmethod
    def are_at(path: str) -> bool:
        """Tell whether a path is one of these: a folder, or a name that ends in .npy."""
        return path.lower().endswith(SUFFIX) or os.path.isdir(os.path.expanduser(path))

    def headers(self) -> dict[str, Header]:
        """Return the shapes and types of the arrays by name; a single file holds `images`, whatever its name."""
        headers = {}
        for name, file in self._files().items():
            try:
                with file.open("rb") as stream:
                    headers[name] = read_header(stream, file.name, file.stat().st_size)
            except Exception as error:  # NumPy raises any exception about bytes of another format
                raise self.error(f"{file.name} cannot be read as an .npy file ({describe_error(error)})") from None
        return headers

    def array(self, name: str) -> Array:
        """Return an array by its name, mapped from its file."""
        file = self._files()[name]
        try:
            return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise self.error(f"{file.name} cannot be mapped ({describe_error(error)})") from None

    def path_of(self, name: str) -> Path:
        """Return the file of an array."""
        return self._files()[name]

    def _files(self) -> dict[str, Path]:
        path = Path(os.path.expanduser(self.path))
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() == SUFFIX)
            return {file.stem: file for file in files if not file.name.startswith(".")}
        if not path.is_file():
            raise self.error(f"does not exist (looked for {path.absolute()}): use an .npy file")
        return {"images": path}


def map_images(array: Array, file: Path, image_shape: tuple[int, int, int], white: float) -> MappedRows:
    """Return images [M, ...] that are mapped from a file; values from 0 to `white` become bytes when they are read."""
    identity = f"{describe_file(array, file)} {white:g}"
    return MappedRows.of(MappedArray(array, identity, pixel_reader(array, image_shape, white)), image_shape)


def pixel_reader(array: Array, image_shape: tuple[int, int, int], white: float) -> Callable[[Array], Array] | None:
    """Return a function from stored rows [B, ...] to uint8 [B, C, H, W]; None where they are that."""
    is_bytes = array.dtype == np.uint8 and white == 255
    channels_last = array.ndim == 4 and array.shape[1:] != image_shape
    if is_bytes and array.shape[1:] == image_shape:
        return None

    def to_pixels(values: Array) -> Array:
        pixels = values if is_bytes else to_bytes(values, white)
        moved = np.moveaxis(pixels, 3, 1) if channels_last else pixels
        return np.ascontiguousarray(moved).reshape(-1, *image_shape)

    return to_pixels


def chunks(array: Array) -> Iterator[Array]:
    """Yield parts of the rows, in order."""
    return (array[start : start + CHUNK_SIZE] for start in range(0, len(array), CHUNK_SIZE))


def value_range(array: Array) -> tuple[float, float]:
    """Return the smallest and the largest value, NaN where one is NaN, reading a part of the rows at a time."""
    low, high = zip(*((part.min(), part.max()) for part in chunks(array)), strict=True)
    return float(np.min(low)), float(np.max(high))
