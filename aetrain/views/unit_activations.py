"""Activations of single units, the inputs that activate them most, and their effects on the decoded image.

Hooks on a layer's tap read and set its units from outside the model. They are removed before each function returns.

Where a unit has many numbers, one number stands for it. A channel is represented by the middle of its feature map where
an input is optimised for it, and by the largest activation where images are ranked; a recurrent unit by its mean over
the steps; a codeword by the group that it fits best.

Shapes: N or B images, U units, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.evaluation.unit_stats import SATURATED_SHARE, dead_units, share_near_bounds
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import is_smooth
from aetrain.model.records import Forward, Tap

ASCENT_STEPS = 6  # of the gradient ascent
STEP_FRACTION = 0.6  # p, how far each step moves towards the direction of steepest ascent
MIN_NORM = 1e-12  # of a picture that is divided by its norm


@dataclass(frozen=True, eq=False)
class UnitActivations:
    """The activations of a layer over images; a unit of feature maps, steps or groups has one number per place."""

    tap: Tap
    values: Tensor  # [N, U, ...]
    fired: Tensor  # [N, U, ...] bool

    @cached_property
    def per_image(self) -> Tensor:
        """One number per image and unit, [N, U], by which images are ranked."""
        match self.values.dim():
            case 2:
                return self.values
            case 3:
                return self.values.amax(2) if self.tap.is_argmax else self.values.mean(2)
            case _:
                return self.values.flatten(2).amax(2)

    @cached_property
    def rate(self) -> Tensor:
        """The firing rate [U]: the share of images, and of places in them, at which a unit fires."""
        return by_unit(self.fired).to(torch.float32).mean(1)

    @cached_property
    def dead(self) -> Tensor:
        """Units [U] whose activation no image changes; of an argmax layer, units that never win."""
        return self.rate == 0 if self.tap.is_argmax else dead_units(self.values.std(0, correction=0))

    @cached_property
    def saturated(self) -> Tensor:
        """Units [U] that are not dead, but close to a bound of their range for nearly all images."""
        if self.tap.bounds is None:
            return torch.zeros_like(self.dead)
        return (share_near_bounds(self.values, self.tap.bounds).mean(0) >= SATURATED_SHARE) & ~self.dead

    def top_positions(self, units: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image indices, map rows and map columns that activate `units` [U'] most, each [U', k].

        k is `count`, or N where there are fewer images. Rows and columns are 0 in layers without feature maps.
        """
        images = self.per_image[:, units].topk(min(count, len(self.values)), dim=0).indices.t()  # [U', k]
        if self.values.dim() < 4:
            return images, torch.zeros_like(images), torch.zeros_like(images)
        maps = self.values[images, units[:, None]]  # [U', k, h, w]
        position = maps.flatten(2).argmax(2)
        return images, position // maps.shape[3], position % maps.shape[3]


def by_unit(values: Tensor) -> Tensor:
    """Return values [N, U, ...] as [U, all other dimensions]."""
    return values.transpose(0, 1).flatten(1)


@torch.no_grad()
def record_activations(model: Autoencoder, x: Tensor) -> tuple[Forward, dict[str, UnitActivations]]:
    """Run the model on images x [N, C, H, W]; return the forward pass and the activations of each layer by name.

    A unit fires where its activation is not zero. In a layer whose activation is smooth, or where no activation is
    ever zero, a unit fires where its input is above zero (an activation above 1/2 for a logistic unit). In an argmax
    layer, a unit fires where it wins.
    """
    activations: dict[str, UnitActivations] = {}

    def record(tap: Tap, module: nn.Module, inputs: tuple[Tensor], values: Tensor) -> None:
        if tap.is_argmax:
            fired = values == values.amax(1, keepdim=True)
        else:
            fired = values != 0
            if is_smooth(module) or fired.all():  # a few activations of SiLU and GELU underflow to 0
                fired = inputs[0] > 0
        activations[tap.name] = UnitActivations(tap, values, fired)

    with hooks_installed(*(tap.module.register_forward_hook(partial(record, tap)) for tap in model.unit_layers())):
        out = model(x)
    assert isinstance(out, Forward)
    return out, activations


