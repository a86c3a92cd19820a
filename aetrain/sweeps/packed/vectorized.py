"""The vectorised model of several runs: their weights stacked, every step taken by all of them at once.

Each run keeps its own weights (a row of the stack), optimizer, schedule and random numbers, so it reaches the same
result as alone, up to rounding in another order of sums. `fit` sees one run, whose batches hold a batch of each run and
whose losses are called `0/nll`, `1/nll`, ...

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
from aetrain.data.examples import Examples, Prepare, num_batches, shuffled_rows
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import Scheduled, is_stateful
from aetrain.model.records import LossDict
from aetrain.objective.objective import Objective
from aetrain.sweeps.packed.random_replay import RandomCall, RecordRandomCalls, ReplayRandomCalls
from aetrain.training.loop import TrainState, epoch_seed
from aetrain.training.step import OptimizerStep


class NotVectorizable(ValueError):
    """Runs that cannot be trained as one vectorised model. The text is the reason."""


@dataclass(frozen=True, eq=False)
class PackedRun:
    """The modules of one run of a pack."""

    model: Autoencoder
    objective: Objective
    augment: Augment
    noise: Noise
    optimizer_steps: Sequence[OptimizerStep]
    seed: int

    @property
    def scalar_owners(self) -> list[object]:
        """The objects whose attributes may be numbers from the run's config."""
        return [self.augment, *noises_in(self.noise), *self.model.modules(), *self.objective.modules()]


def noises_in(noise: object) -> Iterator[object]:
    """Yield a noise and those inside it: the steps of a sequence of noises, and the noise of known values."""
    yield noise
    for inner in (*getattr(noise, "steps", {}).values(), getattr(noise, "noise", None)):
        if inner is not None:
            yield from noises_in(inner)


class Pack:
    """The stacked weights of several runs and their optimizer steps as one. The runs' weights become rows of it."""

    def __init__(self, runs: Sequence[PackedRun]) -> None:
        self.runs = runs
        self.device = next(runs[0].model.parameters()).device
        self.generators = [torch.Generator(self.device) for _ in runs]
        self.modules = [RunModule(run) for run in runs]
        names = _named_tensors(self.modules[0])
        rows = {name: [_named_tensors(module)[name] for module in self.modules] for name in names}
        self.state = {name: _stack(tensors) for name, tensors in rows.items()}
        self.scalars = _differing_scalars(runs, self.device)
        self.optimizer_steps = [self._vectorize_step(number) for number in range(len(runs[0].optimizer_steps))]
        self.model = nn.ModuleList(run.model for run in runs)

    def seed(self, epoch: int) -> None:
        """Seed each run's generator for an epoch, as the run alone would be."""
        for generator, run in zip(self.generators, self.runs, strict=True):
            generator.manual_seed(epoch_seed(run.seed, epoch))

    def metrics(self, state: TrainState, index: int) -> dict[str, float]:
        """Return the losses of one run's last epoch."""
        prefix = f"{index}/"
        metrics = state.metrics.items()
        return {name.removeprefix(prefix): value for name, value in metrics if name.startswith(prefix)}

    def _vectorize_step(self, number: int) -> OptimizerStep:
        steps = [run.optimizer_steps[number] for run in self.runs]
        optimizers = PerRunOptimizers([step.optimizer for step in steps], self.state, self.modules)
        return OptimizerStep(
            losses=VectorizedLoss(self, number),
            optimizer=cast(Optimizer, optimizers),
            before_step=[hook for step in steps for hook in step.before_step],
            after_step=[hook for step in steps for hook in step.after_step],
        )


class RunModule(nn.Module):
    """A run's model and objective as one module, whose weights torch.func can replace."""

    def __init__(self, run: PackedRun) -> None:
        super().__init__()
        self.model = run.model
        self.objective = run.objective

    def forward(self, losses: Callable[[Tensor], LossDict], x: Tensor) -> LossDict:
        """Return the losses of a step on a batch [B, C, H, W]."""
        return losses(x)


class VectorizedLoss:
    """The losses of one step of every run: [B, R, C, H, W] to the sum of the runs' losses, and each by itself."""

    def __init__(self, pack: Pack, number: int) -> None:
        self.pack = pack
        self.steps = [run.optimizer_steps[number] for run in pack.runs]
        self.prefix = f"{self.steps[0].name}_" if self.steps[0].name else ""
        self.random_calls: dict[int, list[list[RandomCall]]] = {}  # of every run, by batch size

    def __call__(self, x: Tensor) -> LossDict:
        """Return `loss`, the sum over runs, and the losses of each run under its number."""
        arguments = (self.pack.state, self.pack.scalars, self._draw(x), x)
        losses: LossDict = vmap(self._loss_of_one_run, in_dims=(0, 0, 0, 1))(*arguments)  # [R] each
        by_run: LossDict = {}
        for name, values in losses.items():
            for r, value in enumerate(values.detach().unbind()):
                by_run[f"{r}/{self.prefix}{name}"] = value
        return {"loss": losses["loss"].sum(), **by_run}

    def _loss_of_one_run(
        self, state: dict[str, Tensor], scalars: "PerRunScalars", random_numbers: list[Tensor], x: Tensor
    ) -> LossDict:
        first = self.pack.runs[0]
        with ReplayRandomCalls(random_numbers), patched_attributes(first.scalar_owners, scalars):
            return cast(LossDict, functional_call(self.pack.modules[0], state, (self.steps[0].losses, x)))

    def _draw(self, x: Tensor) -> list[Tensor]:
        """Draw the random numbers of a step, [R, ...] each, in the order of their calls."""
        if len(x) not in self.random_calls:
            self.random_calls[len(x)] = self._record_calls(x)
        draws = []
        for same_call in zip(*self.random_calls[len(x)], strict=True):
            pairs = zip(same_call, self.pack.generators, strict=True)
            draws.append(torch.stack([call.repeat(generator) for call, generator in pairs]))
        return draws

    def _record_calls(self, x: Tensor) -> list[list[RandomCall]]:
        """Return the random calls of every run in a step on such a batch, without changing any buffer."""
        calls = []
        for r, (module, step) in enumerate(zip(self.pack.modules, self.steps, strict=True)):
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            with RecordRandomCalls() as recorder, torch.no_grad():
                functional_call(module, buffers, (step.losses, x[:, r]))
            calls.append(recorder.calls)
        signatures = {tuple((call.shape, call.function) for call in run_calls) for run_calls in calls}
        if len(signatures) > 1:
            raise NotVectorizable("they draw different random numbers")
        return calls


