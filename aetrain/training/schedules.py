"""Learning-rate schedules: the share of training that has passed, in [0, 1], to a factor of the learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch.optim import Optimizer


class Schedule(Protocol):
    """How the learning rate moves while training."""

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        """What to call before a step with the share of training that has passed."""
        ...


@dataclass(frozen=True)
class Constant:
    """The learning rate as the optimizer has it; nothing is done."""

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        return ()


@dataclass(frozen=True)
class Decay:
    """Linear warm-up over the first `warmup` share of training, then half a cosine or a straight line to `final`.

    Cosine: Loshchilov & Hutter (2017), eq. 5, without restarts.
    """

    shape: str = "cosine"
    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "linear"):
            raise ValueError(f"shape={self.shape} is unknown: use cosine or linear")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} is no share of training: use a number from 0 to below 1")
        if not 0 <= self.final <= 1:
            raise ValueError(f"final={self.final} is no share of the learning rate: use a number from 0 to 1")

    def factor(self, progress: float) -> float:
        """The factor of the learning rate when `progress` of training has passed."""
        if progress < self.warmup:
            return progress / self.warmup
        passed = (progress - self.warmup) / (1 - self.warmup)
        left = 0.5 * (1 + math.cos(math.pi * passed)) if self.shape == "cosine" else 1 - passed
        return self.final + (1 - self.final) * left

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        start = [group["lr"] for group in optimizer.param_groups]

        def set_rate(progress: float) -> None:
            factor = self.factor(progress)
            for group, lr in zip(optimizer.param_groups, start, strict=True):
                group["lr"] = lr * factor

        return (set_rate,)