def max_activating_input(
    model: Autoencoder,
    tap: Tap,
    units: Tensor,
    mean_image: Tensor,
    radius: float,
    ascent_direction: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """Return the change of the mean image [C, H, W] that activates each unit most, over its norm: [U, C, H, W].

    For a linear unit that reads pixels it is w / |w|, the unit's own weights (Ng 2011, CS294A, section 4). For other
    units it comes from the norm-constrained gradient ascent of Erhan et al. (2009), "Visualizing higher-layer features
    of a deep network", section 3, from d = 0: d <- radius * direction of (1 - p) d + p radius g / |g|, where g is the
    gradient of the unit's input at the mean image plus d. `ascent_direction` maps a gradient [U, C, H, W] to the
    direction of steepest ascent under the norm, of any length: the gradient itself under the plain norm. No random
    numbers are used. Return None where the unit has no gradient.
    """
    if tap.weights is not None:
        return unit_norm(tap.weights.detach()[units])
    change = torch.zeros(len(units), *mean_image.shape, device=mean_image.device)
    for _ in range(ASCENT_STEPS):
        gradient = input_gradient(model, tap, units, mean_image + change)
        if gradient is None:
            return None
        target = STEP_FRACTION * radius * unit_norm(ascent_direction(gradient))
        change = radius * unit_norm((1 - STEP_FRACTION) * change + target)
    return unit_norm(change)


def input_gradient(model: Autoencoder, tap: Tap, units: Tensor, x: Tensor) -> Tensor | None:
    """Return the gradient [U, C, H, W] of the input of unit i at image i of x [U, C, H, W]; None where it has none."""

    def stop(module: nn.Module, inputs: tuple[Tensor]) -> None:
        raise StopForward(inputs[0])

    x = x.detach().requires_grad_()
    with (
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False),  # cuDNN's recurrent layers have no gradient in evaluation mode
        hooks_installed(tap.module.register_forward_pre_hook(stop)),
    ):
        try:
            model(x)
        except StopForward as stopped:
            inputs = stopped.inputs
        if not inputs.requires_grad:
            return None
        total = reduce_places(inputs, tap)[torch.arange(len(units), device=x.device), units].sum()
        gradient: Tensor | None = torch.autograd.grad(total, x, allow_unused=True)[0]
    return gradient


@torch.no_grad()
def single_unit_effect(
    model: Autoencoder, tap: Tap, activations: UnitActivations, units: Tensor, mean_image: Tensor
) -> Tensor:
    """Return the decoded image with one unit of a layer active, less the one with none active: [U, C, H, W].

    The unit has its largest activation over the images, a channel in the middle of its feature map, a recurrent unit at
    every step; all other units of its layer are 0. The layers before it see the mean image [C, H, W], which matters
    only where the decoder reads pool indices of the encoder. A codeword is set in every group, and its image is
    compared with the mean over all of `units`.
    """
    values = activations.values
    places = values.shape[2:]
    strength = torch.ones_like(units) if tap.is_argmax else activations.per_image[:, units].amax(0)
    single_unit_code = torch.zeros(len(units) + 1, values.shape[1], *places, device=values.device)  # last: no unit
    position: tuple[Any, ...] = (places[0] // 2, places[1] // 2) if len(places) == 2 else (...,)
    for row, unit in enumerate(units.tolist()):
        single_unit_code[(row, unit, *position)] = strength[row]
    with hooks_installed(tap.module.register_forward_hook(lambda module, inputs, values: single_unit_code)):
        decoded = model(mean_image.expand(len(single_unit_code), *mean_image.shape)).decoded
    images = model.likelihood.mean(decoded).clamp(0, 1)
    baseline = images[:-1].mean(0, keepdim=True) if tap.is_argmax else images[-1:]
    return images[:-1] - baseline


def reduce_places(values: Tensor, tap: Tap) -> Tensor:
    """Return one number per unit, [B, U], of values [B, U, ...].

    It is the middle of a feature map, the mean over steps, or the maximum over the groups of an argmax layer.
    """
    match values.dim():
        case 2:
            return values
        case 3:
            return values.amax(2) if tap.is_argmax else values.mean(2)
        case _:
            return values[:, :, values.shape[2] // 2, values.shape[3] // 2]


def unit_norm(pictures: Tensor) -> Tensor:
    """Return each picture of [U, C, H, W] over its norm; NaN and infinite entries become 0, and zero pictures stay."""
    pictures = pictures.nan_to_num(0, 0, 0)
    return pictures / pictures.flatten(1).norm(dim=1).clamp_min(MIN_NORM)[:, None, None, None]


class StopForward(Exception):
    """Ends a forward pass at a tap, whose input it carries."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inputs = inputs


@contextmanager
def hooks_installed(*hooks: Any) -> Iterator[None]:
    """Remove the hooks (torch.utils.hooks.RemovableHandle) when the block ends, also by an exception."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
