"""The learning-rate range test: train on some batches while the rate rises, and see where the loss falls fastest.

Smith (2017), "Cyclical learning rates for training neural networks", section 3.3, with the exponentially rising rate
and the steepest descent of fast.ai's and Lightning's `lr_find`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from aetrain.model.records import LossDict
from aetrain.training.loop import EpochLoader
from aetrain.training.step import OptimizerStep

NUM_FIRST = 5  # losses whose mean is the loss at the start
NUM_LAST = 3  # losses whose mean has diverged
SMOOTHING = 0.15  # standard deviation of the smoothing of losses, in decades of the rate
MIN_FALL = 3.0  # of the loss, in standard deviations of its variation from batch to batch
MIN_LOSSES = 10  # with fewer, nothing is suggested


@dataclass(frozen=True)
class RateCurve:
    """The loss of each batch of a range test, and the rate of the step on it."""

    rates: Sequence[float]
    losses: Sequence[float]  # before the steps; finite
    diverged: bool  # whether the loss diverged after the last rate

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """The losses [N] up to the limit of divergence, averaged over rates within a fraction of a decade."""
        losses = np.minimum(np.asarray(self.losses, np.float64), divergence_limit(self.losses))
        if len(losses) < 2:
            return losses
        decades = math.log10(self.rates[-1] / self.rates[0])
        return np.asarray(gaussian_filter1d(losses, SMOOTHING * (len(losses) - 1) / decades, mode="nearest"))

    @property
    def lowest(self) -> int:
        """The index of the lowest smoothed loss."""
        return int(self.smoothed.argmin())

    @property
    def suggestion(self) -> int | None:
        """The index of the rate at which the smoothed loss falls fastest, before its lowest value.

        None where the loss falls by too little, compared with its variation from batch to batch.
        """
        if len(self.losses) < MIN_LOSSES:
            return None
        smoothed, lowest = self.smoothed, self.lowest
        before = slice(0, lowest + 1)
        noise = float(np.std(np.asarray(self.losses)[before] - smoothed[before]))
        if lowest == 0 or smoothed[0] - smoothed[lowest] <= MIN_FALL * noise:
            return None
        return int(np.gradient(smoothed)[before].argmin())


def divergence_limit(losses: Sequence[float]) -> float:
    """Return the loss above which a test has diverged: the first one, and as much again or as the loss has fallen."""
    first = float(np.mean(losses[:NUM_FIRST]))
    return first + max(abs(first), first - min(losses))


def rate_at(progress: float, min_lr: float, max_lr: float) -> float:
    """Return the rate at a progress of the test in [0, 1]: it rises by the same factor in equal parts."""
    return float(min_lr * (max_lr / min_lr) ** progress)


@dataclass
class RateRecorder:
    """The rates and the losses of a test in progress."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def has_diverged(self) -> bool:
        """Tell whether the last loss is not finite, or the last ones are above their limit."""
        if not self.losses or not math.isfinite(self.losses[-1]):
            return bool(self.losses)
        enough = len(self.losses) > NUM_FIRST
        return enough and float(np.mean(self.losses[-NUM_LAST:])) > divergence_limit(self.losses)

    def curve(self) -> RateCurve:
        """Return the finite losses and their rates."""
        count = len(self.losses) - (bool(self.losses) and not math.isfinite(self.losses[-1]))
        return RateCurve(self.rates[:count], self.losses[:count], self.has_diverged)


class RangeTestStep(OptimizerStep):
    """A step of training whose rate rises in the course of the test, and whose loss is recorded.

    The schedules of the run do not move: `step` keeps the progress that it has.
    """

    def __init__(self, step: OptimizerStep, min_lr: float, max_lr: float, recorder: RateRecorder | None) -> None:
        def set_rate(progress: float) -> None:
            for group in step.optimizer.param_groups:
                group["lr"] = rate_at(progress, min_lr, max_lr)

        super().__init__(step.losses, step.optimizer, [set_rate], step.after_step, step.name, step.clip_grad_norm)
        self.recorder = recorder

    def __call__(self, *batches: Tensor) -> LossDict:
        """Take one step; record its rate and its loss, for which the device is waited for."""
        losses = super().__call__(*batches)
        if self.recorder is not None:
            self.recorder.rates.append(self.optimizer.param_groups[0]["lr"])
            self.recorder.losses.append(float(losses["loss"].detach()))
        return losses


@dataclass(frozen=True)
class RangeTestBatches:
    """The batches of a range test: those of as many epochs as it needs, until the loss diverges."""

    batches: EpochLoader
    count: int
    recorder: RateRecorder

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        number = 0
        while True:
            for batch in self.batches:
                if number == self.count or self.recorder.has_diverged:
                    return
                yield batch
                number += 1
