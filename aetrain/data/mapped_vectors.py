"""Vectors that stay in their file: a table of numbers in a memory-mapped array, which is read one batch at a time.

Shapes: M rows of the array, N examples, D features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from aetrain.data.columns import describe_infinite, numbered_names
from aetrain.data.mapped_rows import CHUNK_SIZE, MappedArray, MappedRows, describe_file
from aetrain.data.table_content import TableContent, number_label_column, separate_columns
from aetrain.data.user_files import Array

MIN_MAPPED_BYTES = 64 * 2**20  # of an .npy file: a smaller one is read into memory


def is_mapped_table(values: Any) -> TypeGuard[np.memmap]:
    """Tell whether values are numbers [M, columns] in a file, as of numpy.load(..., mmap_mode="r")."""
    return isinstance(values, np.memmap) and values.ndim == 2 and values.dtype.kind in "fiub"


def map_large_npy(path: str) -> np.memmap | None:
    """Return the numbers [M, columns] of a large .npy file, mapped; None for another file, which is read."""
    file = Path(path).expanduser()
    if file.suffix.lower() != ".npy" or not file.is_file() or file.stat().st_size < MIN_MAPPED_BYTES:
        return None
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None  # `read_table_file` has the message
    return array if is_mapped_table(array) else None


def map_table(
    arrays: Sequence[np.memmap], label: str | int | None, drop: Sequence[str | int], splits: Array | None
) -> TableContent:
    """Return the content of arrays [M, columns], whose rows follow one another; the columns are x1, x2 and so on.

    Raise ValueError as `separate_columns`.
    """
    import pandas as pd

    if not sum(map(len, arrays)):
        raise ValueError("there are no rows")
    names = numbered_names(arrays[0].shape[1])
    first_row = next(array for array in arrays if len(array))[:1]
    frame = pd.DataFrame(np.asarray(first_row), columns=names)
    if str(label) in names:
        frame[str(label)] = 0  # all labels are numbered below
    content = separate_columns(frame, label, drop, splits)
    features = list(content.frame.columns)
    rows = MappedRows(
        tuple(map_vectors(array, [names.index(name) for name in features]) for array in arrays),
        (1, 1, len(features)),
        torch.arange(sum(map(len, arrays))),
    )
    labels, class_names, warnings = content.labels, content.class_names, list(content.warnings)
    if label is not None:
        column = np.concatenate([np.asarray(array[:, names.index(str(label))]) for array in arrays])
        labels, class_names = number_label_column(pd.Series(column, name=str(label)), warnings)
    header = pd.DataFrame(columns=features, dtype=np.float64)
    return TableContent(header, labels, class_names, splits, rows=rows, warnings=warnings)


def map_vectors(array: np.memmap, columns: Sequence[int]) -> MappedArray:
    """Return the numbers in some columns of an array [M, columns], float64 [B, 1, 1, D] when they are read."""
    identity = f"{describe_file(np.asarray(array), Path(str(array.filename)))} {[*columns]}"

    def to_vectors(stored: Array) -> Array:
        values = stored if len(columns) == array.shape[1] else stored[:, columns]
        return values.astype(np.float64)[:, None, None]

    return MappedArray(np.asarray(array), identity, to_vectors, dtype=torch.float64)


def vector_chunks(values: torch.Tensor | MappedRows) -> Iterator[Array]:
    """Yield float64 [CHUNK_SIZE, D] of vectors [N, 1, 1, D] in their order; the last part may be smaller."""
    for part in values.split(CHUNK_SIZE):
        yield (part if isinstance(part, torch.Tensor) else part.dense()).flatten(1).numpy()


@dataclass(frozen=True, eq=False)
class Summary:
    """The least and the largest known value of each feature, and whether values are missing (NaN)."""

    low: Array  # [D], NaN where no value is known
    high: Array  # [D], as `low`
    has_missing: bool


def summarise_vectors(values: torch.Tensor | MappedRows) -> Summary:
    """Return the summary of vectors [N, 1, 1, D], which are read one part at a time."""
    low, high, has_missing = np.full(values.shape[-1], np.nan), np.full(values.shape[-1], np.nan), False
    for chunk in vector_chunks(values):
        low = np.fmin(low, np.fmin.reduce(chunk))
        high = np.fmax(high, np.fmax.reduce(chunk))
        has_missing = has_missing or bool(np.isnan(chunk).any())
    return Summary(low, high, has_missing)


def check_finite(rows: MappedRows, summary: Summary, names: Sequence[str]) -> None:
    """Raise ValueError, with the row, where mapped vectors have an infinite value."""
    if not np.isinf([summary.low, summary.high]).any():
        return
    start = 0
    for chunk in vector_chunks(rows):
        for row, feature in np.argwhere(np.isinf(chunk))[:1].tolist():
            raise ValueError(describe_infinite(names[feature], start + row, chunk[row, feature]))
        start += len(chunk)
