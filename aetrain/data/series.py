"""A generated time series with known anomalies: heart beats with spikes, level shifts and changes of frequency."""

from dataclasses import dataclass
from typing import final

import numpy as np

from aetrain.data.dataset import SPLIT_SEED
from aetrain.data.table_content import TableContent
from aetrain.data.user_files import Array
from aetrain.data.vector_dataset import VectorDataset
from aetrain.data.windows import check_window, make_windows

CLASSES = ("normal", "spike", "shift", "frequency")

# The waves of a beat, as in an electrocardiogram (McSharry et al. 2003): place and width in periods, height.
WAVES = ((0.20, 0.04, 0.12), (0.36, 0.015, -0.15), (0.40, 0.02, 1.0), (0.44, 0.015, -0.25), (0.68, 0.06, 0.3))
PERIOD, PERIOD_STD, MIN_PERIOD = 60.0, 5.0, 40.0  # of a beat, in rows
BASELINE = ((317.0, 0.12), (101.0, 0.08))  # slow sines: period in rows and height
NOISE_STD = 0.02

EVENT_ROWS = 400  # with one anomaly in their middle
SPIKE_HEIGHT = (0.4, 0.8)
SHIFT_ROWS, SHIFT_HEIGHT = (30, 90), (0.3, 0.5)
FREQUENCY_ROWS, FREQUENCY_FACTORS = (90, 150), (0.5, 1.8)  # the factor by which beats are slower or faster


@final
@dataclass(kw_only=True)
class Series(VectorDataset):
    """Windows of a series of beats, whose period and height vary, on a mixture of slow sines with noise.

    Each 400 of the `length` rows have one anomaly, in turn: a `spike` of one row, a level `shift` of 30 to 90 rows, or
    beats of another `frequency` for 90 to 150 rows. The second half of the rows is for testing. A window of `window`
    rows has the class of an anomaly that any of its rows belongs to, else `normal`; windows begin `stride` rows apart.
    The series is the same one in every run.
    """

    length: int = 60_000
    window: int = 64
    stride: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.window, self.stride)
        least = 2 * max(EVENT_ROWS * (len(CLASSES) - 1), self.window)
        if self.length < least:
            raise ValueError(f"length={self.length} is too short for all anomalies: use {least} rows or more")

    @property
    def rows_per_example(self) -> int:
        """`window`."""
        return self.window

    def read_rows(self, is_divided: bool = True) -> TableContent:
        """Return the windows."""
        return make_windows(self.read_content(), self.window, self.stride, self.test_fraction if is_divided else None)

    def read_content(self) -> TableContent:
        """Draw the series, a column `signal`."""
        import pandas as pd

        num_train = self.length // 2
        signal, labels = draw_series(self.length)
        splits = np.repeat(["train", "test"], [num_train, self.length - num_train])
        return TableContent(pd.DataFrame({"signal": signal}), labels, CLASSES, splits)


def draw_series(count: int) -> tuple[Array, Array]:
    """Return the signal and the classes of `count` rows."""
    generator = np.random.default_rng(SPLIT_SEED)
    labels, speed, added = np.zeros(count, dtype=np.int64), np.ones(count), np.zeros(count)
    for event in range(count // EVENT_ROWS):
        kind = 1 + event % (len(CLASSES) - 1)
        name = CLASSES[kind]
        rows = {"spike": (1, 1), "shift": SHIFT_ROWS, "frequency": FREQUENCY_ROWS}[name]
        length = int(generator.integers(rows[0], rows[1] + 1))
        start = event * EVENT_ROWS + (EVENT_ROWS - length) // 2
        part = slice(start, start + length)
        labels[part] = kind
        if name == "frequency":
            speed[part] = generator.choice(FREQUENCY_FACTORS)
        else:
            height = generator.uniform(*(SPIKE_HEIGHT if name == "spike" else SHIFT_HEIGHT))
            added[part] = generator.choice((-1, 1)) * height
    return draw_beats(speed, generator) + added + generator.normal(0, NOISE_STD, count), labels


def draw_beats(speed: Array, generator: np.random.Generator) -> Array:
    """Return beats on slow sines, [T]; `speed` [T] multiplies the frequency of the beats."""
    beats = np.zeros(len(speed))
    elapsed = np.cumsum(speed)  # the rows that the beats take for passed
    begin = 0.0
    while begin < elapsed[-1]:
        period = max(MIN_PERIOD, generator.normal(PERIOD, PERIOD_STD))
        height = 1 + 0.1 * generator.normal()
        low, high = np.searchsorted(elapsed, (begin, begin + period))
        phase = (elapsed[low:high] - begin) / period
        for place, width, wave_height in WAVES:
            beats[low:high] += height * wave_height * np.exp(-0.5 * ((phase - place) / width) ** 2)
        begin += period
    rows = np.arange(len(speed))
    for period, height in BASELINE:
        beats += height * np.sin(2 * np.pi * (rows / period + generator.random()))
    return beats
