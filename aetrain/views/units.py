"""Views of units: the pattern each one answers to, the stroke it paints, how active it is."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.views.exhibits import Histograms, Picture, positive
from aetrain.views.render import WHITE, grid, signed_grey
from aetrain.views.scene import Scene

BEYOND = 1e19  # TensorBoard's bins end at 1e20


@final
@dataclass(frozen=True)
class Units:
    """The first layer's units, each as the image of norm 1 that excites it most: its weights over their norm.

    White is a positive weight, black a negative one, grey none. The scale is the same for every unit, step and run:
    white is `limit` / n^(1/4) for n weights, where n^(-1/4) is half-way (as a ratio) between the size of n equal
    weights, 1 / sqrt(n), and that of one weight alone, 1. So strokes show on 784 pixels as on kernels of 9.
    (Ng 2011, CS294A lecture notes "Sparse autoencoder", section 4.)
    """

    count: int = 64
    limit: float = 0.9

    def __post_init__(self) -> None:
        positive(count=self.count, limit=self.limit)

    def __call__(self, scene: Scene) -> Picture:
        weights = scene.weights[: self.count]  # [units, C, h, w]
        norms = weights.flatten(1).norm(dim=1).clamp_min(1e-12)
        white = self.limit / weights[0].numel() ** 0.25
        return sheet(signed_grey(weights / norms[:, None, None, None], white))


@final
@dataclass(frozen=True)
class DecoderUnits:
    """The code's units, each as the change it makes in the picture: paint(m + 2 s_j e_j) - paint(m), j = 1..D.

    m is the mean code of the scene's images and s_j the standard deviation of unit j, so that a unit is shown at the
    strength it really has. What all units share (the mean picture) drops out, and a unit that is dead, or that the
    decoder ignores, is plain grey. White is ink that the unit adds, black ink that it takes away; the scale is the
    same at every step and in every run: white is a change by `limit` of full ink, or more.
    """

    count: int = 64
    limit: float = 0.4

    def __post_init__(self) -> None:
        positive(count=self.count, limit=self.limit)

    def __call__(self, scene: Scene) -> Picture:
        mean, std = scene.z.mean(0), scene.z.std(0, correction=0)  # [D]
        moved = mean + 2 * std.diag()[: self.count]  # [units, D]
        change = scene.paint(moved) - scene.paint(mean[None])  # [units, C, H, W] in [-1, 1]
        return sheet(signed_grey(change, self.limit))


@final
@dataclass(frozen=True)
class Activations:
    """How the activations of every hidden layer and of the code are distributed over the scene's images.

    Of a layer with more numbers than `count`, that many are drawn, the same ones at every step.
    """

    count: int = 20_000

    def __post_init__(self) -> None:
        positive(count=self.count)

    def __call__(self, scene: Scene) -> Histograms:
        layers = {f"hidden{level}": hidden for level, hidden in enumerate(scene.out.hidden, start=1)}
        some = {name: self._some(h, scene) for name, h in (layers | {"code": scene.z}).items()}
        return Histograms({name: values for name, values in some.items() if len(values)})

    def _some(self, activations: Tensor, scene: Scene) -> Tensor:
        flat = activations.flatten()
        if len(flat) > self.count:
            flat = flat[torch.randint(len(flat), (self.count,), generator=scene.generator(), device=flat.device)]
        return flat[flat.isfinite()].clamp(-BEYOND, BEYOND)


def sheet(units: Tensor) -> Picture:
    """Units [N, C, h, w] in rows of eight, or in a square where they are more than 64."""
    return Picture(grid(units, min(len(units), max(8, math.ceil(math.sqrt(len(units))))), gaps=WHITE))
