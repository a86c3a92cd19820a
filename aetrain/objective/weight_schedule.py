"""The weight of a penalty as a function of the progress of training: warm-up and cycles."""

import math
from typing import TypedDict

import torch
from torch import Tensor

from aetrain.model.layers import Scheduled

CYCLE_WARMUP = 0.5  # of each cycle, R in Fu et al. (2019), if only `cycles` is set


class WeightSettings(TypedDict, total=False):
    """The settings of a schedule, which every penalty with a weight takes."""

    warmup: float | None
    cycles: int | None


class WeightSchedule(Scheduled):
    """A factor that rises linearly from 0 to 1 over the first `warmup` of training, or of each of its `cycles`.

    The warm-up of Sonderby et al. (2016), "Ladder variational autoencoders", arXiv:1602.02282, section 2.3, and the
    cyclical annealing of Fu et al. (2019), arXiv:1903.10145, eq. 6, whose M is `cycles` and whose R is `warmup`. The
    factor changes in place, so that a compiled step and a pack of runs read the present one.
    """

    stateful = False
    factor: Tensor  # [] at the progress that was set last; 1 before

    def __init__(self, warmup: float | None = None, cycles: int | None = None) -> None:
        super().__init__()
        if warmup is not None and not 0 < warmup <= 1:
            raise ValueError(f"warmup={warmup} is no share of training: use a number above 0, at most 1, or null")
        if cycles is not None and cycles < 1:
            raise ValueError(f"cycles={cycles} is too small: use 1 or more, or null")
        self.warmup = CYCLE_WARMUP if warmup is None else warmup
        self.cycles = 1 if cycles is None else cycles
        self.register_buffer("factor", torch.ones(()), persistent=False)

    def factor_at(self, progress: float) -> float:
        """Return the factor at a progress of training in [0, 1)."""
        return min(1.0, math.fmod(progress * self.cycles, 1.0) / self.warmup)

    def set_progress(self, progress: float) -> None:
        """Set the factor of training from the share of training in [0, 1) that has passed."""
        self.factor.fill_(self.factor_at(progress))


def make_weight_schedule(warmup: float | None = None, cycles: int | None = None) -> WeightSchedule | None:
    """Return the schedule of these settings; None where the weight is constant."""
    return None if warmup is None and cycles is None else WeightSchedule(warmup, cycles)
