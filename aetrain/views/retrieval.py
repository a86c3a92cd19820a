"""A view of the code as what finds like images: some images, and those nearest to them."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.evaluation.spaces import nearest
from aetrain.views.exhibits import Picture, positive
from aetrain.views.pictures import class_by_class
from aetrain.views.render import grid
from aetrain.views.scene import Scene


@final
@dataclass(frozen=True)
class Neighbours:
    """Images, the first in its row, and those nearest to them among all that are shown: by pixels, below by the code.

    With labels, the images asked about are the first of each class in the classes' order.
    """

    count: int = 5
    columns: int = 8

    def __post_init__(self) -> None:
        positive(count=self.count, columns=self.columns)

    def __call__(self, scene: Scene) -> Picture:
        asked = class_by_class(scene.labels, len(scene.x))[: self.count].to(scene.x.device)
        found = [others(rows, asked, self.columns) for rows in (scene.x.flatten(1), scene.z.nan_to_num(0, 0, 0))]
        lines = torch.stack([torch.cat([asked[:, None], near], dim=1) for near in found], dim=1)  # [count, 2, columns]
        captions = ["pixels", "code"] * len(asked)
        return Picture(grid(scene.x[lines.flatten()], lines.shape[2], captions))


def others(rows: Tensor, asked: Tensor, count: int) -> Tensor:
    """Indices [A, count] of the rows [N, D] nearest to those at `asked` [A], themselves left out; fewer of few rows."""
    count = min(count, len(rows) - 1)
    near = nearest(rows[asked], rows, count + 1)  # [A, count + 1] with itself, or an equal in its place
    own = near == asked[:, None]
    own[:, -1] |= ~own.any(1)  # of many equals, the last one goes
    return near[~own].view(len(asked), count)
