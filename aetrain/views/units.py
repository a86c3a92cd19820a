"""Views of units: the picture that excites each one most, the stroke it paints, how active it is."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from aetrain.views.exhibits import Album, Histograms, Picture, positive
from aetrain.views.probe import Activity
from aetrain.views.render import DEAD, SATURATED, TILE, WHITE, Colour, enlarged, framed, grid, signed_grey
from aetrain.views.scene import Norm, Scene

Order = Literal["number", "rate", "similarity"]

MANY = 32  # units to a sheet that are drawn at full size: a card shows no more pixels of more
BEYOND = 1e19  # TensorBoard's bins end at 1e20


@final
@dataclass(frozen=True)
class Units:
    """Every layer's units, each as the picture of norm 1 that excites it most, on a sheet a layer.

    Of linear units that read pixels these are their weights; of others a change of the mean image, as large as an
    image's, found by going uphill. It is the best of all that images might have (`norm: images`), or of all whatever
    (`pixels`), which soon is noise to which no image is like (`Scene.exciting`).

    White is ink that excites it, black ink that it does not want, grey what it does not mind. The scale is the same
    for every unit, step and run: white is `limit` / n^(1/4) for n pixels, where n^(-1/4) is half-way (as a ratio)
    between the size of n equal pixels, 1 / sqrt(n), and that of one alone, 1. So strokes show on 784 pixels as on
    kernels of 9. A unit that is dead over the scene's images has a red frame, one that is saturated a blue one.

    Of a layer with more units than `count` the first are shown. In the `order` of their number a unit keeps its place
    for the whole run. By `rate` those that fire at most images come first; by `similarity` those that are active at
    the same images stand together.
    """

    count: int = 64
    limit: float = 0.9
    order: Order = "number"
    norm: Norm = "images"

    def __post_init__(self) -> None:
        positive(count=self.count, limit=self.limit)

    def __call__(self, scene: Scene) -> Album:
        sheets = {}
        for tap in scene.layers:
            activity = scene.activity[tap.name]
            first = torch.arange(min(self.count, activity.values.shape[1]), device=scene.x.device)
            pictures = scene.exciting(tap, self.count, self.norm)
            if pictures is not None:
                units = ordered(activity, first, self.order)
                sheets[tap.name] = sheet(shade(pictures[units], self.limit), marks(activity, units))
        return Album(sheets)


def shade(pictures: Tensor, limit: float) -> Tensor:
    """Pictures of norm 1, [U, C, h, w], to grey, as `Units` says."""
    return signed_grey(pictures, limit / pictures[0].numel() ** 0.25)


def ordered(activity: Activity, units: Tensor, order: Order) -> Tensor:
    """Units in an order of their own.

    By similarity it is that of the second eigenvector of the graph whose edges are how alike two units are, here
    (1 + correlation over images) / 2 (Atkins, Boman & Hendrickson 1998, "A spectral algorithm for seriation"). Units
    that nothing moves come last.
    """
    match order:
        case "rate":
            return units[activity.rate[units].argsort(descending=True, stable=True)]
        case "similarity":
            alive = units[~activity.dead[units]]
            return torch.cat([alive[seriated(activity.per_image[:, alive])], units[activity.dead[units]]])
        case _:
            return units


def seriated(columns: Tensor) -> Tensor:
    """The order [U] in which columns [N, U] that resemble each other stand together."""
    if columns.shape[1] < 3:
        return torch.arange(columns.shape[1], device=columns.device)
    columns = columns.to(torch.float64).nan_to_num(0, 0, 0)
    columns = columns - columns.mean(0)
    columns = columns / columns.norm(dim=0).clamp_min(1e-12)
    alike = (1 + columns.t() @ columns) / 2  # [U, U]
    fiedler = torch.linalg.eigh(alike.sum(1).diag() - alike).eigenvectors[:, 1]
    return (fiedler * fiedler[fiedler.abs().argmax()].sign()).argsort(stable=True)  # it has no sign of its own


def marks(activity: Activity, units: Tensor) -> list[Colour | None]:
    """The colours of the frames of units."""
    states = zip(activity.dead[units].tolist(), activity.saturated[units].tolist(), strict=True)
    return [DEAD if dead else SATURATED if saturated else None for dead, saturated in states]


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
    """How the activations of every layer are distributed over the scene's images.

    Of a layer with more numbers than `count`, that many are drawn, the same ones at every step.
    """

    count: int = 20_000

    def __post_init__(self) -> None:
        positive(count=self.count)

    def __call__(self, scene: Scene) -> Histograms:
        some = {name: self._some(activity.values, scene) for name, activity in scene.activity.items()}
        return Histograms({name: values for name, values in some.items() if len(values)})

    def _some(self, activations: Tensor, scene: Scene) -> Tensor:
        flat = activations.flatten()
        if len(flat) > self.count:
            flat = flat[torch.randint(len(flat), (self.count,), generator=scene.generator(), device=flat.device)]
        return flat[flat.isfinite()].clamp(-BEYOND, BEYOND)


def sheet(units: Tensor, frames: list[Colour | None] | None = None) -> Picture:
    """Units [N, C, h, w] in rows of eight, or in a square where they are more than 64."""
    columns = min(len(units), max(8, math.ceil(math.sqrt(len(units)))))
    width = TILE if len(units) <= MANY else TILE // 2
    tile = enlarged(units[:1], width).shape
    return Picture(framed(grid(units, columns, gaps=WHITE, width=width), frames or [], (tile[2], tile[3]), columns))
