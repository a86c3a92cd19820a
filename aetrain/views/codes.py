"""Views of the code as a space: where the images lie in it, and what its places are painted as."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.exhibits import Picture, positive
from aetrain.views.render import grid
from aetrain.views.scatter import scatter
from aetrain.views.scene import SEED, Scene


@final
@dataclass(frozen=True)
class CodeMap:
    """The images' codes as points in a plane, coloured by class.

    Two units are their own plane. Of more, it is the plane of the first two principal components, turned (and
    mirrored, if need be) to lie as closely as it can on that of the pixels themselves: components have no sign, and
    two of like variance no direction either, so that they would jump from step to step. One unit is drawn across,
    with the classes on lines of their own.
    """

    count: int = 1000

    def __post_init__(self) -> None:
        positive(count=self.count)

    def __call__(self, scene: Scene) -> Picture:
        z = scene.z[: self.count].to(torch.float32).nan_to_num(0, 0, 0)
        labels = None if scene.labels is None else scene.labels[: self.count]
        match z.shape[1]:
            case 1:
                return Picture(scatter(torch.cat([z, lines(z, labels)], dim=1), labels, heights=False))
            case 2:
                return Picture(scatter(z, labels))
            case _:
                coarse = F.adaptive_avg_pool2d(scene.x[: self.count], 8).flatten(1)  # fewer pixels, the same plane
                return Picture(scatter(aligned(plane(z), plane(coarse)), labels))


@final
@dataclass(frozen=True)
class CodeGrid:
    """What the decoder paints of a square of codes around 0, of codes with two units; None of others.

    `side` codes each way, from -`limit` to `limit`: the first unit grows to the right, the second upwards, the same at
    every step. Codes with an activation or a sparsifier pass through it, as draws from the prior do.
    """

    side: int = 20
    limit: float = 2.0

    def __post_init__(self) -> None:
        positive(side=self.side, limit=self.limit)

    def __call__(self, scene: Scene) -> Picture | None:
        if scene.z.shape[1] != 2:
            return None
        return Picture(grid(scene.paint(scene.model.finish(self.codes().to(scene.z))), self.side))

    def codes(self) -> Tensor:
        """The places [side * side, 2], row by row from the top left."""
        steps = torch.linspace(-self.limit, self.limit, self.side)
        return torch.stack([steps.repeat(self.side), steps.flip(0).repeat_interleave(self.side)], dim=1)


def plane(rows: Tensor) -> Tensor:
    """Coordinates [N, 2] of the rows [N, P] along the two directions in which they vary most.

    A direction has no sign of its own, so its largest entry is made positive.
    """
    rows = rows.to(torch.float64)  # in which the squares of a diverged code are still numbers
    centred = rows - rows.mean(0)
    directions = torch.linalg.eigh(centred.t() @ centred).eigenvectors[:, -2:]  # [P, 2]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))  # [1, 2]
    return centred @ (directions * largest.sign())


def aligned(points: Tensor, reference: Tensor) -> Tensor:
    """`points` [N, 2] turned and mirrored about their mean to be as close as can be to `reference` [N, 2].

    Orthogonal Procrustes (Schönemann 1966): with U S V^T the SVD of points^T reference, the turn is U V^T.
    """
    u, _, v = torch.linalg.svd(points.t() @ reference)
    return points @ (u @ v)


def lines(z: Tensor, labels: Tensor | None) -> Tensor:
    """Heights [N, 1] that spread points over as much as `z` spans, each class on its own line, the first on top."""
    spread = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(SEED)).to(z.device) - 0.5
    line = torch.zeros_like(spread) if labels is None else labels.unique(return_inverse=True)[1][:, None]
    return (0.7 * spread - line) * float(z.max() - z.min()) / (float(line.max()) + 1)
