"""Probes of single units: what their activations are, which picture excites one most, what one paints alone.

A layer's units are read and set at its tap, from outside: hooks stand there while somebody looks, and no longer.

One number stands for a unit that has many, one a place: a channel's is that in the middle of its maps where a picture
is made for it, and the largest one where images are ranked; a recurrent unit's is its mean over the steps; a
codeword's is that of the group it goes with best.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aetrain.evaluation.vitals import NEARLY_ALL, at_an_end, dead
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward, Tap

STEPS = 6  # of the ascent
PACE = 0.6  # how far each goes to where the slope points


@dataclass(frozen=True, eq=False)
class Activity:
    """A layer's activations over images: N images, U units, and places where a unit has many numbers."""

    tap: Tap
    values: Tensor  # [N, U, ...]
    fired: Tensor  # [N, U, ...] bool

    @cached_property
    def per_image(self) -> Tensor:
        """One number [N, U] for an image and a unit, by which images are ranked."""
        match self.values.dim():
            case 2:
                return self.values
            case 3:
                return self.values.amax(2) if self.tap.contest else self.values.mean(2)
            case _:
                return self.values.flatten(2).amax(2)

    @cached_property
    def rate(self) -> Tensor:
        """The share [U] of images, and of places in them, at which a unit fires."""
        return by_unit(self.fired).to(torch.float32).mean(1)

    @cached_property
    def dead(self) -> Tensor:
        """Units [U] that no image moves; of a contest, those that never win."""
        return self.rate == 0 if self.tap.contest else dead(self.values.std(0, correction=0))

    @cached_property
    def saturated(self) -> Tensor:
        """Units [U] that are alive, but nearly always so close to a bound that their input hardly matters."""
        if self.tap.bounds is None:
            return torch.zeros_like(self.dead)
        return (at_an_end(self.values, self.tap.bounds).mean(0) >= NEARLY_ALL) & ~self.dead

    def top(self, units: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images that excite units [U'] most: their numbers, and where in the maps, row and column, all [U', k].

        Where there are no maps, row and column are 0.
        """
        images = self.per_image[:, units].topk(min(count, len(self.values)), dim=0).indices.t()  # [U', k]
        if self.values.dim() < 4:
            return images, torch.zeros_like(images), torch.zeros_like(images)
        maps = self.values[images, units[:, None]]  # [U', k, h, w]
        place = maps.flatten(2).argmax(2)
        return images, place // maps.shape[3], place % maps.shape[3]


def by_unit(values: Tensor) -> Tensor:
    """[N, U, ...] as [U, all the rest]."""
    return values.transpose(0, 1).flatten(1)


@torch.no_grad()
def recorded(model: Autoencoder, x: Tensor) -> tuple[Forward, dict[str, Activity]]:
    """One pass over images, and what every layer's units did in it.

    A unit fires where its activation is not zero; in a layer in which nothing is ever zero, where its input is above
    zero (half-way up, for a logistic unit); in a contest, where it wins.
    """
    seen: dict[str, Activity] = {}

    def record(tap: Tap) -> Callable[..., None]:
        def hook(module: Any, given: tuple[Tensor], values: Tensor) -> None:
            if tap.contest:
                fired = values == values.amax(1, keepdim=True)
            else:
                fired = values != 0
                if fired.all():
                    fired = given[0] > 0
            seen[tap.name] = Activity(tap, values, fired)

        return hook

    with standing(*(tap.module.register_forward_hook(record(tap)) for tap in model.layers())):
        out = model(x)
    assert isinstance(out, Forward)
    return out, seen


def exciting(
    model: Autoencoder, tap: Tap, units: Tensor, mean: Tensor, radius: float, towards: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """The change of the mean image [C, H, W] that excites each unit most, over its norm: [U, C, H, W].

    A linear unit that reads pixels answers most to its own weights: w / |w| (Ng 2011, CS294A, section 4). For others
    it is found by the norm-constrained ascent of Erhan et al. (2009), "Visualizing higher-layer features of a deep
    network", section 3, from d = 0: d <- radius * direction of (1 - p) d + p radius g / |g|, where g is the slope of
    the unit's input at the mean image plus d. `towards` is the change, of any length, that goes uphill most by a slope
    [U, C, H, W]: the slope itself where all changes of one length are alike. Nothing is drawn at random. None where
    the code cannot be differentiated.
    """
    if tap.weights is not None:
        return unit_norm(tap.weights.detach()[units])
    change = torch.zeros(len(units), *mean.shape, device=mean.device)
    for _ in range(STEPS):
        slope = slope_at(model, tap, units, mean + change)
        if slope is None:
            return None
        change = radius * unit_norm((1 - PACE) * change + PACE * radius * unit_norm(towards(slope)))
    return unit_norm(change)


def slope_at(model: Autoencoder, tap: Tap, units: Tensor, x: Tensor) -> Tensor | None:
    """The slope [U, C, H, W] of the input of unit i at picture i of x [U, C, H, W]; None where there is none."""

    def stop(module: Any, given: tuple[Tensor]) -> None:
        raise Reached(given[0])

    x = x.detach().requires_grad_()
    with (
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False),  # whose recurrent layers have no slope in evaluation mode
        standing(tap.module.register_forward_pre_hook(stop)),
    ):
        try:
            model(x)
        except Reached as reached:
            inputs = reached.inputs
        if not inputs.requires_grad:
            return None
        excitement = one_number(inputs, tap)[torch.arange(len(units), device=x.device), units].sum()
        slope: Tensor | None = torch.autograd.grad(excitement, x, allow_unused=True)[0]
    return slope


@torch.no_grad()
def alone(model: Autoencoder, tap: Tap, activity: Activity, units: Tensor, mean: Tensor) -> Tensor:
    """What the decoder paints when one unit alone is active, less what it paints when none is: [U, C, H, W].

    The unit is as active as its most exciting image makes it, a channel in the middle of its maps, a recurrent unit at
    every step; all others of its layer are 0. Layers before it see the mean image, which matters only where a decoder
    asks more of the encoder than the code. A codeword stands in every group, and is shown against the mean of all.
    """
    values = activity.values
    places = values.shape[2:]
    strength = torch.ones_like(units) if tap.contest else activity.per_image[:, units].amax(0)
    lone = torch.zeros(len(units) + 1, values.shape[1], *places, device=values.device)  # the last has none
    at = (len(places) == 2 and (places[0] // 2, places[1] // 2)) or (...,)
    for row, unit in enumerate(units.tolist()):
        lone[(row, unit, *at)] = strength[row]
    with standing(tap.module.register_forward_hook(lambda module, given, values: lone)):
        painted = model.likelihood.mean(model(mean.expand(len(lone), *mean.shape)).decoded).clamp(0, 1)
    return painted[:-1] - (painted[:-1].mean(0, keepdim=True) if tap.contest else painted[-1:])


def one_number(values: Tensor, tap: Tap) -> Tensor:
    """[B, U, ...] as [B, U]: a map's middle, the mean over steps, the best of a contest."""
    match values.dim():
        case 2:
            return values
        case 3:
            return values.amax(2) if tap.contest else values.mean(2)
        case _:
            return values[:, :, values.shape[2] // 2, values.shape[3] // 2]


def unit_norm(pictures: Tensor) -> Tensor:
    """Each picture [C, H, W] of [U, C, H, W] over its norm; what is no number, or zero everywhere, becomes zero."""
    pictures = pictures.nan_to_num(0, 0, 0)
    return pictures / pictures.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]


class Reached(Exception):
    """A pass has come to the tap, and need not go on."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inputs = inputs


@contextmanager
def standing(*hooks: Any) -> Iterator[None]:
    """Hooks that are gone afterwards, whatever happens."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
