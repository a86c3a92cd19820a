"""Learning-rate schedules: a factor of the learning rate as a function of the progress of training, in [0, 1)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.optim import Optimizer


class Schedule(Protocol):
    """A rule that changes the learning rate during training."""

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        """Return the functions to call before every step with the progress of training."""
        ...


@dataclass(frozen=True)
class Constant:
    """The optimizer's own learning rate throughout."""

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        return ()


@dataclass(frozen=True)
class Decay:
    """Linear warm-up over the first `warmup_fraction` of training, then a decay to `final_factor` of the learning rate.

    The decay is a straight line or half a cosine. Cosine: Loshchilov & Hutter (2017), eq. 5, without restarts.
    """

    shape: str = "cosine"
    warmup_fraction: float = 0.0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "linear"):
            raise ValueError(f"shape={self.shape} is unknown: use cosine or linear")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(
                f"warmup_fraction={self.warmup_fraction} is out of range: use a fraction of training from 0 to below 1"
            )
        if not 0 <= self.final_factor <= 1:
            raise ValueError(
                f"final_factor={self.final_factor} is out of range: use a factor of the learning rate from 0 to 1"
            )

    def factor(self, progress: float) -> float:
        """Return the factor of the learning rate at a progress of training in [0, 1)."""
        if progress < self.warmup_fraction:
            return progress / self.warmup_fraction
        passed = (progress - self.warmup_fraction) / (1 - self.warmup_fraction)
        left = 0.5 * (1 + math.cos(math.pi * passed)) if self.shape == "cosine" else 1 - passed
        return self.final_factor + (1 - self.final_factor) * left

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        return (scale_rates(optimizer, self.factor),)


@dataclass(frozen=True)
class MultiStep:
    """The learning rate is multiplied by `gamma` at each of the `milestones`, as by torch's MultiStepLR.

    `milestones` are numbers of finished epochs, of `epochs` in all. Those from `epochs` on are not reached.
    """

    milestones: Sequence[int]
    gamma: float = 0.1
    epochs: int = 1

    def __post_init__(self) -> None:
        numbers = list(self.milestones)
        if not numbers or numbers[0] < 1 or sorted(set(numbers)) != numbers:
            raise ValueError(
                f"milestones={numbers} are no rising numbers of epochs: use one or more from 1 on, such as [50,80]"
            )
        if not self.gamma > 0:
            raise ValueError(f"gamma={self.gamma} is not positive: use a factor above 0, such as 0.1")

    def factor(self, progress: float) -> float:
        """Return the factor of the learning rate at a progress of training in [0, 1)."""
        epoch = progress * self.epochs + 1e-6  # rounding may put the first step of an epoch below its number
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        return (scale_rates(optimizer, self.factor),)


def scale_rates(optimizer: Optimizer, factor: Callable[[float], float]) -> Callable[[float], None]:
    """Return the function that sets the learning rates at a progress of training to `factor` of their first values."""
    initial_rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(progress: float) -> None:
        value = factor(progress)
        for group, lr in zip(optimizer.param_groups, initial_rates, strict=True):
            group["lr"] = lr * value

    return set_rates
