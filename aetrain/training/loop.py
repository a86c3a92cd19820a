"""The training loop, the only one: every family, noise, penalty and pretraining stage passes through `fit`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from aetrain.model.records import LossDict
from aetrain.training.step import OptimizerStep
from aetrain.utils.devices import seed_generators


class EpochLoader(Protocol):
    """An iterable whose every pass is an epoch of batches."""

    def __iter__(self) -> Iterator[Tensor]: ...

    def __len__(self) -> int: ...


@dataclass
class TrainState:
    """The state of training at the end of an epoch."""

    model: torch.nn.Module
    seed: int
    epochs: int
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch: means over its examples
    seconds: float = 0.0  # of the last epoch, evaluation and pictures excluded
    stop_reason: str = ""  # why training ends before `epochs`; a callback may set it

    @property
    def is_last(self) -> bool:
        """Tell whether the last epoch has ended: all have passed, or a callback has set `stop_reason`."""
        return self.epoch >= self.epochs or bool(self.stop_reason)


class Callback(Protocol):
    """A function that `fit` calls at the end of every epoch, with the model in evaluation mode."""

    def __call__(self, state: TrainState) -> None: ...


ProgressBar = Callable[[EpochLoader, TrainState], Iterator[Tensor]]


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's generators."""
    return (seed << 20) + epoch


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed every generator from (seed, epoch), so that an epoch is a pure function of its initial state."""
    seed_generators(epoch_seed(seed, epoch))


def fit(
    state: TrainState,
    optimizer_steps: Sequence[OptimizerStep],
    loader: EpochLoader,
    callbacks: Sequence[Callback] = (),
    progress_bar: ProgressBar | None = None,
    accumulate: int = 1,
) -> None:
    """Train until `state.epochs` epochs have passed or a callback has set `state.stop_reason`.

    Each optimizer step takes `accumulate` batches. Losses stay on the device until the epoch ends.
    """
    while not state.is_last:
        start = time.perf_counter()
        state.model.train()
        seed_epoch(state.seed, state.epoch)
        batches = iter(loader) if progress_bar is None else progress_bar(loader, state)
        state.metrics = _train_epoch(state, optimizer_steps, batches, len(loader), accumulate)
        state.epoch += 1
        state.seconds = time.perf_counter() - start
        state.model.eval()
        for callback in callbacks:
            callback(state)


def _train_epoch(
    state: TrainState,
    optimizer_steps: Sequence[OptimizerStep],
    batches: Iterator[Tensor],
    num_batches: int,
    accumulate: int,
) -> dict[str, float]:
    """Train one epoch and return the means of its losses."""
    names: list[str] = []
    total: Tensor | None = None  # [losses] sums over the examples of the epoch
    count = 0
    for number, group in _grouped(batches, accumulate):
        losses: LossDict = {}
        for optimizer_step in optimizer_steps:
            optimizer_step.set_progress((state.epoch + number / num_batches) / state.epochs)
            losses |= optimizer_step(*group)
        size = sum(len(x) for x in group)
        values = torch.stack([value.detach() for value in losses.values()]) * size
        names, total = list(losses), values if total is None else total.add_(values)
        count += size
    return {} if total is None else dict(zip(names, (total / count).tolist(), strict=True))


def _grouped(batches: Iterable[Tensor], size: int) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield groups of `size` batches, the last one maybe smaller, each with the number of its first batch."""
    group: list[Tensor] = []
    for number, x in enumerate(batches):
        group.append(x)
        if len(group) == size:
            yield number - size + 1, group
            group = []
    if group:
        yield number - len(group) + 1, group
