"""Views of the code as a space: where the images lie in it, and what its places are painted as."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.exhibits import Picture, positive
from aetrain.views.render import TILE, grid
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
        if z.shape[1] == 1:
            return Picture(scatter(torch.cat([z, lines(z, labels)], dim=1), labels, False, scene.named))
        middle, axes = axes_of(scene, self.count)
        return Picture(scatter((z.to(torch.float64) - middle) @ axes, labels, named=scene.named))


@final
@dataclass(frozen=True)
class CodeGrid:
    """What the decoder paints of a square of codes, the places of the plane that `CodeMap` shows.

    `side` codes each way. Of two units it goes from -`limit` to `limit`: the first grows to the right, the second
    upwards, the same at every step. Of more it goes from the mean code to `limit` standard deviations along each
    axis of the plane. Codes of which the family could make none so are taken to the nearest that it could: in the
    range of the images' codes, as sparse as they are, from the codebook. None of a code with one unit.
    """

    side: int = 20
    limit: float = 2.0

    def __post_init__(self) -> None:
        positive(side=self.side, limit=self.limit)

    def __call__(self, scene: Scene) -> Picture | None:
        match scene.z.shape[1]:
            case 1:
                return None
            case 2:
                z = scene.model.finish(self.codes().to(scene.z))
            case _:
                z = self.of_plane(scene)
        return Picture(grid(scene.paint(z), self.side, width=TILE // 2))

    def of_plane(self, scene: Scene) -> Tensor:
        """The codes [side * side, D] at the places of the plane."""
        middle, axes = axes_of(scene)
        spread = ((scene.z.to(torch.float64).nan_to_num(0, 0, 0) - middle) @ axes).std(0, correction=0)  # [2]
        return scene.possible(middle + (self.codes().to(axes) * spread) @ axes.t())

    def codes(self) -> Tensor:
        """The places [side * side, 2], row by row from the top left."""
        steps = torch.linspace(-self.limit, self.limit, self.side)
        return torch.stack([steps.repeat(self.side), steps.flip(0).repeat_interleave(self.side)], dim=1)


def axes_of(scene: Scene, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The plane in which codes are shown: a code [D] in it, and the directions [D, 2] of its axes, of length 1.

    Two units are their own plane, about 0; more have that of their first two principal components, turned as `CodeMap`
    says.
    """
    z = scene.z[:count].to(torch.float64).nan_to_num(0, 0, 0)
    if z.shape[1] == 2:
        return torch.zeros_like(z[0]), torch.eye(2, dtype=z.dtype, device=z.device)
    axes = directions(z)
    coarse = F.adaptive_avg_pool2d(scene.x[:count], 8).flatten(1)  # fewer pixels, the same plane
    return z.mean(0), axes @ turn((z - z.mean(0)) @ axes, plane(coarse))


def directions(rows: Tensor) -> Tensor:
    """The two directions [P, 2], of length 1, in which the rows [N, P] vary most, the second of them first.

    A direction has no sign of its own, so its largest entry is made positive.
    """
    rows = rows.to(torch.float64)  # in which the squares of a diverged code are still numbers
    centred = rows - rows.mean(0)
    found = torch.linalg.eigh(centred.t() @ centred).eigenvectors[:, -2:]
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))  # [1, 2]
    return found * largest.sign()


def plane(rows: Tensor) -> Tensor:
    """Coordinates [N, 2] of the rows [N, P] along the two directions in which they vary most."""
    return (rows.to(torch.float64) - rows.to(torch.float64).mean(0)) @ directions(rows)


def turn(points: Tensor, reference: Tensor) -> Tensor:
    """The turn (and mirroring) [2, 2] that brings points [N, 2] as close as can be to `reference` [N, 2].

    Orthogonal Procrustes (Schönemann 1966): with U S V^T the SVD of points^T reference, it is U V^T.
    """
    u, _, v = torch.linalg.svd(points.t() @ reference)
    return u @ v


def lines(z: Tensor, labels: Tensor | None) -> Tensor:
    """Heights [N, 1] that spread points over as much as `z` spans, each class on its own line, the first on top."""
    spread = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(SEED)).to(z.device) - 0.5
    line = torch.zeros_like(spread) if labels is None else labels.unique(return_inverse=True)[1][:, None]
    return (0.7 * spread - line) * float(z.max() - z.min()) / (float(line.max()) + 1)
