"""Arrays of a caller in Python: NumPy, torch or pandas in, the same library out, computed one batch at a time.

Shapes: N images, B batch, C channels, H height, W width, D numbers in a code.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH_SIZE = 1000
TOLERANCE = 1e-3  # distance from [0, 1] that is taken for rounding, as of 16-bit floats


ToFrame = Callable[[Any, Any], Any]


def with_columns(columns: Sequence[Any]) -> ToFrame:
    """Return a function from numbers [N, M] and an index to a DataFrame with these columns."""

    def to_frame(numbers: Any, index: Any) -> Any:
        import pandas as pd

        return pd.DataFrame(numbers, index=index, columns=list(columns))

    return to_frame


@dataclass(frozen=True, kw_only=True)
class ArrayRows:
    """Examples of a caller, [N, ...], of which a function is computed in batches."""

    values: Any  # np.ndarray or Tensor, [N, ...]
    frame: Any = None  # the caller's DataFrame
    single: bool = False  # True: one example, whose result has no axis N

    @property
    def unit_dtype(self) -> torch.dtype:
        """The type of results in the units of the caller: float32 for floats of at most 32 bits, else float64."""
        is_float = self.values.is_floating_point() if isinstance(self.values, Tensor) else self.values.dtype.kind == "f"
        is_short = is_float and self.values.dtype.itemsize <= torch.float32.itemsize
        return torch.float32 if is_short and self.frame is None else torch.float64

    def compute(
        self,
        function: Callable[[Tensor], Tensor],
        shape: Sequence[int],
        to_frame: ToFrame,
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        """Return `function` of all batches as one array [N, *shape] of the caller's library and device.

        For a DataFrame it is `to_frame` of the numbers [N, ...] and the index of the caller's.
        """
        count = self.values.shape[0]
        device = self.values.device if isinstance(self.values, Tensor) else torch.device("cpu")
        result = torch.empty(count, *shape, dtype=dtype, device=device)
        start = 0
        with torch.no_grad():
            for chunk in self.chunks():
                end = start + chunk.shape[0]
                result[start:end] = function(to_tensor(chunk)).reshape(end - start, *shape)
                start = end
        if self.frame is not None:
            return to_frame(result.numpy().reshape(count, -1), self.frame.index)
        whole = result[0] if self.single else result
        return whole if isinstance(self.values, Tensor) else whole.numpy()

    def chunks(self) -> Iterator[Any]:
        """Yield the values, BATCH_SIZE examples at a time; sparse ones become dense."""
        for start in range(0, self.values.shape[0], BATCH_SIZE):
            chunk = self.values[start : start + BATCH_SIZE]
            yield chunk.toarray() if hasattr(chunk, "toarray") else chunk


def to_tensor(chunk: Any) -> Tensor:
    """Return a part of an array as a tensor without gradient: floats of 64 bits or more become float64."""
    if isinstance(chunk, Tensor):
        return chunk.detach()
    is_long = chunk.dtype.kind == "f" and chunk.dtype.itemsize > 8
    return torch.from_numpy(chunk.astype(np.float64 if is_long else chunk.dtype.newbyteorder("=")))


def as_array(x: Any) -> tuple[Any, Any]:
    """Return x as np.ndarray or Tensor, and x itself where it is a DataFrame, else None."""
    pandas = sys.modules.get("pandas")  # a caller with a DataFrame has imported it
    if pandas is not None and isinstance(x, pandas.DataFrame):
        return x.to_numpy(), x
    return (x if isinstance(x, Tensor) else np.asarray(fill_masked(x))), None


def fill_masked(x: Any) -> Any:
    """Return a masked array of NumPy as one with NaN for its masked values, and anything else as it is."""
    if not isinstance(x, np.ma.MaskedArray):
        return x
    if not np.ma.is_masked(x):
        return x.data
    return np.ma.filled(x if x.dtype.kind == "f" else x.astype(np.float64), np.nan)


def stored_image_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return (C, H, W) of an array of images [N, H, W], [N, C, H, W] or [N, H, W, C], C 1 or 3; None of another."""
    match tuple(shape):
        case (_, height, width):
            return 1, height, width
        case (_, (1 | 3) as channels, height, width) | (_, height, width, (1 | 3) as channels):
            return channels, height, width
    return None


