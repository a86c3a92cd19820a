"""The steps that several processes of one training take together (`torchrun -m aetrain ...`): process 0 leads.

Process 0 does all that a single process does: it checks the config, evaluates, logs and writes the run directory. The
others follow it (`runs/follower.py`): they build the same components, read the same data, and take every step of
training with it, on shards of its batches. All processes call the functions here in the same order. Each does nothing
more than `function` says for a process that trains alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from aetrain.config.error_messages import explain
from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.data.digests import digest_data
from aetrain.data.examples import Batches, Splits
from aetrain.runs.build import Components
from aetrain.runs.shard_check import check_shards
from aetrain.storage.checkpoint import TrainingState
from aetrain.storage.checkpoint_state import CheckpointState
from aetrain.storage.run_directory import RunDirectory, resume_command
from aetrain.training.backend.compile import compile_steps
from aetrain.training.loop import TrainState
from aetrain.training.step import OptimizerStep
from aetrain.utils import processes
from aetrain.utils.cores import Limit
from aetrain.utils.processes import ProcessLost, describe_process, gather_objects, is_alone, rank

log = logging.getLogger("aetrain")

T = TypeVar("T")


class LeaderFailed(Exception):
    """Process 0 reports the error for which this process ends."""


def together(function: Callable[[], T]) -> T:
    """Return the result of a function that all processes call. If one raises an exception, process 0 raises its text.

    The other processes raise LeaderFailed then.
    """
    if is_alone():
        return function()
    result, error = None, None
    try:
        result = function()
    except Exception as exception:
        error = exception
    texts = gather_objects(None if error is None else f"{describe_process()}: {explain(error)}")
    failures = [text for text in texts if text is not None]
    if not failures:
        return result  # type: ignore[return-value]  # the function has returned it
    if rank() > 0:
        raise LeaderFailed
    raise ConfigError(failures[0]) if error is None else error


def begin(settings: Settings, components: Components) -> None:
    """Let the others build the components of a run. Raise ConfigError for what several processes cannot train."""
    if is_alone():
        return
    processes.broadcast(settings)
    together(lambda: components)
    together(lambda: check_shards(settings, components))


def load_together(components: Components, load: Callable[[Components], Splits]) -> Splits:
    """Return the data, loaded first by one process of each machine, which downloads files and writes caches.

    Raise ConfigError where a machine has other data.
    """
    if is_alone():
        return load(components)
    is_first = processes.local_rank() == 0
    splits = together(lambda: load(components) if is_first else None)
    splits = together(lambda: load(components) if splits is None else splits)
    assert splits is not None
    digests = gather_objects((describe_process(), digest_data(splits) if is_first else None))
    own = digests[0][1]

    def compare() -> None:
        for name, other in digests if rank() == 0 else ():
            if other is not None and (change := other.describe_change(own)):
                raise ConfigError(f"{name} has other data than process 0: {change}")

    together(compare)
    return splits


def share_threads(threads: Limit, resumed: CheckpointState | None, device: torch.device) -> Limit:
    """Return the number of threads of process 0, and log the number of processes."""
    if not is_alone():
        log.info("processes: %d (%s)", processes.world_size(), processes.backends()[device.type])
    if resumed is not None and resumed.processes != processes.world_size():
        log.info(
            "the run began with %d process%s: with another number, its results agree within rounding, not bit for bit",
            resumed.processes,
            "" if resumed.processes == 1 else "es",
        )
    shared: Limit = processes.broadcast(threads)
    return shared


def share_start(is_new: bool) -> None:
    """Let the others pretrain, too, where a run is new."""
    processes.broadcast(is_new)


def share_state(state: TrainState, training: TrainingState, steps: Sequence[OptimizerStep]) -> None:
    """Give the weights, the state of the optimizers, the epoch and the past objective of process 0 to the others."""
    if is_alone():
        return
    content = (state.epoch, state.model.state_dict(), training.state_dict())
    on_cpu = pytree.tree_map_only(Tensor, Tensor.cpu, content)
    epoch, weights, states = processes.broadcast(on_cpu if rank() == 0 else None)
    if rank() > 0:
        state.epoch = epoch
        state.model.load_state_dict(weights)
        training.load_state_dict(states)
    share_end_of_epoch(state, steps)


def check_same_weights(state: TrainState) -> None:
    """Check that all processes have the same weights: the first callback of an epoch, before a checkpoint is saved.

    Raise ConfigError where they differ: machines compute differently.
    """
    if is_alone():
        return
    sums = [float(tensor.double().sum()).hex() for tensor in state.model.state_dict().values()]  # NaNs are the same
    different = [number for number, other in enumerate(gather_objects(sums)) if other != sums]
    if different and rank() == 0:
        raise ConfigError(
            f"processes 0 and {different[0]} have different weights after epoch {state.epoch}: their machines compute "
            "differently; use machines of one kind, with the same versions of torch"
        )


def share_end_of_epoch(state: TrainState, steps: Sequence[OptimizerStep]) -> None:
    """Give the decision to stop, and the objective by which schedules set learning rates, to the others.

    It is the last callback of an epoch, after the evaluation of process 0.
    """
    if is_alone():
        return
    reason, objectives = processes.broadcast((state.stop_reason, [step.past_objective for step in steps]))
    if rank() > 0:
        state.stop_reason = reason
        for step, (values, higher_is_better) in zip(steps, objectives, strict=True):
            step.set_objective(values, higher_is_better)


@contextmanager
def explaining_loss(run_dir: RunDirectory) -> Iterator[None]:
    """Turn the loss of another process into a ConfigError that says how training continues."""
    try:
        yield
    except ProcessLost as error:
        raise ConfigError(
            f"another process of this training has ended ({error}); the checkpoint of the last epoch is kept: "
            f"{resume_command(run_dir.path)} continues"
        ) from error


def compile_if_set(settings: Settings, components: Components, batches: Batches, state: TrainState) -> None:
    """Compile the steps where `compile=true` and training has an epoch left."""
    if settings.compile and settings.accumulate_grad_batches > 1:
        log.info("compile=true is ignored: a compiled step takes one batch, not accumulate_grad_batches of them")
    elif settings.compile and not state.is_last:
        compile_steps(components.optimizer_steps, (components.model, components.objective), batches)
