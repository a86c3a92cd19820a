"""The form of vectors outside of a model: columns with names, in their original units.

Shapes: N examples, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aetrain.data.columns import Columns
from aetrain.data.scaling import FittedScaling
from aetrain.data.user_files import Array

if TYPE_CHECKING:  # the import takes 0.5 s
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class VectorFormat:
    """The columns of a data set of vectors, and the scaling of their features; None where a model reads them as is."""

    columns: Columns
    scaling: FittedScaling | None = None

    @property
    def num_features(self) -> int:
        """D."""
        return len(self.columns.feature_names)

    def scale(self, features: Any) -> Any:
        """Return features in original units, [N, D] of NumPy or torch, as values of the model."""
        return features if self.scaling is None else self.scaling.apply(features)

    def unscale(self, values: Any) -> Any:
        """Return values of the model, [N, D] of NumPy or torch, in original units; a category is about 0 to 1."""
        return values if self.scaling is None else self.scaling.invert(values)

    def to_features(self, frame: "DataFrame") -> Array:
        """Return the features in original units, [N, D], of a table with these columns. Raise ValueError as Columns."""
        return self.columns.to_features(frame)

    def to_frame(self, features: Array, index: Any = None) -> "DataFrame":
        """Return the table of features in original units, [N, D]; a category is the likeliest one."""
        return self.columns.to_frame(features, index)

    def inverse(self, values: Any) -> "DataFrame":
        """Return values of the model, [N, D] or [N, 1, 1, D], as a table in original units."""
        import numpy as np

        return self.to_frame(self.unscale(np.asarray(values, dtype=np.float64).reshape(len(values), -1)))

    def state(self) -> Mapping[str, Any]:
        """Return the columns and the scaling as JSON."""
        return {"columns": self.columns.state(), "scaling": None if self.scaling is None else self.scaling.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the format of `state`."""
        scaling = state["scaling"]
        return cls(Columns.from_state(state["columns"]), None if scaling is None else FittedScaling.from_state(scaling))