class ImageArray:
    """Images of a caller for a model with images `image_shape`: their values are checked as they are read.

    The layouts are [N, C, H, W], [N, H, W] with one channel, [N, H, W, C], and flat [N, C*H*W]; one image has the same
    without N. The first that fits is taken. Values are uint8 0..255, bool, or floats in [0, 1].
    Raise ValueError for another shape or type, and in `rows.compute` for other values.
    """

    def __init__(self, x: Any, image_shape: tuple[int, int, int], name: str = "x") -> None:
        self.name = name
        self.image_shape = image_shape
        self.x, frame = as_array(x)
        channels, height, width = image_shape
        layouts = [(channels, height, width), (math.prod(image_shape),), (height, width, channels)]
        if channels == 1:
            layouts.insert(1, (height, width))
        self._check_type()
        shape = tuple(self.x.shape)
        batched = [layout for layout in layouts if shape[1:] == layout and len(shape) > 1]
        whole = [layout for layout in layouts if shape == layout]
        if not batched and not whole:
            raise ValueError(f"{self.name} has the shape {list(shape)}: {self._advice()}")
        self.layout = (batched or whole)[0]
        single = not batched
        self.rows = ArrayRows(values=self.x[None] if single else self.x, frame=frame, single=single)
        self.columns = [] if frame is None else frame.columns
        self.dtype = torch.float32  # of pixels that are returned

    @property
    def channels_last(self) -> bool:
        """Tell whether the caller's images are [H, W, C] and not [C, H, W]."""
        return len(self.layout) == 3 and self.layout != self.image_shape

    def to_pixels(self, values: Tensor) -> Tensor:
        """Return a batch of the caller's values as pixels in [0, 1], float32 [B, C, H, W]."""
        scale = 255 if values.dtype == torch.uint8 else 1
        x = values.to(torch.float32) / scale
        low, high = x.aminmax()  # NaN where any value is NaN
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise ValueError(self._describe_range())
        if self.channels_last:
            x = x.movedim(-1, 1)
        return x.clamp(0, 1).reshape(len(x), *self.image_shape)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return pixels [B, C, H, W] in the layout of the caller's images."""
        return pixels.movedim(1, -1) if self.channels_last else pixels

    def _check_type(self) -> None:
        x = self.x
        if isinstance(x, Tensor):
            known = x.is_floating_point() or x.dtype in (torch.uint8, torch.bool)
        else:
            known = x.dtype.kind in "fb" or x.dtype == np.uint8
        if not known:
            name = str(x.dtype).removeprefix("torch.")
            raise ValueError(f"{self.name} has the type {name}: {self._advice()}")

    def _describe_range(self) -> str:
        low, high = float(self.x.min()), float(self.x.max())
        fix = "; divide by 255 if that is white" if low >= 0 and 1 < high <= 255 else ""
        return f"{self.name} has values from {low:g} to {high:g}: {self._advice()}{fix}"

    def _advice(self) -> str:
        channels, height, width = self.image_shape
        flat = math.prod(self.image_shape)
        images = f"[N, {channels}, {height}, {width}]" + f", [N, {height}, {width}]" * (channels == 1)
        return f"use images {images} or [N, {flat}], with floats in [0, 1] or uint8 from 0 to 255"


def code_rows(z: Any, code_dim: int) -> ArrayRows:
    """Return codes of a caller, [N, D] or one [D], of any real numbers. Raise ValueError for another shape or type."""
    values, frame = as_array(z)
    is_real = not values.is_complex() if isinstance(values, Tensor) else values.dtype.kind in "fiub"
    if not is_real or values.ndim not in (1, 2) or values.shape[-1] != code_dim:
        name = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"z has the shape {list(values.shape)} and the type {name}: use numbers [N, {code_dim}]")
    single = values.ndim == 1
    return ArrayRows(values=values[None] if single else values, frame=frame, single=single)
