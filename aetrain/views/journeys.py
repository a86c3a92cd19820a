"""Views of ways through the code: from one image to another, and along each unit."""

from dataclasses import dataclass
from typing import final

import torch

from aetrain.model.records import GaussianCode
from aetrain.objective.penalties import gaussian_kl
from aetrain.views.exhibits import Picture, positive
from aetrain.views.pictures import class_by_class
from aetrain.views.render import SMALL, grid
from aetrain.views.scene import Scene


@final
@dataclass(frozen=True)
class Interpolations:
    """From one test image to another: what lies on the straight line between their codes, in `steps` pictures.

    The images stand at the ends, their reconstructions beside them. A line starts at the first image of a class (or
    the first images, where there are no classes) and ends at the first of the next class but one.
    """

    count: int = 6
    steps: int = 7

    def __post_init__(self) -> None:
        positive(count=self.count, steps=self.steps)

    def __call__(self, scene: Scene) -> Picture:
        order = class_by_class(scene.labels, len(scene.x)).to(scene.x.device)
        number = torch.arange(min(self.count, len(order)), device=order.device)
        begin, end = order[number], order[(number + 2) % len(order)]
        way = torch.linspace(0, 1, self.steps, device=scene.z.device)[:, None]
        z = torch.cat([scene.z[a] + way * (scene.z[b] - scene.z[a]) for a, b in zip(begin, end, strict=True)])
        painted = scene.paint(scene.possible(z)).unflatten(0, (len(number), self.steps))
        line = torch.cat([scene.x[begin][:, None], painted, scene.x[end][:, None]], dim=1)
        return Picture(grid(line.flatten(0, 1), self.steps + 2))


@final
@dataclass(frozen=True)
class Traversals:
    """A line for each of the `count` units that say most: what is painted as it alone goes from low to high.

    Units are ordered, and captioned, by their KL from the prior in nats where the code is random, a mean over images
    (so a unit at 0 has collapsed: Bowman et al. 2016), else by their variance over images. The others stay where the
    first test image has them. The unit goes as far as images do: from `limit` standard deviations below its mean to as
    many above it; where the code is random, of the prior.
    """

    count: int = 10
    steps: int = 9
    limit: float = 2.5

    def __post_init__(self) -> None:
        positive(count=self.count, steps=self.steps, limit=self.limit)

    def __call__(self, scene: Scene) -> Picture:
        code, z = scene.out.code, scene.z.nan_to_num(0, 0, 0)
        mean, spread = z.mean(0), z.std(0, correction=0)
        says, unit = z.var(0, correction=0), ""
        first = class_by_class(scene.labels, len(z))[0]
        if isinstance(code, GaussianCode):  # its units before the code's activation, which the prior is of, too
            says, unit = gaussian_kl(code).mean(0), " nats"
            mean, spread, z = torch.zeros_like(mean), torch.ones_like(spread), code.mean
        chosen = says.argsort(descending=True, stable=True)[: self.count]
        way = torch.linspace(-self.limit, self.limit, self.steps, device=z.device)
        moved = z[first].repeat(len(chosen), self.steps, 1)  # [units, steps, D]
        for line, j in zip(moved, chosen.tolist(), strict=True):
            line[:, j] = mean[j] + way * spread[j]
        codes = moved.flatten(0, 1)
        codes = scene.model.finish(codes) if unit else scene.possible(codes)
        captions = [f"{j + 1}: {short(float(says[j]))}{unit}" for j in chosen.tolist()]
        return Picture(grid(scene.paint(codes), self.steps, captions, width=SMALL))


def short(value: float) -> str:
    """A number in three figures, never in more than six letters."""
    return f"{value:.2g}" if abs(value) < 0.1 or abs(value) >= 1000 else f"{value:.3g}"
