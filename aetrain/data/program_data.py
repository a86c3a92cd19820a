"""The data that a program in Python passes to a run: `aetrain.run(..., data=X)`.

Shapes: N examples.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aetrain.config.errors import ConfigError
from aetrain.data.arrays import fill_masked
from aetrain.data.split_names import SPELLINGS
from aetrain.data.user_files import Array, describe_error


@dataclass(frozen=True, eq=False)
class ProgramData:
    """Arrays of one split or of several, by name: train, test and validation."""

    splits: Mapping[str, Any]  # arrays, frames, tensors or sparse matrices, [N, ...] each
    labels: Mapping[str, Array] | None = None  # [N] each

    @property
    def first(self) -> Any:
        """The training data."""
        return self.splits["train"]

    def joined_labels(self) -> Array | None:
        """Return the labels of all splits, [N], in the order of `splits`."""
        if self.labels is None:
            return None
        return np.concatenate([self.labels[name] for name in self.splits])

    def split_names(self) -> Array | None:
        """Return the split of each row, [N]; None for one split, which is divided at random."""
        if len(self.splits) == 1:
            return None
        return np.repeat([*self.splits], [data.shape[0] for data in self.splits.values()])


_current: ContextVar[ProgramData | None] = ContextVar("program_data", default=None)


def current_data() -> ProgramData | None:
    """Return the data of the program that calls aetrain; None where it passes none."""
    return _current.get()


@contextmanager
def passing(data: Any, labels: Any = None) -> Iterator[None]:
    """Let the data sets that are made inside read `data` and `labels`; None for no data.

    Both are of all examples, or dicts with the keys train, test and validation. Raise ConfigError where they do not
    fit together.
    """
    token = _current.set(None if data is None else _as_program_data(data, labels))
    try:
        yield
    finally:
        _current.reset(token)


def _as_program_data(data: Any, labels: Any) -> ProgramData:
    splits = data if isinstance(data, dict) else {"train": data}
    if unknown := [name for name in splits if name not in SPELLINGS]:
        raise ConfigError(f"data has the key {unknown[0]!r}: use {', '.join(SPELLINGS)}")
    if "train" not in splits:
        raise ConfigError("data has no key 'train': a model needs training examples")
    splits = {name: _with_shape(values) for name, values in splits.items()}
    if labels is None:
        return ProgramData(splits)
    by_split = labels if isinstance(labels, dict) else {"train": labels}
    if set(by_split) != set(splits):
        raise ConfigError(f"labels are of {', '.join(by_split)}, but data of {', '.join(splits)}: use the same keys")
    arrays = {name: _make_label_array(by_split[name], values.shape[0], name) for name, values in splits.items()}
    return ProgramData(splits, arrays)


def _with_shape(values: Any) -> Any:
    """Return data as an array, a tensor, a frame or a sparse matrix."""
    try:
        return fill_masked(values) if hasattr(values, "shape") else np.asarray(values)
    except ValueError as error:  # of NumPy
        raise ConfigError(f"data is no array ({describe_error(error)}): use examples of one shape") from None


def _make_label_array(labels: Any, count: int, split: str) -> Array:
    """Return labels as an array [count]. Raise ConfigError for another shape, and for missing ones."""
    values = as_numpy(labels)
    if not values.ndim or len(values) != count:
        entries = f"{len(values):,} entries" if values.ndim else f"the value {values}"
        raise ConfigError(f"labels has {entries} for {count:,} examples ({split})")
    if values.shape not in ((count,), (count, 1)):
        raise ConfigError(f"labels has the shape {list(values.shape)}: use one label for each example, [{count}]")
    values = values.reshape(-1)
    if values.dtype.kind in "fO":
        import pandas as pd

        if (is_missing := pd.isna(values)).any():
            place = int(np.flatnonzero(is_missing)[0])
            raise ConfigError(f"labels has no label for example {place} ({split}, counted from 0): add it")
    return values


def as_numpy(values: Any) -> Array:
    """Return an array, a tensor or a column of a frame as NumPy array."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no such type
