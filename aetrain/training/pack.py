"""Many runs of one architecture as one: their weights stacked, every step taken by all of them at once.

Each run keeps its own weights (a row of the stack), optimizer, schedule and random numbers, so it comes to what it
would come to alone, within what floating point makes of another order of sums. `fit` sees one run, whose batches hold a
batch of each, and whose terms are called `0/nll`, `1/nll`, ...

Shapes: R runs in a pack, B images in a batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from aetrain.data.augment import Augment
from aetrain.data.dataset import Images, Prepare
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import Paced
from aetrain.objective.objective import Objective
from aetrain.training.fit import Run, Terms, Update, seed_of
from aetrain.training.optimizers import step_of
from aetrain.training.replay import Draw, Replay, Watch


class Unpackable(ValueError):
    """Runs that cannot be trained together. Its text says why."""


@dataclass(frozen=True, eq=False)
class Member:
    """One run of a pack."""

    model: Autoencoder
    objective: Objective
    augment: Augment
    noise: Noise
    updates: Sequence[Update]
    seed: int

    @property
    def owners(self) -> list[object]:
        """Everything whose attributes may be numbers that this run was given."""
        return [self.augment, self.noise, self.model.likelihood, *self.model.modules(), *self.objective.modules()]


class Pack:
    """The stack of several runs' weights, and their updates as one. The runs' own weights become rows of it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.device = next(members[0].model.parameters()).device
        self.generators = [torch.Generator(self.device) for _ in members]
        self.learners = [Learner(member) for member in members]
        self.state = {
            name: _stacked([_named(learner)[name] for learner in self.learners]) for name in _named(self.learners[0])
        }
        self.numbers = _numbers(members, self.device)
        self.updates = [self._update(number) for number in range(len(members[0].updates))]
        self.model = nn.ModuleList(member.model for member in members)

    def seed(self, epoch: int) -> None:
        """Begin an epoch's random numbers: each run's are those that it would draw alone."""
        for generator, member in zip(self.generators, self.members, strict=True):
            generator.manual_seed(seed_of(member.seed, epoch))

    def metrics(self, run: Run, index: int) -> dict[str, float]:
        """One run's figures of the last epoch."""
        own = f"{index}/"
        return {name.removeprefix(own): value for name, value in run.metrics.items() if name.startswith(own)}

    def _update(self, number: int) -> Update:
        each = [member.updates[number] for member in self.members]
        return Update(
            terms=Together(self, number),
            optimizer=cast(Optimizer, Optimizers([update.optimizer for update in each], self.state, self.learners)),
            before_step=[hook for update in each for hook in update.before_step],
            after_step=[hook for update in each for hook in update.after_step],
        )


class Learner(nn.Module):
    """A run's model and objective as one module, into which torch.func can put other weights."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.model = member.model
        self.objective = member.objective

    def forward(self, terms: Callable[[Tensor], Terms], x: Tensor) -> Terms:
        """An update's terms on a batch [B, C, H, W]."""
        return terms(x)


class Together:
    """The terms of one update of every run: [B, R, C, H, W] to the sum of their losses, and each run's terms."""

    def __init__(self, pack: Pack, number: int) -> None:
        self.pack = pack
        self.updates = [member.updates[number] for member in pack.members]
        self.name = f"{self.updates[0].name}_" if self.updates[0].name else ""
        self.drawn: dict[int, list[list[Draw]]] = {}  # of every run, by the size of the batch

    def __call__(self, x: Tensor) -> Terms:
        given = (self.pack.state, self.pack.numbers, self._draw(x), x)
        terms: Terms = vmap(self._of_one, in_dims=(0, 0, 0, 1))(*given)  # [R] each
        rows = {name: values.detach().unbind() for name, values in terms.items()}
        each = {f"{r}/{self.name}{name}": value for name, row in rows.items() for r, value in enumerate(row)}
        return {"loss": terms["loss"].sum(), **each}

    def _of_one(self, state: dict[str, Tensor], numbers: "Numbers", draws: list[Tensor], x: Tensor) -> Terms:
        first = self.pack.members[0]
        with Replay(draws), _set(first.owners, numbers):
            return cast(Terms, functional_call(self.pack.learners[0], state, (self.updates[0].terms, x)))

    def _draw(self, x: Tensor) -> list[Tensor]:
        """The random numbers of a step, [R, ...] each, in the order in which they are asked for."""
        if len(x) not in self.drawn:
            self.drawn[len(x)] = self._watched(x)
        each = self.drawn[len(x)]
        return [
            torch.stack([draw.again(generator) for draw, generator in zip(same, self.pack.generators, strict=True)])
            for same in zip(*each, strict=True)
        ]

    def _watched(self, x: Tensor) -> list[list[Draw]]:
        """What every run draws in a step on such a batch. Nothing is changed by looking."""
        found = []
        for r, (learner, update) in enumerate(zip(self.pack.learners, self.updates, strict=True)):
            buffers = {name: buffer.clone() for name, buffer in learner.named_buffers()}
            with Watch() as watch, torch.no_grad():
                functional_call(learner, buffers, (update.terms, x[:, r]))
            found.append(watch.draws)
        if len({tuple((draw.shape, draw.call) for draw in draws) for draws in found}) > 1:
            raise Unpackable("they draw different random numbers")
        return found


