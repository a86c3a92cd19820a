"""How units live: those that no image moves, those that are stuck at an end of their range. Views and figures agree.

Shapes: N images, U units of a layer, then the places where a unit has many numbers (of maps, of steps).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward

STILL = 1e-3  # of what the layer's liveliest unit moves: no more, and a unit is dead
NOTHING = 1e-6  # of a layer of which no unit moves
NEAR = 0.01  # of the range: nearer to an end a unit passes on a twenty-fifth of the gradient that it passes at most
NEARLY_ALL = 0.95  # of the activations


def dead(spread: Tensor) -> Tensor:
    """Which units [U] no image moves, by the standard deviation over images of each place, [U, ...]."""
    most = spread.flatten(1).amax(1) if spread.dim() > 1 else spread  # a unit lives where any of its places does
    return most <= max(STILL * float(most.max()), NOTHING)


def at_an_end(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Which share of its places [N, U] each unit leaves so near to an end of its range that its input hardly counts."""
    low, high = bounds
    margin = NEAR * (high - low)
    near = ((values < low + margin) | (values > high - margin)).to(torch.float32)
    return near.flatten(2).mean(2) if near.dim() > 2 else near


@dataclass
class Vitals:
    """Adds up what `look` sees, a batch at a time."""

    model: Autoencoder
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of each hidden layer, [U, ...] each
    _ends: dict[str, Tensor] = field(default_factory=dict)  # sums of `at_an_end` by bounded layer, [U]
    _count: int = 0

    def look(self, out: Forward) -> None:
        """Take in one pass."""
        self._count += len(out.x)
        moments = [(h.double().sum(0), h.double().square().sum(0)) for h in out.hidden]
        before = self._moments or [(torch.zeros_like(a), torch.zeros_like(b)) for a, b in moments]
        self._moments = [(a + b, c + d) for (a, c), (b, d) in zip(before, moments, strict=True)]
        (code,) = (tap for tap in self.model.layers() if tap.name == "code")
        layers = zip([*self.model.encoder.taps(), code], [*out.hidden, out.code.z], strict=True)
        for tap, values in layers:
            if tap.bounds is not None:
                self._ends[tap.name] = self._ends.get(tap.name, 0.0) + at_an_end(values, tap.bounds).sum(0)

    def figures(self) -> dict[str, float]:
        """`dead_hidden` where there are hidden layers, `saturated` where some units have ends."""
        found, n = {}, self._count
        if self._moments:
            variances = [(square / n - (total / n).square()).clamp_min(0) for total, square in self._moments]
            found["dead_hidden"] = float(torch.cat([dead(v.sqrt()) for v in variances]).double().mean())
        if self._ends:
            found["saturated"] = float((torch.cat([*self._ends.values()]) >= NEARLY_ALL * n).double().mean())
        return found
