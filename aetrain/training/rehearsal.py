"""Whether runs can be packed, found out by trying: a step together has to be what each would have done alone."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aetrain.training.fit import Terms, seed_epoch
from aetrain.training.pack import Member, Pack, Unpackable

PROGRESS = (0.3, 0.6)  # of training, at which steps are tried
IMAGES = 8
TOLERANCE = 1e-2  # of what a step changes; sums in another order make some 1e-5


def rehearse(alone: Sequence[Member], together: Sequence[Member]) -> None:
    """Unpackable, with the reason, where a pack of some runs would not be those runs. All members are used up.

    Both are the same runs, built twice.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what vmap does one run after the other, it warns of
            packed = _steps_together(together)
    except Unpackable:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unpackable(f"torch.func.vmap cannot take their steps together ({line[:160]})") from error
    for number, member in enumerate(alone):
        for term, (mine, packs) in _pairs(_steps_alone(member, number, len(alone)), packed[number]).items():
            if not _near(mine, packs):
                raise Unpackable(f"a step together would not be the run's own ({term} differs)")


def _images(member: Member, number: int, count: int) -> Tensor:
    """A batch of each run, [B, R, C, H, W], drawn from a generator of its own."""
    device = next(member.model.parameters()).device
    shape = (IMAGES, count, *member.model.image_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(number)).to(device)


def _steps_together(members: Sequence[Member]) -> list[dict[str, Tensor]]:
    pack = Pack(members)
    pack.model.train()
    pack.seed(0)
    before = [_weights(member) for member in members]
    terms: Terms = {}
    for step, progress in enumerate(PROGRESS):
        x = _images(members[0], step, len(members))
        for update in pack.updates:
            for hook in update.before_step:
                hook(progress)
            terms |= {f"{name}@{step}": value.detach() for name, value in update.step(x).items()}
    return [
        {name.partition("/")[2]: value for name, value in terms.items() if name.startswith(f"{r}/")}
        | _moved(before[r], _weights(member))
        for r, member in enumerate(members)
    ]


def _steps_alone(member: Member, number: int, count: int) -> dict[str, Tensor]:
    member.model.train()
    seed_epoch(member.seed, 0)
    before = _weights(member)
    terms: Terms = {}
    for step, progress in enumerate(PROGRESS):
        x = _images(member, step, count)[:, number]
        for update in member.updates:
            for hook in update.before_step:
                hook(progress)
            terms |= {f"{name}@{step}": value.detach() for name, value in update.step(x).items()}
    return terms | _moved(before, _weights(member))


def _weights(member: Member) -> dict[str, Tensor]:
    parts: dict[str, Any] = {**member.model.state_dict(prefix="model."), **member.objective.state_dict()}
    return {name: value.detach().clone() for name, value in parts.items()}


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: after[name].double() - value.double() for name, value in before.items()}


def _pairs(mine: dict[str, Tensor], packs: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    if mine.keys() != packs.keys():
        raise Unpackable(f"a step together would not be the run's own ({', '.join(mine.keys() ^ packs.keys())})")
    return {name: (value, packs[name]) for name, value in mine.items()}


def _near(a: Tensor, b: Tensor) -> bool:
    """Whether they differ by no more than rounding, as a whole; numbers that are not finite count as each other."""
    a, b = (torch.nan_to_num(t.double(), posinf=0, neginf=0) for t in (a, b))
    return bool((a - b).norm() <= TOLERANCE * a.norm() + 1e-7 * a.numel() ** 0.5)
