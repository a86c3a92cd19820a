"""The units that a picture shows: their order, their importance, and the dead units that it leaves out.

Shapes: N images, U units of a layer, C channels, H height, W width, `...` places of a unit (the pixels of a feature
map, the steps of a recurrent unit).
"""

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


@dataclass(frozen=True, eq=False)
class UnitSelection:
    """Units of a layer in the order of a picture."""

    units: Tensor  # [U'] numbers from 0
    num_units: int  # U
    num_omitted: int = 0  # units that are left out because of their state
    omitted_state: State = "dead"  # inactive: units of a Gaussian code that carry no information
    by_importance: bool = False  # False: the first units of the layer, in the order of their numbers

    def reorder(self, units: Tensor) -> "UnitSelection":
        """Return the selection with the same units in another order."""
        return replace(self, units=units)

    def describe(self) -> str:
        """Return a line such as `64 of 512 units, the most important first; not drawn: 12 dead`."""
        count, order = len(self.units), "the most important first" if self.by_importance else "by number"
        text = f"{count} units" if count == self.num_units else f"{count} of {self.num_units} units"
        if self.num_omitted == self.num_units:
            return f"{text}, by number; all {self.num_units} are {self.omitted_state}"
        omitted = f"; not drawn: {self.num_omitted} {self.omitted_state}" if self.num_omitted else ""
        return f"{text}, {order}{omitted}"


def select_first(activations: UnitActivations, count: int) -> UnitSelection:
    """Return the first `count` units of a layer, dead or not, so that a unit keeps its position at all epochs."""
    num_units = activations.values.shape[1]
    return UnitSelection(torch.arange(min(count, num_units), device=activations.values.device), num_units)


def select_by_importance(activations: UnitActivations, code: Code, importance: Tensor, count: int) -> UnitSelection:
    """Return the `count` live units of largest `importance` [U]; the first few units of a layer without live units.

    Live are the units that are not dead; of a Gaussian code, those that are also active.
    """
    omitted, state = activations.dead, "dead"
    if activations.tap.name == "code" and code.prior_moments is not None:
        omitted, state = omitted | (code.mean_z.var(0, correction=0) <= ACTIVE_UNIT_VARIANCE), "inactive"
    order = importance.argsort(descending=True, stable=True)
    live = order[~omitted[order]]
    units = live[:count] if len(live) else torch.arange(len(order), device=order.device)[: min(count, MAX_DEAD_UNITS)]
    return UnitSelection(units, len(order), int(omitted.sum()), state, by_importance=True)


@torch.no_grad()
def unit_importance(model: Autoencoder, activations: UnitActivations, code: Code, mean_image: Tensor) -> Tensor:
    """Return how much each unit of a layer matters, [U].

    - Units of a Gaussian code: the KL from the prior, a mean over images in nats. It is 0 for a collapsed unit (Bowman
      et al. 2016, "Generating sentences from a continuous space", arXiv:1511.06349).
    - Codewords: the firing rate.
    - All other units: the squared change of the decoded image (`squared_effect`).
    """
    if activations.tap.name == "code" and code.prior_moments is not None:
        return code.kl().mean(0)
    if activations.tap.is_argmax:
        return activations.rate
    return squared_effect(model, activations.tap, activations.values, mean_image)


def squared_effect(model: Autoencoder, tap: Tap, values: Tensor, mean_image: Tensor) -> Tensor:
    """Return the squared change [U] of the decoded image as each unit rises by a standard deviation from its mean.

    Means and standard deviations are those of the activations `values` [N, U, ...] over images, at each place. The
    other units of the layer have their means. Where the rest of the model is linear, it is the variance of the decoded
    image that the unit causes, var(h_j) |w_j|^2: to set the unit to its mean for all images raises the squared error of
    a least-squares model by this value. The layers before it see the mean image [C, H, W], which matters only where the
    decoder reads pool indices of the encoder.
    """
    values = values.nan_to_num(0, 0, 0)
    mean, std = values.mean(0), values.std(0, correction=0)  # [U, ...]
    results = []
    for units in torch.arange(len(mean), device=values.device).split(UNITS_PER_PASS):
        raised = mean.repeat(len(units) + 1, *[1] * mean.dim())  # the last row stays at the mean
        rows = torch.arange(len(units), device=values.device)
        raised[rows, units] += std[units]
        with hooks_installed(tap.module.register_forward_hook(lambda module, inputs, output, raised=raised: raised)):
            images = model.reconstruct(mean_image.expand(len(raised), *mean_image.shape))
        results.append((images[:-1] - images[-1:]).flatten(1).square().sum(1))
    return torch.cat(results).nan_to_num(0, 0, 0)
