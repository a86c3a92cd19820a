"""The data that a program in Python passes to a run: `aetrain.run(..., data=X)`.

Shapes: N examples.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from aetrain.config.errors import ConfigError
from aetrain.data.split_names import SPELLINGS
from aetrain.data.user_files import Array


@dataclass(frozen=True, eq=False)
class ProgramData:
    """Arrays of one split or of several, by name: train, test and validation."""

    splits: Mapping[str, Any]  # arrays, frames, tensors or sparse matrices, [N, ...] each
    labels: Mapping[str, Any] | None = None  # [N] each

    @property
    def first(self) -> Any:
        """The training data."""
        return self.splits["train"]

    def joined_labels(self) -> Array | None:
        """Return the labels of all splits, [N], in the order of `splits`."""
        if self.labels is None:
            return None
        return np.concatenate([as_numpy(self.labels[name]).reshape(-1) for name in self.splits])

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
    for name, values in splits.items():
        if len(by_split[name]) != values.shape[0]:
            raise ConfigError(f"labels has {len(by_split[name]):,} entries for {values.shape[0]:,} examples ({name})")
    return ProgramData(splits, by_split)


def _with_shape(values: Any) -> Any:
    return values if hasattr(values, "shape") else np.asarray(values)


def as_numpy(values: Any) -> Array:
    """Return an array, a tensor or a column of a frame as NumPy array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
