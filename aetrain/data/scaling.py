"""The scaling of the numbers of vectors: scikit-learn's scalers, fitted to the training examples and saved as JSON.

Shapes: N examples, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from aetrain.data.user_files import Array

Scaling = Literal["standard", "minmax", "robust", "none"]


@dataclass(frozen=True, eq=False)
class FittedScaling:
    """The map of features x to (x - center) / scale and back."""

    center: Array  # [D] float64
    scale: Array  # [D] float64, not 0

    @classmethod
    def fit(cls, scaling: Scaling, features: Array, is_number: Array) -> Self:
        """Return the scaling of features [N, D]: of numbers alone, without their missing values (NaN).

        `standard` gives the mean 0 and the standard deviation 1, `minmax` the range [0, 1], `robust` the median 0 and
        the interquartile range 1. A constant feature becomes 0.
        """
        center, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if scaling != "none" and is_number.any():
            center[is_number], scale[is_number] = _fit(scaling, features[:, is_number])
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


def _fit(scaling: Scaling, numbers: Array) -> tuple[Array, Array]:
    """Return the center and the scale [D] that a scaler of scikit-learn has of numbers [N, D]."""
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if scaling == "minmax":
        minmax = MinMaxScaler().fit(numbers)
        return minmax.data_min_, 1 / minmax.scale_
    if scaling == "robust":
        robust = RobustScaler().fit(numbers)
        return robust.center_, robust.scale_
    standard = StandardScaler().fit(numbers)
    return standard.mean_, standard.scale_


def _like(values: Any, numbers: Array) -> Any:
    """Return numbers [D] as NumPy array or as tensor of the type and on the device of `values`."""
    if isinstance(values, np.ndarray):
        return numbers
    import torch

    return torch.from_numpy(numbers).to(values)
