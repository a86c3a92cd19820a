"""Checks, before data are read, that the components of a run give several processes the results of one.

A component that draws random numbers without `aetrain.utils.shards`, or whose results depend on the examples of a batch
together without saying so, is found by a comparison of a batch that is computed whole with one computed in shards.
"""

import torch
from torch import Tensor, nn

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.runs.build import Components, build
from aetrain.training.step import OptimizerStep
from aetrain.utils import processes
from aetrain.utils.devices import seed_generators

MAX_ERROR = 0.01  # largest error of a loss or gradient over its largest number; bfloat16 rounds by less
MIN_SCALE = 1e-4  # smaller numbers are compared with this one
PROGRESS = 0.6  # of training, at which schedules are neither at 0 nor at their end
SEED = 5


def check_shards(settings: Settings, components: Components) -> None:
    """Raise ConfigError where the steps of a run in several processes would not be those of one.

    All processes call it, and it has the same result in each. The components stay as they are.
    """
    objective, model = components.objective, components.model
    if settings.compile and (name := _find_gathering(model, objective)):
        raise ConfigError(
            f"compile=true does not fit {processes.world_size()} processes with {name}, which compares the examples of "
            "a batch, while a compiled step sends nothing between processes: use compile=false"
        )
    x = torch.rand(2 * processes.world_size() + 1, *model.image_shape, generator=torch.Generator().manual_seed(SEED))
    with processes.act_alone():
        expected = _results(build(settings), x.to(components.device))
    results = _results(build(settings), x.to(components.device))
    for name, value in expected.items():
        scale = max(float(value.abs().max()), MIN_SCALE)
        if float((results[name] - value).abs().max()) > MAX_ERROR * scale:
            raise ConfigError(
                f"{processes.world_size()} processes cannot train this: {name} of a batch differs between shards and "
                "the whole batch. A component draws random numbers without aetrain.utils.shards, or depends on the "
                "examples of a batch together without reads_batch: train in one process, without torchrun"
            )


def _find_gathering(*modules: nn.Module) -> str:
    """Return the class name of a module that reads the codes of all processes; an empty string for none."""
    parts = [part for module in modules for part in module.modules()]
    return next((type(part).__name__ for part in parts if getattr(part, "reads_batch", False)), "")


def _results(components: Components, x: Tensor) -> dict[str, Tensor]:
    """Return the losses and gradients of each step on a batch, and the tensors after its hooks, by name."""
    results: dict[str, Tensor] = {}
    components.model.train()
    components.objective.train()
    for step in components.optimizer_steps:
        step.set_progress(PROGRESS)
        seed_generators(SEED)
        losses = step.total_gradients(x)
        results |= {f"the loss {step.name or 'of the model'} {name}": value.detach() for name, value in losses.items()}
        results |= _gradients(step, components.model, components.objective)
        for hook in step.after_step:
            hook()
    tensors = {**components.model.state_dict(), **components.objective.state_dict()}
    results |= {f"the tensor {name}": value for name, value in tensors.items()}
    return {name: value.to(torch.float32).nan_to_num() for name, value in results.items()}


def _gradients(step: OptimizerStep, *modules: nn.Module) -> dict[str, Tensor]:
    names = {id(parameter): name for module in modules for name, parameter in module.named_parameters()}
    own = [parameter for parameter in step.parameters() if parameter.grad is not None]
    return {f"the gradient of {names[id(p)]}": p.grad.detach().clone() for p in own if p.grad is not None}
