"""Dead and saturated units. The metrics and the pictures of units use the same definitions.

Shapes: N images, U units of a layer, `...` positions of a unit that has several activations per image (the pixels of a
feature map, the steps of a recurrent unit).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.utils.devices import to_float64

DEAD_RELATIVE_STD = 1e-3  # a unit is dead up to this share of the largest standard deviation in its layer
DEAD_ABSOLUTE_STD = 1e-6  # and up to this standard deviation, also in a layer in which all units are dead
BOUND_MARGIN = 0.01  # share of the range; a sigmoid this near to a bound passes 4 % of its largest gradient
SATURATED_SHARE = 0.95  # of a unit's activations near a bound: from here on the unit is saturated

# The description of each metric of `UnitStats`.
UNIT_METRICS: Mapping[str, str] = {
    "dead_hidden": (
        "fraction of the encoder's hidden units that are constant over examples "
        "(standard deviation at most 0.001 of the largest in the layer)"
    ),
    "saturated": "fraction of sigmoid and tanh units within 1 % of a bound on 95 % of their activations",
}


def dead_units(std: Tensor) -> Tensor:
    """Return which units are dead, bool [U], from the standard deviation over images of each position, [U, ...].

    A unit with several positions is alive where any of them is.
    """
    largest = std.flatten(1).amax(1) if std.dim() > 1 else std
    return largest <= max(DEAD_RELATIVE_STD * float(largest.max()), DEAD_ABSOLUTE_STD)


def share_near_bounds(activations: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the share of positions, [N, U], at which an activation [N, U, ...] is within 1 % of a bound.

    `bounds` are the lower and the upper bound of the activation function.
    """
    low, high = bounds
    margin = BOUND_MARGIN * (high - low)
    near = ((activations < low + margin) | (activations > high - margin)).to(torch.float32)
    return near.flatten(2).mean(2) if near.dim() > 2 else near


@dataclass
class UnitStats:
    """Accumulate statistics of units over batches: call `update` for each batch, then `metrics`."""

    model: Autoencoder
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # sums of h and h^2 by hidden layer, [U, ...]
    _near_bounds: dict[str, Tensor] = field(default_factory=dict)  # sums of `share_near_bounds` by bounded layer, [U]
    _count: int = 0

    def update(self, out: Forward) -> None:
        """Add the activations of one batch."""
        self._count += len(out.x)
        moments = [(to_float64(h).sum(0), to_float64(h).square().sum(0)) for h in out.hidden]
        before = self._moments or [(torch.zeros_like(a), torch.zeros_like(b)) for a, b in moments]
        self._moments = [(a + b, c + d) for (a, c), (b, d) in zip(before, moments, strict=True)]
        (code,) = (tap for tap in self.model.unit_layers() if tap.name == "code")
        taps = self.model.encoder.taps()  # of all hidden layers, or of none
        hidden = out.hidden if taps else ()
        layers = zip([*taps, code], [*hidden, out.code.z], strict=True)
        for tap, activations in layers:
            if tap.bounds is not None:
                shares = share_near_bounds(activations, tap.bounds).sum(0)
                self._near_bounds[tap.name] = self._near_bounds.get(tap.name, 0.0) + shares

    def metrics(self) -> dict[str, float]:
        """Return `dead_hidden` if there are hidden layers and `saturated` if some units are bounded, both 0 to 1."""
        metrics, count = {}, self._count
        if self._moments:
            variances = [(square / count - (total / count).square()).clamp_min(0) for total, square in self._moments]
            dead = torch.cat([dead_units(variance.sqrt()) for variance in variances])
            metrics["dead_hidden"] = float(to_float64(dead).mean())
        if self._near_bounds:
            saturated = torch.cat([*self._near_bounds.values()]) >= SATURATED_SHARE * count
            metrics["saturated"] = float(to_float64(saturated).mean())
        return metrics
