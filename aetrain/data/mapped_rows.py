"""Examples that stay in their file: rows of memory-mapped arrays, which are read one batch at a time.

Shapes: N examples, M rows of an array, B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aetrain.data.scaling import FittedScaling
from aetrain.data.user_files import Array

# The part of a GPU's free memory that examples may fill; what needs more stays in the file.
MAX_SHARE_OF_DEVICE = 0.5
CHUNK_SIZE = 4096  # rows that are read at a time where all are


@dataclass(frozen=True, eq=False)
class MappedArray:
    """An array of examples in a file, of which nothing is in memory but the rows that are read.

    `convert` makes values [B, C, H, W] of `dtype` of stored rows: uint8 of images, float64 of vectors. `identity`
    differs where the examples do: a digest of the content, or the file's name, size and time.
    """

    stored: Array  # [M, ...]
    identity: str
    convert: Callable[[Array], Array] | None = None  # None for an array [M, C, H, W] of `dtype`
    checksums: Array | None = None  # [M] uint32: the CRC-32 of each row's pixels
    dtype: torch.dtype = torch.uint8

    def read(self, rows: Array) -> Array:
        """Return new values [B, C, H, W] of rows [B]."""
        values: Array = np.take(self.stored, rows, axis=0)
        return values if self.convert is None else self.convert(values)


@dataclass(frozen=True, eq=False)
class MappedRows:
    """N examples in memory-mapped arrays, with a part of the interface of a tensor.

    `rows` count through the arrays, one after another. With `threshold` pixels above it are 255, and others 0. With
    `scaling` vectors are float32 in the units of a model.
    """

    arrays: tuple[MappedArray, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    rows: Tensor  # [N] int64, on the CPU
    threshold: int | None = None
    scaling: FittedScaling | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # of the batches

    @classmethod
    def of(cls, array: MappedArray, image_shape: tuple[int, int, int]) -> "MappedRows":
        """Return all rows of an array."""
        return cls((array,), image_shape, torch.arange(len(array.stored)))

    @property
    def shape(self) -> torch.Size:
        """[N, C, H, W]."""
        return torch.Size((len(self.rows), *self.image_shape))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return self.arrays[0].dtype if self.scaling is None else torch.float32

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> "MappedRows":
        """Return the rows of an index [B] or of a slice."""
        return replace(self, rows=self.rows[index.cpu() if isinstance(index, Tensor) else index])

    def index_select(self, dim: int, index: Tensor) -> "MappedRows":
        """Return the rows `index` [B]; `dim` is 0."""
        assert dim == 0, dim
        return self[index]

    def split(self, size: int) -> Iterator["MappedRows"]:
        """Yield the rows in order, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: torch.device) -> "MappedRows | Tensor":
        """Return values [N, C, H, W] on a GPU where they fit, else rows whose batches are copied to the device."""
        moved = replace(self, device=device)
        num_bytes = self.shape.numel() * self.dtype.itemsize
        if device.type != "cuda" or num_bytes > MAX_SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]:
            return moved
        values = torch.empty(self.shape, dtype=self.dtype, device=device)
        for start, part in zip(range(0, len(self), CHUNK_SIZE), moved.split(CHUNK_SIZE), strict=True):
            values[start : start + CHUNK_SIZE] = part.dense()
        return values

    def dense(self) -> Tensor:
        """Return the values of all rows [N, C, H, W], read from the file, on the device."""
        values = torch.from_numpy(self._read(self.rows.numpy()))
        if self.threshold is not None:
            values = (values > self.threshold).to(torch.uint8).mul_(255)
        if self.scaling is not None:
            values = self.scaling.apply(values).to(torch.float32)
        if self.device.type != "cuda":
            return values.to(self.device)
        # The copy from pinned memory passes while the device computes and the next batch is read.
        return values.pin_memory().to(self.device, non_blocking=True)

    def checksums(self) -> list[int]:
        """Return the CRC-32 of each image; an empty list where they are not known."""
        known = self.arrays[0].checksums if len(self.arrays) == 1 else None
        return [] if known is None else known[self.rows.numpy()].tolist()

    def content(self) -> tuple[object, ...]:
        """Return values that are equal for equal examples: checksums of rows where these are known."""
        if checksums := self.checksums():
            return str(self.shape), self.threshold, torch.tensor(checksums)
        return str(self.shape), self.threshold, [array.identity for array in self.arrays], self.rows

    def _read(self, rows: Array) -> Array:
        if len(self.arrays) == 1:
            return self.arrays[0].read(rows)
        values, start = torch.empty(len(rows), *self.image_shape, dtype=self.arrays[0].dtype).numpy(), 0
        for array in self.arrays:
            inside = (rows >= start) & (rows < start + len(array.stored))
            values[inside] = array.read(rows[inside] - start)
            start += len(array.stored)
        return values


def join_mapped(parts: Sequence[MappedRows]) -> MappedRows:
    """Return the rows of all parts, one after another."""
    arrays = tuple(dict.fromkeys(array for part in parts for array in part.arrays))
    starts = dict(zip(arrays, np.cumsum([0, *(len(array.stored) for array in arrays)]).tolist(), strict=False))
    rows = []
    for part in parts:
        lengths = torch.tensor([len(array.stored) for array in part.arrays])
        shifts = torch.tensor([starts[array] for array in part.arrays]) - (lengths.cumsum(0) - lengths)
        rows.append(part.rows + shifts[torch.bucketize(part.rows, lengths.cumsum(0), right=True)])
    return replace(parts[0], arrays=arrays, rows=torch.cat(rows))


def largest_value(values: Tensor | MappedRows, enough: int) -> int:
    """Return the largest value; of mapped rows the first one above `enough`, so that few of them are read."""
    if isinstance(values, Tensor):
        return int(values.max())
    largest = 0
    for part in values.split(CHUNK_SIZE):
        largest = max(largest, int(part.dense().max()))
        if largest > enough:
            break
    return largest


def describe_file(array: Array, path: Path) -> str:
    """Return a description of an array that is mapped from a file, which differs where the file was changed."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    stat = path.stat()
    layout = f"{array.dtype.str}{list(array.shape)}{list(array.strides)}+{start}"
    return f"{path.name} {layout} {stat.st_size} {stat.st_mtime_ns}"