class PerRunOptimizers:
    """The runs' own optimizers, which step on the rows of one backward pass."""

    def __init__(
        self, optimizers: Sequence[Optimizer], state: Mapping[str, Tensor], modules: Sequence[RunModule]
    ) -> None:
        self.optimizers = optimizers
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.stacks = [tensor for tensor in state.values() if tensor.requires_grad]
        optimized = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        self.rows: list[tuple[Tensor, list[Tensor]]] = []
        for name, stack in state.items():
            rows = [_named_tensors(module)[name] for module in modules]
            if id(rows[0]) in optimized:
                self.rows.append((stack, rows))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, of the stacks and of their rows."""
        for stack in self.stacks:
            stack.grad = None
        for _, rows in self.rows:
            for parameter in rows:
                parameter.grad = None

    def step(self, closure: Callable[[], Any]) -> None:
        """Take one step of every optimizer."""
        closure()
        for stack, rows in self.rows:
            gradients = [None] * len(rows) if stack.grad is None else stack.grad.unbind()
            for parameter, gradient in zip(rows, gradients, strict=True):
                parameter.grad = gradient
        for optimizer in self.optimizers:
            optimizer.step()


class VectorizedBatches:
    """An epoch of every run's own shuffled batches, [B, R, C, H, W], from one set of images."""

    def __init__(self, pack: Pack, state: TrainState, images: Examples, batch_size: int, prepare: Prepare) -> None:
        self.pack = pack
        self.state = state
        self.values = images.values
        self.batch_size = batch_size
        self.prepare = prepare

    def __len__(self) -> int:
        return num_batches(len(self.values), self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        self.pack.seed(self.state.epoch)
        generators = self.pack.generators
        orders = torch.stack([shuffled_rows(self.values, g) for g in generators])
        for index in orders.split(self.batch_size, dim=1):  # [R, B]
            if self.prepare.random:
                pairs = zip(index, generators, strict=True)
                x = torch.stack([self.prepare(self.values[rows], generator) for rows, generator in pairs])
            else:
                x = self.prepare(self.values[index.flatten()]).unflatten(0, index.shape)
            yield x.transpose(0, 1)


PerRunScalars = dict[tuple[int, str], Tensor]  # [R], by the owner's number in `scalar_owners` and the attribute


def _differing_scalars(runs: Sequence[PackedRun], device: torch.device) -> PerRunScalars:
    """Return the numbers in which the runs differ, except those of their optimizers and schedules."""
    scalars: PerRunScalars = {}
    for number, owners in enumerate(zip(*(run.scalar_owners for run in runs), strict=True)):
        for name in vars(owners[0]) if hasattr(owners[0], "__dict__") else ():
            values = [vars(owner).get(name) for owner in owners]
            if not all(isinstance(value, int | float) for value in values) or len(set(values)) == 1:
                continue
            if isinstance(owners[0], Scheduled) and is_stateful(owners[0]):
                kind = type(owners[0]).__name__
                raise NotVectorizable(f"{kind}, which changes during training, differs in {name}")
            scalars[number, name] = torch.tensor(values, dtype=torch.float32, device=device)
    return scalars


class patched_attributes:
    """Set attributes to other numbers inside."""

    def __init__(self, owners: Sequence[object], scalars: PerRunScalars) -> None:
        self.owners = owners
        self.scalars = scalars

    def __enter__(self) -> None:
        self.before = {(number, name): vars(self.owners[number])[name] for number, name in self.scalars}
        self._set(self.scalars)

    def __exit__(self, *_: object) -> None:
        self._set(self.before)

    def _set(self, values: Mapping[tuple[int, str], object]) -> None:
        for (number, name), value in values.items():
            vars(self.owners[number])[name] = value  # works for frozen dataclasses, too


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _stack(rows: Sequence[Tensor]) -> Tensor:
    """Stack tensors to one, [R, ...], whose storage they share afterwards."""
    if len({row.shape for row in rows}) > 1:
        raise NotVectorizable("their weights have different shapes")
    stack = torch.stack([row.detach() for row in rows])
    for row, view in zip(rows, stack, strict=True):
        row.data = view
    return stack.requires_grad_(rows[0].requires_grad)