class Optimizers:
    """The runs' own optimizers, stepping on their rows of one backward pass."""

    def __init__(
        self, optimizers: Sequence[Optimizer], state: Mapping[str, Tensor], learners: Sequence[Learner]
    ) -> None:
        self.steps = [step_of(optimizer) for optimizer in optimizers]
        self.stacks = [tensor for tensor in state.values() if tensor.requires_grad]
        own = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        rows = {name: [_named(learner)[name] for learner in learners] for name in state}
        self.rows = [(state[name], row) for name, row in rows.items() if id(row[0]) in own]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, also those that are rows of one."""
        for stack in self.stacks:
            stack.grad = None
        for _, row in self.rows:
            for parameter in row:
                parameter.grad = None

    def step(self, closure: Callable[[], Any]) -> None:
        """Descend once."""
        closure()
        for stack, row in self.rows:
            gradients = [None] * len(row) if stack.grad is None else stack.grad.unbind()
            for parameter, gradient in zip(row, gradients, strict=True):
                parameter.grad = gradient
        for each in self.steps:
            each()


class PackedBatches:
    """An epoch of every run's own shuffled batches, [B, R, C, H, W], off one set of images."""

    def __init__(self, pack: Pack, run: Run, images: Images, batch_size: int, prepare: Prepare) -> None:
        self.pack = pack
        self.run = run
        self.pixels = images.pixels
        self.batch_size = batch_size
        self.prepare = prepare

    def __len__(self) -> int:
        return -(-len(self.pixels) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        self.pack.seed(self.run.epoch)
        generators, device = self.pack.generators, self.pixels.device
        orders = torch.stack([torch.randperm(len(self.pixels), generator=g, device=device) for g in generators])
        for index in orders.split(self.batch_size, dim=1):  # [R, B]
            if self.prepare.random:
                each = [self.prepare(self.pixels[i], g) for i, g in zip(index, generators, strict=True)]
                x = torch.stack(each)
            else:
                x = self.prepare(self.pixels[index])
            yield x.transpose(0, 1)


Numbers = dict[tuple[int, str], Tensor]  # [R], by the owner's place in `Member.owners` and the attribute


def _numbers(members: Sequence[Member], device: torch.device) -> Numbers:
    """The numbers in which the runs differ, beside those of their optimizers and schedules."""
    numbers: Numbers = {}
    for place, owners in enumerate(zip(*(member.owners for member in members), strict=True)):
        for name in vars(owners[0]) if hasattr(owners[0], "__dict__") else ():
            values = [vars(owner).get(name) for owner in owners]
            if all(isinstance(value, int | float) for value in values) and len(set(values)) > 1:
                if isinstance(owners[0], Paced):
                    raise Unpackable(f"{type(owners[0]).__name__}, which changes in training, differs in {name}")
                numbers[place, name] = torch.tensor(values, dtype=torch.float32, device=device)
    return numbers


class _set:
    """Attributes that are other numbers inside."""

    def __init__(self, owners: Sequence[object], numbers: Numbers) -> None:
        self.owners = owners
        self.numbers = numbers

    def __enter__(self) -> None:
        self.before = {(place, name): vars(self.owners[place])[name] for place, name in self.numbers}
        self._write(self.numbers)

    def __exit__(self, *_: object) -> None:
        self._write(self.before)

    def _write(self, numbers: Mapping[tuple[int, str], object]) -> None:
        for (place, name), value in numbers.items():
            vars(self.owners[place])[name] = value  # also where a dataclass is frozen


def _named(learner: nn.Module) -> dict[str, Tensor]:
    return {**dict(learner.named_parameters()), **dict(learner.named_buffers())}


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """The tensors as one, [R, ...], in whose storage they then are."""
    if len({row.shape for row in rows}) > 1:
        raise Unpackable("their weights have different shapes")
    stack = torch.stack([row.detach() for row in rows])
    for row, place in zip(rows, stack, strict=True):
        row.data = place
    return stack.requires_grad_(rows[0].requires_grad)
