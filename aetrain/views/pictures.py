"""Views of whole images: what the model makes of those it is shown, and what it paints by itself."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.exhibits import Picture, positive
from aetrain.views.render import grid
from aetrain.views.scene import Scene


@final
@dataclass(frozen=True)
class Reconstructions:
    """Clean images, what the encoder saw of them where noise changed it, and the reconstruction, in rows.

    With labels, the images are the first of each class in the classes' order, then the second of each, and so on.
    """

    count: int = 10
    columns: int = 5

    def __post_init__(self) -> None:
        positive(count=self.count, columns=self.columns)

    def __call__(self, scene: Scene) -> Picture:
        chosen = class_by_class(scene.labels, len(scene.x))[: self.count].to(scene.x.device)
        rows = {"clean": scene.x[chosen]}
        if scene.x_in is not scene.x:
            rows["seen"] = scene.x_in[chosen]
        rows["recon."] = scene.reconstruct(scene.x_in[chosen])
        blocks = zip(*(images.split(self.columns) for images in rows.values()), strict=True)
        lines = [line for block in blocks for line in block]
        return Picture(grid(torch.cat(lines), min(self.columns, len(chosen)), list(rows) * (len(lines) // len(rows))))


@final
@dataclass(frozen=True)
class Samples:
    """What the decoder paints of codes drawn from the prior, the same codes at every step."""

    count: int = 64

    def __post_init__(self) -> None:
        positive(count=self.count)

    def __call__(self, scene: Scene) -> Picture | None:
        z = scene.draw(self.count)
        return None if z is None else Picture(grid(scene.paint(z), min(8, self.count)))


def class_by_class(labels: Tensor | None, count: int) -> Tensor:
    """The order [count] that takes turns among the classes: the first image of each, then the second of each."""
    if labels is None:
        return torch.arange(count)
    number = labels.cpu().unique(return_inverse=True)[1]  # [count] from 0
    member = F.one_hot(number)  # [count, classes]
    turn = member.cumsum(0)[torch.arange(count), number]  # [count] from 1
    return (turn * member.shape[1] + number).argsort()
