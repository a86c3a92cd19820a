"""The training loop, the only one: every family, noise, penalty and pretraining stage passes through `fit`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from aetrain.training.optimizers import step_of

Terms = dict[str, Tensor]


@dataclass
class Update:
    """One optimizer descending one loss over its own parameters.

    A plain autoencoder has one update, an adversarial one two. `terms` maps a batch to named scalars on the device,
    of which `loss` is descended.
    """

    terms: Callable[[Tensor], Terms]
    optimizer: Optimizer
    before_step: Sequence[Callable[[float], None]] = ()  # called with the progress of training, in [0, 1)
    after_step: Sequence[Callable[[], None]] = ()
    name: str = ""  # goes before the names of its terms (`name_loss`), so that two updates do not share one

    def __post_init__(self) -> None:
        self.gradients: Callable[[Tensor], Terms] = self.by_autograd  # or a compiled program
        self._descend = step_of(self.optimizer)

    def by_autograd(self, x: Tensor) -> Terms:
        """The terms of a batch; the gradients of the loss are left in the weights."""
        terms = self.terms(x)
        terms["loss"].backward()
        return terms

    def step(self, x: Tensor) -> Terms:
        """Descend once on a batch [B, C, H, W]; the terms are those of before the step."""
        first: Terms = {}

        def closure() -> Tensor:  # as a closure, so that L-BFGS may look more than once
            self.optimizer.zero_grad(set_to_none=True)  # also drops gradients that another update left here
            terms = self.gradients(x)
            if not first:
                first.update(terms)
            return terms["loss"]

        self._descend(closure)
        for hook in self.after_step:
            hook()
        return {f"{self.name}_{term}": value for term, value in first.items()} if self.name else first


class EpochOfBatches(Protocol):
    """Something that can be gone through once an epoch."""

    def __iter__(self) -> Iterator[Tensor]: ...

    def __len__(self) -> int: ...


@dataclass
class Run:
    """Where training stands."""

    model: torch.nn.Module
    seed: int
    epochs: int
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch: means over its images
    seconds: float = 0.0  # that the last epoch took, measuring and drawing left out

    @property
    def last(self) -> bool:
        """Whether the epoch that has just ended was the last."""
        return self.epoch >= self.epochs


class Callback(Protocol):
    """Something done at the end of every epoch, with the model in evaluation mode."""

    def __call__(self, run: Run) -> None: ...


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed every generator from (seed, epoch), so that an epoch is a pure function of where it starts."""
    torch.manual_seed(seed_of(seed, epoch))


def seed_of(seed: int, epoch: int) -> int:
    """What the generators of an epoch start from."""
    return (seed << 20) + epoch


def fit(
    run: Run,
    updates: Sequence[Update],
    batches: EpochOfBatches,
    callbacks: Sequence[Callback] = (),
    progress: Callable[[EpochOfBatches, Run], Iterator[Tensor]] | None = None,
) -> None:
    """Train until `run.epochs` epochs have passed. Figures stay on the device until the epoch ends."""
    steps = len(batches)
    while not run.last:
        began = time.perf_counter()
        run.model.train()
        seed_epoch(run.seed, run.epoch)
        names: list[str] = []
        total: Tensor | None = None  # [terms] sums over the images of the epoch
        count = 0
        for step, x in enumerate(iter(batches) if progress is None else progress(batches, run)):
            seen: Terms = {}
            for update in updates:
                for hook in update.before_step:
                    hook((run.epoch + step / steps) / run.epochs)
                seen |= update.step(x)
            values = torch.stack([value.detach() for value in seen.values()]) * len(x)
            names, total = list(seen), values if total is None else total.add_(values)
            count += len(x)
        run.epoch += 1
        run.metrics = {} if total is None else dict(zip(names, (total / count).tolist(), strict=True))
        run.seconds = time.perf_counter() - began
        run.model.eval()
        for callback in callbacks:
            callback(run)
