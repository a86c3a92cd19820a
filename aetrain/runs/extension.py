"""A change of the number of epochs between two parts of a training, and the schedules that depend on it."""

import math
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from aetrain.config.errors import ConfigError
from aetrain.model.layers import Scheduled
from aetrain.runs.build import Components
from aetrain.storage.checkpoint_state import CheckpointState
from aetrain.training.loop import TrainState

LAST_PROGRESS = math.nextafter(1.0, 0.0)  # of training, which is below 1
MAX_DECIMALS = 12  # the log rounds to this many, so that the end of a decay to 0 is 0
MIN_CHANGE = 1e-6  # a scheduled number jumps if it changes by more, relative to the larger value


def check_epochs(run: object, epoch: int, epochs: int) -> None:
    """Raise ConfigError where a run's checkpoint is of a later epoch than the last one of `epochs`."""
    if epoch > epochs:
        raise ConfigError(f"{run} is at epoch {epoch} already: epochs={epochs} is too small, use {epoch} or more")


def describe_extension(components: Components, saved: CheckpointState, state: TrainState) -> str:
    """Return a sentence about the scheduled numbers that jump because `epochs` has changed; empty where none does.

    `saved` is the checkpoint from which training continues under the settings of `state`.
    """
    epochs = _saved_epochs(saved)
    if epochs is None or epochs == state.epochs or not epochs:
        return ""
    before = scheduled_numbers(components, min(state.epoch / epochs, LAST_PROGRESS))
    now = scheduled_numbers(components, min(state.epoch / state.epochs, LAST_PROGRESS))
    jumps = [
        f"{name} continues at {_format(value)}, not at {_format(before[name])}"
        for name, value in now.items()
        if abs(value - before[name]) > MIN_CHANGE * max(abs(value), abs(before[name]))
    ]
    return f"epochs={state.epochs} was {epochs}, and schedules depend on it: {'; '.join(jumps)}" if jumps else ""


def scheduled_numbers(components: Components, progress: float) -> dict[str, float]:
    """Return the learning rate and the numbers of scheduled modules by name, at a progress of training in [0, 1).

    The progress remains set, until training sets its own before the next step.
    """
    for step in components.optimizer_steps:
        step.set_progress(progress)
    rates = [group["lr"] for group in components.optimizers[0].param_groups if "lr" in group]
    numbers = {"the learning rate": float(rates[0])} if rates else {}
    for part in components.model.modules():
        numbers |= _numbers_of(part, type(part).__name__)
    for name, penalty in components.objective.penalties.items():
        for path, part in penalty.named_modules(prefix=name):
            numbers |= _numbers_of(part, path)
    return numbers


def _numbers_of(part: nn.Module, label: str) -> dict[str, float]:
    """Return the numbers that a scheduled module has as attributes or buffers, under the label; none of others."""
    if not isinstance(part, Scheduled):
        return {}
    values: dict[str, Any] = {**vars(part), **dict(part.named_buffers(recurse=False))}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) or _is_scalar(value)}
    return {f"{label}.{name}": float(value) for name, value in numbers.items()}


def _format(number: float) -> str:
    return f"{round(number, MAX_DECIMALS):.3g}"


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _saved_epochs(saved: CheckpointState) -> int | None:
    """Return the number of epochs in the config of a checkpoint; None where it has none."""
    epochs = OmegaConf.select(OmegaConf.create(saved.config), "epochs")
    return epochs if isinstance(epochs, int) else None
