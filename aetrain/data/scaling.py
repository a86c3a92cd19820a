"""The scaling of the numbers of vectors: scikit-learn's scalers, fitted to the training examples and saved as JSON.

Shapes: N examples, D features.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from aetrain.data.user_files import Array

Chunks = Callable[[], Iterable[Array]]  # parts of the features [N, D] in their order, read at each call

MAX_VALUES = 2**25  # that are in memory at a time for medians

Scaling = Literal["standard", "minmax", "robust", "none"]


@dataclass(frozen=True, eq=False)
class FittedScaling:
    """The map of features x to (x - center) / scale and back."""

    center: Array  # [D] float64
    scale: Array  # [D] float64, not 0

    @classmethod
    def fit(cls, scaling: Scaling, chunks: Chunks, is_number: Array) -> Self:
        """Return the scaling of the features in `chunks`: of numbers alone, [D], without their missing values (NaN).

        `standard` gives the mean 0 and the standard deviation 1, `minmax` the range [0, 1], `robust` the median 0 and
        the interquartile range 1. A constant feature becomes 0.
        """
        center, scale = np.zeros(len(is_number)), np.ones(len(is_number))
        if scaling != "none" and is_number.any():
            center[is_number], scale[is_number] = _fit(scaling, chunks, np.flatnonzero(is_number))
        return cls(center, scale)

    def apply(self, features: Any) -> Any:
        """Return features [N, D] of NumPy or torch (float64) in the units of the model."""
        return (features - _like(features, self.center)) / _like(features, self.scale)

    def invert(self, values: Any) -> Any:
        """Return values [N, D] in the units of the model, of NumPy or torch, in the original units."""
        return values * _like(values, self.scale) + _like(values, self.center)

    def state(self) -> Mapping[str, Any]:
        """Return the numbers as JSON."""
        return {"center": self.center.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the scaling of `state`."""
        return cls(np.array(state["center"], dtype=np.float64), np.array(state["scale"], dtype=np.float64))


def _fit(scaling: Scaling, chunks: Chunks, columns: Array) -> tuple[Array, Array]:
    """Return the center and the scale that a scaler of scikit-learn has of some columns of the features."""
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    if scaling == "robust":
        return _fit_robust(chunks, columns)
    scaler = MinMaxScaler() if scaling == "minmax" else StandardScaler()
    for chunk in chunks():
        scaler.partial_fit(chunk[:, columns])
    if scaling == "minmax":
        return scaler.data_min_, 1 / scaler.scale_
    return scaler.mean_, scaler.scale_


def _fit_robust(chunks: Chunks, columns: Array) -> tuple[Array, Array]:
    """Return the medians and the interquartile ranges of some columns, of as many at a time as memory holds."""
    from sklearn.preprocessing import RobustScaler

    num_rows = sum(map(len, chunks()))
    parts = np.array_split(columns, max(-(-num_rows * len(columns) // MAX_VALUES), 1))
    fitted = [RobustScaler().fit(np.concatenate([chunk[:, part] for chunk in chunks()])) for part in parts]
    center, scale = ([getattr(scaler, name) for scaler in fitted] for name in ("center_", "scale_"))
    return np.concatenate(center), np.concatenate(scale)


def _like(values: Any, numbers: Array) -> Any:
    """Return numbers [D] as NumPy array or as tensor of the type and on the device of `values`."""
    if isinstance(values, np.ndarray):
        return numbers
    import torch

    return torch.from_numpy(numbers).to(values)
