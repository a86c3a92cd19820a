"""Check by trial steps that the vectorised model of several runs is equivalent to the runs."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aetrain.model.records import LossDict
from aetrain.sweeps.packed.vectorized import NotVectorizable, Pack, PackedRun
from aetrain.training.loop import seed_epoch
from aetrain.training.step import OptimizerStep
from aetrain.utils.devices import to_float64

TRIAL_PROGRESS = (0.3, 0.6)  # of training, at which steps are tried
TRIAL_BATCH_SIZE = 8
RELATIVE_TOLERANCE = 1e-2  # of the change of a step; another order of sums gives about 1e-5
ABSOLUTE_TOLERANCE = 1e-7  # per element
MAX_REASON_LENGTH = 160  # characters


def check_equivalence(separate: Sequence[PackedRun], vectorized: Sequence[PackedRun]) -> None:
    """Raise NotVectorizable, with the reason, where a pack of runs would differ from the runs.

    Both arguments are the same runs, built twice; both are changed by the trial steps.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # vmap warns of functions that it computes one run after the other
            packed = _vectorized_steps(vectorized)
    except NotVectorizable:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = f"torch.func.vmap cannot compute their steps ({line[:MAX_REASON_LENGTH]})"
        raise NotVectorizable(reason) from error
    for number, run in enumerate(separate):
        alone = _separate_steps(run, number, len(separate))
        if alone.keys() != packed[number].keys():
            names = ", ".join(alone.keys() ^ packed[number].keys())
            raise NotVectorizable(f"a vectorised step differs from the run's own ({names})")
        for name, value in alone.items():
            if not _allclose(value, packed[number][name]):
                raise NotVectorizable(f"a vectorised step differs from the run's own ({name} differs)")


def _trial_images(run: PackedRun, seed: int, count: int) -> Tensor:
    """Return a random batch for each run, [B, R, C, H, W]."""
    device = next(run.model.parameters()).device
    shape = (TRIAL_BATCH_SIZE, count, *run.model.image_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def _vectorized_steps(runs: Sequence[PackedRun]) -> list[dict[str, Tensor]]:
    """Return the losses and the changes of the weights of each run after the trial steps of a pack."""
    pack = Pack(runs)
    pack.model.train()
    pack.seed(0)
    before = [_weights(run) for run in runs]
    losses: LossDict = {}
    for number, progress in enumerate(TRIAL_PROGRESS):
        x = _trial_images(runs[0], number, len(runs))
        losses |= _take_steps(pack.optimizer_steps, x, number, progress)
    results = []
    for r, run in enumerate(runs):
        prefix = f"{r}/"
        own = {name.removeprefix(prefix): value for name, value in losses.items() if name.startswith(prefix)}
        results.append(own | _weight_deltas(before[r], _weights(run)))
    return results


def _separate_steps(run: PackedRun, number: int, count: int) -> dict[str, Tensor]:
    """Return the losses and the changes of the weights of run `number` of `count` after its own trial steps."""
    run.model.train()
    seed_epoch(run.seed, 0)
    before = _weights(run)
    losses: LossDict = {}
    for step, progress in enumerate(TRIAL_PROGRESS):
        x = _trial_images(run, step, count)[:, number]
        losses |= _take_steps(run.optimizer_steps, x, step, progress)
    return losses | _weight_deltas(before, _weights(run))


def _take_steps(steps: Sequence[OptimizerStep], x: Tensor, number: int, progress: float) -> LossDict:
    losses: LossDict = {}
    for step in steps:
        step.set_progress(progress)
        losses |= {f"{name}@{number}": value.detach() for name, value in step(x).items()}
    return losses


def _weights(run: PackedRun) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {**run.model.state_dict(prefix="model."), **run.objective.state_dict()}
    return {name: value.detach().clone() for name, value in tensors.items()}


def _weight_deltas(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: to_float64(after[name]) - to_float64(value) for name, value in before.items()}


def _allclose(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors differ by rounding alone, in norm; values that are not finite count as equal."""
    a, b = (torch.nan_to_num(to_float64(tensor), posinf=0, neginf=0) for tensor in (a, b))
    tolerance = RELATIVE_TOLERANCE * a.norm() + ABSOLUTE_TOLERANCE * a.numel() ** 0.5
    return bool((a - b).norm() <= tolerance)
