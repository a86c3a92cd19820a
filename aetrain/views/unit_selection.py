"""The units that a picture shows: their order, their importance, and the dead units that it leaves out.

Shapes: N images, U units of a layer, C channels, H height, W width, `...` places of a unit (the pixels of a feature
map, the steps of a recurrent unit).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from aetrain.evaluation.evaluator import ACTIVE_UNIT_VARIANCE
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import Code
from aetrain.model.records import Tap
from aetrain.views.unit_activations import UnitActivations, hooks_installed

UNITS_PER_PASS = 64  # units whose effects are computed by one forward pass
MAX_DEAD_UNITS = 8  # that are drawn of a layer without live units

State = Literal["dead", "inactive"]
Importance = Literal["KL from the prior", "firing rate", "effect on the decoded image"]


@dataclass(frozen=True, eq=False)
class UnitSelection:
    """Units of a layer in the order of a picture."""

    units: Tensor  # [U'] numbers from 0
    num_units: int  # U
    order: str = "by number"
    num_omitted: int = 0  # units that are left out because of their state
    omitted_state: State = "dead"  # inactive: units of a Gaussian code that do not depend on the image

    @property
    def numbers(self) -> list[str]:
        """The numbers of the units from 1, as pictures show them."""
        return [str(unit + 1) for unit in self.units.tolist()]

    def reorder(self, units: Tensor, order: str) -> "UnitSelection":
        """Return the selection with the same units in another order, which `order` describes."""
        return replace(self, units=units, order=order)

    def describe(self) -> str:
        """Return the counts and the order in words, such as `64 of 512 units, by number; not drawn: 12 dead units`."""
        count = len(self.units)
        text = f"{count} units" if count == self.num_units else f"{count} of {self.num_units} units"
        if self.num_omitted == self.num_units:
            return f"{text}, {self.order}; all {self.num_units} are {self.omitted_state}"
        noun = "unit" if self.num_omitted == 1 else "units"
        omitted = f"; not drawn: {self.num_omitted} {self.omitted_state} {noun}" if self.num_omitted else ""
        return f"{text}, {self.order}{omitted}"


def select_first(activations: UnitActivations, count: int) -> UnitSelection:
    """Return the first `count` units of a layer, dead or not, so that a unit keeps its position at all epochs."""
    num_units = activations.values.shape[1]
    return UnitSelection(torch.arange(min(count, num_units), device=activations.values.device), num_units)


def select_by_importance(
    activations: UnitActivations, code: Code, importance: Tensor, count: int, live_only: bool
) -> UnitSelection:
    """Return the `count` units of largest `importance` [U], of the live units or of all.

    Live are the units that are not dead; of a Gaussian code, those that are also active. Return the first few units of
    a layer without live units.
    """
    kind, omitted = importance_kind(activations.tap, code), activations.dead
    state: State = "dead"
    if kind == "KL from the prior":
        omitted, state = omitted | (code.mean_z.var(0, correction=0) <= ACTIVE_UNIT_VARIANCE), "inactive"
    order, num_omitted = importance.argsort(descending=True, stable=True), int(omitted.sum())
    if not live_only:
        return UnitSelection(order[:count], len(order), f"largest {kind} first")
    if num_omitted == len(order):
        units = select_first(activations, min(count, MAX_DEAD_UNITS)).units
        return UnitSelection(units, len(order), num_omitted=num_omitted, omitted_state=state)
    return UnitSelection(order[~omitted[order]][:count], len(order), f"largest {kind} first", num_omitted, state)


def importance_kind(tap: Tap, code: Code) -> Importance:
    """Return the measure of the importance of a layer's units."""
    if tap.name == "code" and code.prior_moments is not None:
        return "KL from the prior"
    return "firing rate" if tap.is_argmax else "effect on the decoded image"


@torch.no_grad()
def unit_importance(model: Autoencoder, activations: UnitActivations, code: Code, mean_image: Tensor) -> Tensor:
    """Return how much each unit of a layer matters, [U].

    - Units of a Gaussian code: the KL from the prior, a mean over images in nats. It is 0 for a collapsed unit (Bowman
      et al. 2016, "Generating sentences from a continuous space", arXiv:1511.06349).
    - Codewords: the firing rate.
    - All other units: the squared change of the decoded image (`squared_effect`).
    """
    match importance_kind(activations.tap, code):
        case "KL from the prior":
            return code.kl().mean(0).nan_to_num(0, 0, 0)
        case "firing rate":
            return activations.rate
        case "effect on the decoded image":
            return squared_effect(model, activations.tap, activations.values, mean_image)


def squared_effect(model: Autoencoder, tap: Tap, values: Tensor, mean_image: Tensor) -> Tensor:
    """Return the squared change [U] of the decoded image as each unit rises by a standard deviation from its mean.

    Where the rest of the model is linear, it is the variance of the decoded image that the unit causes,
    var(h_j) |w_j|^2: to set the unit to its mean for all images raises the squared error of a least-squares model by
    this value.
    """
    units = torch.arange(values.shape[1], device=values.device)
    changes = raised_unit_changes(model, tap, values, mean_image, units)
    return torch.cat([change.flatten(1).square().sum(1) for change in changes]).nan_to_num(0, 0, 0)


@torch.no_grad()
def raised_unit_changes(
    model: Autoencoder, tap: Tap, values: Tensor, mean_image: Tensor, units: Tensor
) -> Iterator[Tensor]:
    """Yield the change of the decoded image as each of `units` [U'] rises by a standard deviation from its mean.

    The changes are [at most `UNITS_PER_PASS`, C, H, W]. Means and standard deviations are those of the activations
    `values` [N, U, ...] over images, at each place. The other units of the layer have their means. The layers before it
    see the mean image [C, H, W], which matters only where the decoder reads pool indices of the encoder.
    """
    values = values.nan_to_num(0, 0, 0)
    mean, std = values.mean(0), values.std(0, correction=0)  # [U, ...]
    for block in units.split(UNITS_PER_PASS):
        raised = mean.repeat(len(block) + 1, *[1] * mean.dim())  # the last row stays at the mean
        rows = torch.arange(len(block), device=values.device)
        raised[rows, block] += std[block]
        with hooks_installed(tap.module.register_forward_hook(lambda module, inputs, output, raised=raised: raised)):
            images = model.reconstruct(mean_image.expand(len(raised), *mean_image.shape))
        yield images[:-1] - images[-1:]
