"""How the units of an encoder live: those that no image moves, those that are stuck at an end of their range.

A unit is a number of a dense layer, or a map of a convolution, which lives where any of its places does.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward

STILL = 1e-3  # standard deviation over the images, as a share of the layer's largest, at which a unit is dead
ENDS: dict[type[nn.Module], tuple[float, float]] = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}
NEAR = 0.01  # of the range: nearer to an end a unit passes on a twenty-fifth of the gradient that it passes at most
NEARLY_ALL = 0.95  # of the images


@dataclass
class Vitals:
    """Adds up what `look` sees, a batch at a time."""

    model: Autoencoder
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of each hidden layer, [units] each
    _stuck: dict[str, Tensor] = field(default_factory=dict)  # images by unit of each bounded layer, [units]
    _count: int = 0

    def look(self, out: Forward) -> None:
        """Take in one pass."""
        self._count += len(out.x)
        flat = [h.flatten(2).mean(2) if h.dim() > 2 else h for h in out.hidden]  # [B, units]
        moments = [(h.double().sum(0), h.double().square().sum(0)) for h in flat]
        before = self._moments or [(torch.zeros_like(a), torch.zeros_like(b)) for a, b in moments]
        self._moments = [(a + b, c + d) for (a, c), (b, d) in zip(before, moments, strict=True)]
        for name, (h, (low, high)) in self._bounded(out).items():
            near = ((h - low).abs() < NEAR * (high - low)) | ((h - high).abs() < NEAR * (high - low))
            stuck = (near.flatten(2).all(2) if h.dim() > 2 else near).sum(0)  # [units]
            self._stuck[name] = self._stuck[name] + stuck if name in self._stuck else stuck

    def figures(self) -> dict[str, float]:
        """`dead_hidden` where there are hidden layers, `saturated` where some units have ends."""
        found = {}
        if self._moments:
            n = self._count
            variances = [(square / n - (total / n).square()).clamp_min(0) for total, square in self._moments]
            dead = torch.cat([v <= STILL**2 * v.max() for v in variances])
            found["dead_hidden"] = float(dead.double().mean())
        if self._stuck:
            stuck = torch.cat([*self._stuck.values()])
            found["saturated"] = float((stuck >= NEARLY_ALL * self._count).double().mean())
        return found

    def _bounded(self, out: Forward) -> dict[str, tuple[Tensor, tuple[float, float]]]:
        """The layers whose activation has ends, by name, with what they did."""
        activations = getattr(self.model.encoder, "activations", None) or []
        layers = {str(i): pair for i, pair in enumerate(zip(activations, out.hidden, strict=False))}
        layers["code"] = (next(iter(self.model.finish)), out.code.z)
        return {name: (h, ENDS[type(a)]) for name, (a, h) in layers.items() if type(a) in ENDS}
