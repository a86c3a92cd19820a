"""Stored pixel values of a user's own files: their conversion to bytes, and messages about their range."""

import math
from dataclasses import dataclass

import numpy as np

from aetrain.data.user_files import Array

MAX_DARK = 64  # largest byte of images that are nearly black; 14-bit values in a 16-bit file reach it
CHUNK = 1 << 22  # values converted at a time, which bounds the memory for floats


@dataclass
class StoredValues:
    """The range of the values in a user's files, in the order in which `add` receives them.

    `white` is the setting: the value that becomes white; None is the largest value of the file's type.
    """

    white: float | None = None
    largest: float = 0.0
    white_of_largest: float = 255.0  # the value that was white in the file with the largest value
    num_above: int = 0
    num_values: int = 0

    def add(self, values: Array, white: float) -> None:
        """Add the values of a file in which `white` was white."""
        self.num_values += values.size
        largest = float(values.max())
        if largest > white:
            self.num_above += int(np.count_nonzero(values > white))
        self.add_largest(largest, white)

    def add_largest(self, largest: float, white: float) -> None:
        """Add a file by its largest value alone."""
        if largest / white >= self.largest / self.white_of_largest:
            self.largest, self.white_of_largest = largest, white

    def extend(self, later: "StoredValues") -> None:
        """Add the files that were added to `later`, after those of this one."""
        self.num_values += later.num_values
        self.num_above += later.num_above
        if later.largest:
            self.add_largest(later.largest, later.white_of_largest)

    @property
    def is_white_too_large(self) -> bool:
        """Tell whether all values are far below white, or 0."""
        return not self.largest or suggested_white(self.largest) < self.white_of_largest

    def describe_dark(self) -> str:
        """Return the message about images that are nearly black."""
        if not self.largest:
            return "every stored value is 0: all images are black"
        better = suggested_white(self.largest)
        return (
            f"the largest stored value is {self.largest:g} of {self.white_of_largest:g}: the images are nearly black; "
            f"dataset.white={better:g} makes {better:g} white"
        )

    def describe_clipped(self) -> str | None:
        """Return the message about values above white; None where there are none."""
        if not self.num_above:
            return None
        share = self.num_above / self.num_values
        return (
            f"{share:.2%} of the stored values are above dataset.white={self.white:g} (the largest is "
            f"{self.largest:g}): they become white, too"
        )


def suggested_white(largest: float) -> float:
    """Return a value to use as white: the full scale of the bits of large integers, else the largest value itself."""
    return largest if largest <= MAX_DARK else 2 ** math.ceil(math.log2(largest + 1)) - 1


def check_white(white: float | None) -> None:
    """Raise ValueError where white is no value that pixels can have."""
    if white is not None and not 0 < white < math.inf:
        raise ValueError(f"white={white} is not possible: use the positive value that is white, or null")


def scale_to_255(values: Array, white: float) -> Array:
    """Return values as float64 in [0, 255], not rounded: 0 is 0, `white` and above are 255.

    Raise ValueError where a value is negative or no number.
    """
    lowest = values.min()  # NaN where any value is NaN
    if not lowest >= 0:
        raise ValueError(f"its lowest value is {lowest:g}: use values from 0 to white")
    scaled: Array = np.minimum(np.multiply(values, 255, dtype=np.float64) / white, 255)
    return scaled


def to_bytes(values: Array, white: float) -> Array:
    """Return an array of values from 0 to `white` as uint8, rounded once; values above `white` are 255.

    Raise ValueError where a value is negative or no number.
    """
    flat, pixels = np.ascontiguousarray(values).reshape(-1), np.empty(values.size, dtype=np.uint8)
    for start in range(0, len(flat), CHUNK):
        pixels[start : start + CHUNK] = np.rint(scale_to_255(flat[start : start + CHUNK], white))
    return pixels.reshape(values.shape)
