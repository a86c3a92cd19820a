"""Learning-rate schedules: the learning rate as a function of the progress of training, or of past objectives."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch.optim import Optimizer

from aetrain.training.early_stopping import check_min_delta, count_epochs_without_improvement, describe_stagnation

log = logging.getLogger("aetrain")


class Schedule(Protocol):
    """A rule that changes the learning rate during training.

    A schedule whose hooks are `ObjectiveHook`s has the class attribute `reads_objective = True`, so that a run refuses
    to select on the test set by it.
    """

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        """Return the functions to call before every step with the progress of training, in [0, 1)."""
        ...


@runtime_checkable
class ObjectiveHook(Protocol):
    """A hook of a schedule that reads the objective after every epoch, too."""

    def __call__(self, progress: float) -> None:
        """Set the learning rate of the next step."""
        ...

    def set_objective(self, values: Sequence[float], higher_is_better: bool) -> None:
        """Read the objective of all finished epochs. A resumed run calls it once, before its first epoch."""
        ...


def reads_objective(schedule: object) -> bool:
    """Tell whether a schedule, or the class of one, reads the objective."""
    return bool(getattr(schedule, "reads_objective", False))


def replace_epochs(schedule: Schedule, epochs: int) -> Schedule:
    """Return a schedule for a training of `epochs` epochs; one that counts them is a dataclass with that field."""
    settings: Any = schedule
    counts_epochs = is_dataclass(settings) and "epochs" in {field.name for field in fields(settings)}
    changed: Schedule = replace(settings, epochs=epochs) if counts_epochs else schedule
    return changed


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
        check_factor("final_factor", self.final_factor)

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


@dataclass(frozen=True)
class Plateau:
    """The learning rate is multiplied by `factor` whenever the objective has not improved in `patience` epochs.

    An epoch improves it that is better than the best value by more than `min_delta`. The rate does not fall below
    `min_factor` times its first value. Epochs are counted as by ReduceLROnPlateau of Keras; torch's waits for one more.
    The rate is a function of the past values, so that a resumed run has the same.
    """

    factor: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    min_factor: float = 0.0

    reads_objective: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"factor={self.factor} does not lower the rate: use a factor between 0 and 1, such as 0.1")
        if self.patience < 1:
            raise ValueError(f"patience={self.patience} is too small: use 1 epoch or more without improvement")
        check_min_delta(self.min_delta)
        check_factor("min_factor", self.min_factor)

    def factor_after(self, values: Sequence[float], higher_is_better: bool) -> float:
        """Return the factor of the learning rate after epochs with these values of the objective."""
        waits = count_epochs_without_improvement(values, higher_is_better, self.min_delta)
        reductions = sum(wait > 0 and wait % self.patience == 0 for wait in waits)
        return max(self.factor**reductions, self.min_factor)

    def hooks(self, optimizer: Optimizer) -> tuple[Callable[[float], None], ...]:
        return (PlateauRates(self, optimizer),)


class PlateauRates:
    """The hook of `Plateau`, which sets the learning rates of an optimizer."""

    def __init__(self, schedule: Plateau, optimizer: Optimizer) -> None:
        self.schedule = schedule
        self.factor = 1.0
        self.set_rates = scale_rates(optimizer, lambda progress: self.factor)

    def set_objective(self, values: Sequence[float], higher_is_better: bool) -> None:
        """Set the factor of the learning rates after epochs with these values of the objective, and log a new one."""
        before, self.factor = self.factor, self.schedule.factor_after(values, higher_is_better)
        if self.factor != before:
            reason = describe_stagnation(self.schedule.patience, self.schedule.min_delta)
            log.info("learning rate: %.3g times its first value: %s", self.factor, reason)

    def __call__(self, progress: float) -> None:
        """Set the learning rates of the next step."""
        self.set_rates(progress)


def check_factor(name: str, factor: float) -> None:
    """Raise ValueError for a factor of the learning rate outside of [0, 1]."""
    if not 0 <= factor <= 1:
        raise ValueError(f"{name}={factor} is out of range: use a factor of the learning rate from 0 to 1")


def scale_rates(optimizer: Optimizer, factor: Callable[[float], float]) -> Callable[[float], None]:
    """Return the function that sets the learning rates at a progress of training to `factor` of their first values."""
    initial_rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(progress: float) -> None:
        value = factor(progress)
        for group, lr in zip(optimizer.param_groups, initial_rates, strict=True):
            group["lr"] = lr * value

    return set_rates
