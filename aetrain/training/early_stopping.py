"""Early stopping: the end of training where the objective no longer improves, as a function of its past values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class StopRule(Protocol):
    """A rule that ends training before the last epoch."""

    @property
    def is_active(self) -> bool:
        """Tell whether the rule may end training at all."""
        ...

    def reason(self, values: Sequence[float], higher_is_better: bool) -> str:
        """Return why training stops after epochs with these values of the objective; empty where it continues.

        The reason is a function of its arguments alone, so that a resumed run stops at the same epoch.
        """
        ...


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` epochs in which the objective is no better than its best value by more than `min_delta`.

    The rule of EarlyStopping in Keras and Lightning, with their names of settings.
    """

    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience={self.patience} is too small: use 1 epoch or more without improvement, or null to never stop"
            )
        check_min_delta(self.min_delta)

    @property
    def is_active(self) -> bool:
        """Tell whether the rule may end training at all."""
        return self.patience is not None

    def reason(self, values: Sequence[float], higher_is_better: bool) -> str:
        """Return why training stops after epochs with these values of the objective; empty where it continues."""
        if self.patience is None:
            return ""
        waits = count_epochs_without_improvement(values, higher_is_better, self.min_delta)
        if not waits or waits[-1] < self.patience:
            return ""
        return describe_stagnation(self.patience, self.min_delta)


def check_min_delta(min_delta: float) -> None:
    """Raise ValueError for a change of the objective that is below 0 or not finite."""
    if not 0 <= min_delta < float("inf"):
        raise ValueError(f"min_delta={min_delta} is out of range: use a change of 0 or more")


def describe_stagnation(patience: int, min_delta: float) -> str:
    """Return in words that `patience` epochs have not improved the objective by more than `min_delta`."""
    epochs = "1 epoch" if patience == 1 else f"{patience} epochs"
    by = f" by more than {min_delta:g}" if min_delta else ""
    return f"no improvement{by} in {epochs}"


def count_epochs_without_improvement(
    values: Sequence[float], higher_is_better: bool, min_delta: float = 0.0
) -> list[int]:
    """Return for each value the number of values since the last improvement.

    An improvement is better than all accepted before by more than `min_delta`; the first value is accepted. A change
    that is too small to count does not move the value to beat.
    """
    sign = 1.0 if higher_is_better else -1.0
    waits, wait, best = [], 0, -float("inf")
    for value in values:
        if sign * value - min_delta > best:
            wait, best = 0, sign * value
        else:
            wait += 1
        waits.append(wait)
    return waits
