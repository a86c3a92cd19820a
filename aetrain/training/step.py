"""The path of a batch, in reading order: augment, corrupt, forward, loss; gradients; a step of the optimizer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aetrain.data.augment import Augment
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import AfterStepHook, Scheduled
from aetrain.model.records import Forward, LossDict
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import Critic
from aetrain.training.schedules import ObjectiveHook, Schedule
from aetrain.utils import processes
from aetrain.utils.shards import sharded

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
ForwardPass = Callable[[Tensor, Tensor], Forward]  # (what the encoder sees, the target); the model itself in float32


@dataclass(frozen=True)
class TrainingStep:
    """The losses of an autoencoder on one batch."""

    model: Autoencoder
    objective: Objective
    augment: Augment
    noise: Noise
    forward: ForwardPass

    def __call__(self, x: Tensor) -> LossDict:
        """Return the batch means of the losses for images x [B, C, H, W]; training descends `loss`.

        Of several processes, each returns its part of the means (`sharded`).
        """
        x = self.augment(x)
        x_in = self.noise(x)
        return sharded(self._losses, x_in, x)

    def _losses(self, x_in: Tensor, x: Tensor) -> LossDict:
        out = self.forward(x_in, x)
        return self.objective(self.model, out)


@dataclass(frozen=True)
class CriticStep:
    """The losses of a penalty that has parameters of its own, on one batch."""

    model: Autoencoder
    critic: Critic
    augment: Augment
    noise: Noise

    def __call__(self, x: Tensor) -> LossDict:
        """Return the batch means of the critic's losses for images x [B, C, H, W]; training descends `loss`."""
        x_in = self.noise(self.augment(x))
        return sharded(partial(self.critic.losses, self.model), x_in)


class OptimizerStep:
    """One optimizer that descends one loss over its own parameters.

    A plain autoencoder has one, an adversarial one two. `losses` maps a batch to named scalars on the device.
    """

    def __init__(
        self,
        losses: Callable[[Tensor], LossDict],
        optimizer: Optimizer,
        before_step: Sequence[Callable[[float], None]] = (),
        after_step: Sequence[Callable[[], None]] = (),
        name: str = "",
        clip_grad_norm: float | None = None,
    ) -> None:
        self.losses = losses
        self.optimizer = optimizer
        self.before_step = before_step  # called with the progress of training, in [0, 1)
        self.after_step = list(after_step)
        self.name = name  # prefix of the names of its losses, so that two steps do not share one
        self.clip_grad_norm = clip_grad_norm
        self.gradients: Callable[[Tensor], LossDict] = self.backward  # or a compiled program
        self.past_objective: tuple[Sequence[float], bool] = ((), False)  # the arguments of the last `set_objective`

    def set_progress(self, progress: float) -> None:
        """Tell schedules and modules how much of training has passed, in [0, 1)."""
        for hook in self.before_step:
            hook(progress)

    def set_objective(self, values: Sequence[float], higher_is_better: bool) -> None:
        """Tell schedules the objective of all finished epochs."""
        self.past_objective = (tuple(values), higher_is_better)
        for hook in self.before_step:
            if isinstance(hook, ObjectiveHook):
                hook.set_objective(values, higher_is_better)

    def __call__(self, *batches: Tensor) -> LossDict:
        """Take one step on batches [B, C, H, W], as on one batch of all; return the losses before the step."""
        first: LossDict = {}

        def closure() -> Tensor:  # L-BFGS evaluates it several times
            losses = self.total_gradients(*batches)
            if self.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters(), self.clip_grad_norm)
            if not first:
                first.update(losses)
            return losses["loss"]

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's annotation says float, it takes a tensor
        for hook in self.after_step:
            hook()
        return {f"{self.name}_{name}": value for name, value in first.items()} if self.name else first

    def total_gradients(self, *batches: Tensor) -> LossDict:
        """Return the losses of batches and leave the gradients of `loss` in the parameters: those of all processes."""
        self.optimizer.zero_grad(set_to_none=True)  # also drops gradients that another step left here
        losses = self.gradients(batches[0]) if len(batches) == 1 else self._accumulate(batches)
        return losses if processes.is_alone() else processes.sum_over_processes(self.parameters(), losses)

    def backward(self, x: Tensor) -> LossDict:
        """Return the losses of a batch and leave the gradients of `loss` in the parameters."""
        losses = self.losses(x)
        losses["loss"].backward()
        return losses

    def _accumulate(self, batches: Sequence[Tensor]) -> LossDict:
        """Return the means of the losses over several batches and leave the gradients of their mean."""
        count = sum(len(x) for x in batches)
        means: LossDict = {}
        for x in batches:
            losses = self.losses(x)
            share = len(x) / count
            (share * losses["loss"]).backward()
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + share * value.detach()
        return means

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer changes."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def optimizer_steps(
    training_step: TrainingStep,
    make_optimizer: MakeOptimizer,
    schedule: Schedule,
    clip_grad_norm: float | None = None,
) -> list[OptimizerStep]:
    """Return the step of the model, then one for each critic of its objective."""
    model, objective = training_step.model, training_step.objective
    progress_hooks = [*set_progress_hooks(model), *set_progress_hooks(objective)]
    after_step = after_step_hooks(model)

    def make_step(losses: Callable[[Tensor], LossDict], parameters: Iterable[nn.Parameter], name: str) -> OptimizerStep:
        optimizer = make_optimizer(parameters)
        before_step = [*schedule.hooks(optimizer), *progress_hooks]
        return OptimizerStep(losses, optimizer, before_step, after_step, name, clip_grad_norm)

    steps = [make_step(training_step, model.parameters(), "")]
    for name, critic in objective.critics.items():
        critic_step = CriticStep(model, critic, training_step.augment, training_step.noise)
        steps.append(make_step(critic_step, critic.parameters(), name))
    return steps


def after_step_hooks(module: nn.Module) -> list[Callable[[], None]]:
    """Return the functions of a module to call after every step of an optimizer."""
    return [part.after_optimizer_step for part in module.modules() if isinstance(part, AfterStepHook)]


def set_progress_hooks(module: nn.Module) -> list[Callable[[float], None]]:
    """Return the functions of a module to call before every step with the progress of training."""
    return [part.set_progress for part in module.modules() if isinstance(part, Scheduled)]
