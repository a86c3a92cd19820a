"""Vectors of a caller in Python for a model of vectors: in original units in and out.

Shapes: N examples, B batch, D features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aetrain.data.arrays import ArrayRows, as_array
from aetrain.data.vector_format import VectorFormat


class VectorArray:
    """Vectors of a caller: a DataFrame with the columns of the data set, or numbers [N, D] or [D] in original units.

    NaN is a missing value. Examples of the run itself, [N, 1, 1, D], are in the units of the model already. A sparse
    matrix [N, D] becomes dense one batch at a time.
    Raise ValueError for another shape, another type, missing columns and infinite values.
    """

    def __init__(self, x: Any, vector_format: VectorFormat) -> None:
        self.format = vector_format
        width = vector_format.num_features
        self.frame: Any = None
        self.x: Any = x
        if not hasattr(x, "tocsr"):
            self.x, self.frame = as_array(x)
        if self.frame is not None:
            self.x = vector_format.to_features(self.frame)
        shape = tuple(self.x.shape)
        self.is_scaled = len(shape) in (3, 4) and shape[-3:] == (1, 1, width)
        self.layout: Sequence[int] = shape[-3:] if self.is_scaled else (width,)
        is_real = not self.x.is_complex() if isinstance(self.x, Tensor) else self.x.dtype.kind in "fiub"
        if not is_real or (not self.is_scaled and shape not in ((width,), (*shape[:1], width))):
            name = str(self.x.dtype).removeprefix("torch.")
            raise ValueError(
                f"x has the shape {list(shape)} and the type {name}: use numbers [N, {width}], or a DataFrame with the "
                "columns of the data set"
            )
        single = len(shape) == len(self.layout)
        self.rows = ArrayRows(values=self.x[None] if single else self.x, frame=self.frame, single=single)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the caller's vectors when they are returned: that of the model where they are in its units."""
        return torch.float32 if self.is_scaled else self.rows.unit_dtype

    def to_values(self, chunk: Tensor) -> Tensor:
        """Return a batch of the caller's vectors as values of the model, float32 [B, 1, 1, D]."""
        flat = chunk.flatten(1).to(torch.float64)
        if flat.isinf().any():
            raise ValueError("x has infinite values: use numbers, and NaN for missing values")
        values = flat if self.is_scaled else self.format.scale(flat)
        return values.to(torch.float32)[:, None, None]

    def from_values(self, values: Tensor) -> Tensor:
        """Return values of the model [B, 1, 1, D] in the units of the caller's vectors, in float64."""
        if self.is_scaled:
            return values
        return self.format.unscale(values.flatten(1).to(torch.float64))
