"""The mean difference of two models' errors of the same examples, with a bootstrap interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
BATCH = 100  # resamples in memory at a time
SEED = 0  # of the resamples

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class PairedDifference:
    """The means of two models' errors of the same N examples, and their difference with its interval."""

    first: float
    second: float
    low: float  # of the interval of `difference`
    high: float
    count: int  # N

    @property
    def difference(self) -> float:
        """The second mean less the first."""
        return self.second - self.first

    @property
    def is_clear(self) -> bool:
        """Tell whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired_difference(first: Values, second: Values) -> PairedDifference:
    """Return the mean difference of paired errors, [N] each, with its percentile bootstrap interval.

    Examples are resampled with replacement, both errors of an example together (Efron & Tibshirani 1993, chapters 8 and
    13). The interval says how much the difference depends on the choice of the test examples; it knows nothing of other
    seeds of the training. Raise ValueError for errors of different examples, and for none.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"errors of {first.shape} and {second.shape} are not paired: use one or more of each")
    differences = second - first
    low, high = _bootstrap_interval(differences)
    return PairedDifference(float(first.mean()), float(second.mean()), low, high, len(first))


def _bootstrap_interval(values: Values) -> tuple[float, float]:
    """Return the percentile interval of the mean of values [N], N >= 1."""
    from scipy.stats import bootstrap

    if len(values) == 1 or np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)
