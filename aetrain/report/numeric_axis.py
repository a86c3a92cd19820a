"""The axis of a numeric setting: linear or logarithmic, as its values are spaced."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aetrain.report.numbers import log_tick_values, tick_label, tick_values

MIN_LOG_VALUES = 3  # positive values, without which a spacing has no name
MIN_LOG_RATIO = 4.0  # of the largest positive value to the smallest
MAX_UNEVENNESS_RATIO = 0.5  # of the spacing of logarithms to that of the values
MAX_VALUE_TICKS = 12  # with more values, ticks are round numbers
MIN_TICK_DISTANCE = 0.08  # between two ticks, as a share of the axis


@dataclass(frozen=True)
class NumericAxis:
    """Values of a setting in ascending order and their positions.

    Zero on a logarithmic axis is left of the smallest positive value, by the mean distance of two neighbours.
    """

    values: tuple[float, ...]
    is_log: bool

    @staticmethod
    def of(values: Iterable[float]) -> "NumericAxis":
        """Return the axis of finite values, logarithmic where they are spaced geometrically."""
        distinct = tuple(sorted(set(values)))
        return NumericAxis(distinct, is_geometric(distinct))

    def position(self, value: float) -> float:
        """Return the position of a value of the axis: the value, or its decimal logarithm."""
        if not self.is_log:
            return value
        if value > 0:
            return math.log10(value)
        low, *_, high = (math.log10(positive) for positive in self.values if positive > 0)
        return low - (high - low) / (sum(positive > 0 for positive in self.values) - 1)

    @property
    def ends(self) -> tuple[float, float]:
        """The positions of the smallest and the largest value."""
        return self.position(self.values[0]), self.position(self.values[-1])

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The positions of ticks and their labels: at the values, or at round numbers where there are many values."""
        low, high = self.ends
        candidates: Sequence[float] = self.values
        if len(self.values) > MAX_VALUE_TICKS:
            first, last = self.values[0], self.values[-1]
            candidates = log_tick_values(first or self.values[1], last) if self.is_log else tick_values(first, last, 6)
        ticks: list[tuple[float, str]] = []
        for value in candidates:
            position = self.position(value)
            if not ticks or position - ticks[-1][0] >= MIN_TICK_DISTANCE * (high - low):
                ticks.append((position, tick_label(value)))
        return ticks


def is_geometric(values: Sequence[float]) -> bool:
    """Tell whether values in ascending order call for a logarithmic axis.

    None may be negative. The positive ones span a factor of MIN_LOG_RATIO, and their logarithms are spaced much more
    evenly than they are themselves, by the standard deviation of the distances over their mean.
    """
    positive = [value for value in values if value > 0]
    if values[0] < 0 or len(positive) < MIN_LOG_VALUES or positive[-1] < MIN_LOG_RATIO * positive[0]:
        return False
    logarithms = [math.log(value) for value in positive]
    return _unevenness(logarithms) <= MAX_UNEVENNESS_RATIO * _unevenness(values)


def _unevenness(values: Sequence[float]) -> float:
    """Return the standard deviation of the distances of neighbours over their mean; 0 where they are equal."""
    distances = [second - first for first, second in pairwise(values)]
    return statistics.pstdev(distances) / statistics.fmean(distances)
