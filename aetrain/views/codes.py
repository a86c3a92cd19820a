"""Views of the code space: the positions of the images' codes, and the images that the model decodes from a grid."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.model.records import Kind
from aetrain.utils.devices import to_float64
from aetrain.views.annotations import Annotations, PointCloud, pixel_key
from aetrain.views.context import SEED, ViewContext
from aetrain.views.render import TILE_WIDTH
from aetrain.views.scatter import scatter
from aetrain.views.view import Picture, check_positive, grid_picture

COARSE_SIDE = 8  # pixels of the shrunk images whose principal plane orients the map
PLANE_NOTE = (
    "The principal plane is that of the first two principal components of the codes, rotated to match the same plane "
    "of the pixels."
)
LINEAR_PLANE_NOTE = (
    "The principal plane is that of the first two principal components of the codes, rotated to match the plane beside "
    "it."
)
JITTER = 0.7  # share of the distance between two classes' lines over which the points of a class spread


@final
@dataclass(frozen=True)
class CodeMap:
    """A scatter plot of the codes of the first `count` images, coloured by class.

    A code of two units is shown as it is. A code of more units is projected on its first two principal components, then
    rotated (and mirrored) to match the principal plane of the pixels as closely as possible. Components have no sign,
    and two components of similar variance have no stable direction, so an unrotated map would jump from step to step. A
    code of one unit is drawn on the horizontal axis, with a line for each class.

    Of examples that are no images, the plane of the linear code of the same size (PCA, or LSA of counts) takes the
    place of that of the pixels, and is drawn beside the codes.
    """

    description: ClassVar[str] = (
        "The codes of images as points, coloured by class; of a code of more than two units, two principal components."
    )
    data_kinds: ClassVar[tuple[Kind, ...]] = ("image", "vector", "counts", "ratings")

    count: int = 1000

    def __post_init__(self) -> None:
        check_positive(count=self.count)

    def __call__(self, context: ViewContext) -> Picture:
        z = context.z[: self.count].to(torch.float32).nan_to_num(0, 0, 0)
        labels = None if context.labels is None else context.labels[: self.count]
        classes = [] if labels is None else [*map(context.class_name, labels.unique().tolist())]
        if z.shape[1] == 1:
            points = torch.cat([z, spread_by_class(z, labels)], dim=1)
        else:
            origin, axes = code_plane(context, self.count)
            points = (to_float64(z) - origin) @ axes
        cloud = PointCloud(points, labels, classes, has_y_ticks=z.shape[1] > 1)
        if context.model.kind != "image":
            cloud = replace(cloud, title="codes", beside=linear_cloud(context, self.count, labels, classes))
        return Picture(draw_clouds(cloud, context), self._annotations(context, len(z), z.shape[1]), cloud)

    def _annotations(self, context: ViewContext, num_codes: int, num_units: int) -> Annotations:
        note = "A point is the code of an image. The outermost points are drawn on the frame."
        x_axis, y_axis = axis_names(num_units)
        match num_units:
            case 1:
                x_axis, y_axis, note = "unit 1", "", "The height has no meaning: it separates points and classes."
            case units if units > 2:
                note = f"{note} {PLANE_NOTE if context.model.kind == 'image' else LINEAR_PLANE_NOTE}"
        return Annotations(f"Codes of {num_codes:,} {context.split} images", x_axis, y_axis, note=note)


@final
@dataclass(frozen=True)
class CodeGrid:
    """The images that the model decodes from a square grid of codes in the plane of `CodeMap`.

    The grid has `side` x `side` codes. For two units it covers -`limit` to `limit`, the first unit to the right and the
    second upwards, the same at every step. For more units it covers `limit` standard deviations around the mean code on
    each axis of the plane, and every code is projected on the codes that the model could produce: in the range of the
    images' codes, as sparse as they are, from the codebook. None for a code of one unit.
    """

    description: ClassVar[str] = (
        "The images that the model decodes from a regular grid of codes in the plane of the view `code`."
    )

    side: int = 20
    limit: float = 2.0

    def __post_init__(self) -> None:
        check_positive(side=self.side, limit=self.limit)

    def __call__(self, context: ViewContext) -> Picture | None:
        num_units = context.z.shape[1]
        (x_axis, y_axis), note = axis_names(num_units), ""
        match num_units:
            case 1:
                return None
            case 2:
                coordinates = self.coordinates().to(context.z)
                z = context.model.code_transform(coordinates)
                if not torch.equal(z, coordinates):
                    note = "The values of the units are those before their activation function."
            case _:
                z = self.codes_in_plane(context)
                x_axis, y_axis = f"{x_axis}, standard deviations", f"{y_axis}, standard deviations"
                note = f"The middle of the grid is the mean code. {PLANE_NOTE}"
        values = [f"{value:.2g}" for value in torch.linspace(-self.limit, self.limit, self.side).tolist()]
        annotations = Annotations(
            "Images decoded from a grid of codes",
            x_axis,
            y_axis,
            columns=values,
            rows=values[::-1],
            note=note,
            **pixel_key(context.x),
        )
        return grid_picture(context.decode_pixels(z), annotations, self.side, width=TILE_WIDTH // 2)

    def codes_in_plane(self, context: ViewContext) -> Tensor:
        """Return the codes [side * side, D] of the grid in the plane of `CodeMap`."""
        origin, axes = code_plane(context)
        std = ((to_float64(context.z).nan_to_num(0, 0, 0) - origin) @ axes).std(0, correction=0)  # [2]
        return context.project_to_data_range(origin + (self.coordinates().to(axes) * std) @ axes.t())

    def coordinates(self) -> Tensor:
        """Return the coordinates [side * side, 2] of the grid, row by row from the top left."""
        steps = torch.linspace(-self.limit, self.limit, self.side)
        return torch.stack([steps.repeat(self.side), steps.flip(0).repeat_interleave(self.side)], dim=1)


def axis_names(num_units: int) -> tuple[str, str]:
    """Return the names of the axes of the plane of `CodeMap`, for a code of two units or more."""
    return (
        ("unit 1", "unit 2") if num_units == 2 else ("axis 1 of the principal plane", "axis 2 of the principal plane")
    )


def code_plane(context: ViewContext, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the plane of `CodeMap`: its origin [D], and its axes [D, 2] of length 1.

    For two units, the origin is 0 and the axes are the units. For more, they are the mean code and the first two
    principal directions of the first `count` codes, rotated to match the pixels (see `CodeMap`).
    """
    z = to_float64(context.z[:count]).nan_to_num(0, 0, 0)
    if z.shape[1] == 2:
        return torch.zeros_like(z[0]), torch.eye(2, dtype=z.dtype, device=z.device)
    axes = principal_directions(z)
    return z.mean(0), axes @ procrustes_rotation((z - z.mean(0)) @ axes, plane_of_examples(context, count))


def plane_of_examples(context: ViewContext, count: int | None = None) -> Tensor:
    """Return the coordinates [N, 2] of the first `count` examples in their own principal plane.

    It is that of shrunk images, which is nearly the same plane in less time, or that of the linear code of vectors.
    """
    if context.model.kind == "image":
        return principal_coordinates(F.adaptive_avg_pool2d(context.filled[:count], COARSE_SIDE).flatten(1))
    return to_float64(context.baseline.encode(context.x[:count])[:, :2])


def linear_cloud(context: ViewContext, count: int, labels: Tensor | None, classes: Sequence[str]) -> PointCloud:
    """Return the points of the first `count` examples in the plane of the linear code."""
    name = context.baseline.name
    axes = f"component 1 of {name}", f"component 2 of {name}"
    return PointCloud(plane_of_examples(context, count), labels, classes, title=name, axes=axes)


def draw_clouds(cloud: PointCloud, context: ViewContext) -> Tensor:
    """Return a scatter plot [3, H, W], and the one beside it where there is one."""
    clouds = [cloud] if cloud.beside is None else [cloud, cloud.beside]
    pictures = [
        scatter(
            part.points,
            part.labels,
            y_ticks=part.has_y_ticks,
            class_name=context.class_name,
            title=part.title,
            has_legend=part is clouds[-1],
        )
        for part in clouds
    ]
    return torch.cat(pictures, dim=2)


def principal_directions(rows: Tensor) -> Tensor:
    """Return the two orthonormal directions [P, 2] of largest variance of rows [N, P], the second largest first.

    The largest entry of each direction is positive, because eigenvectors have no sign of their own.
    """
    rows = to_float64(rows)  # float32 overflows in the squares of a diverged code
    centred = rows - rows.mean(0)
    eigenvectors = torch.linalg.eigh(centred.t() @ centred).eigenvectors[:, -2:]
    largest = eigenvectors.gather(0, eigenvectors.abs().argmax(0, keepdim=True))  # [1, 2]
    return eigenvectors * largest.sign()


def principal_coordinates(rows: Tensor) -> Tensor:
    """Return the coordinates [N, 2] of rows [N, P] along their `principal_directions`."""
    return (to_float64(rows) - to_float64(rows).mean(0)) @ principal_directions(rows)


def procrustes_rotation(points: Tensor, reference: Tensor) -> Tensor:
    """Return the orthogonal matrix [2, 2] that maps points [N, 2] as close as possible to `reference` [N, 2].

    Orthogonal Procrustes (Schönemann 1966): with U S V^T the SVD of points^T reference, it is U V^T.
    """
    u, _, v = torch.linalg.svd(points.t() @ reference)
    return u @ v


def spread_by_class(z: Tensor, labels: Tensor | None) -> Tensor:
    """Return heights [N, 1] for codes z [N, 1]: random around a line for each class, the first class on top.

    Together they span about as much as `z` does.
    """
    jitter = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(SEED)).to(z.device) - 0.5
    line = torch.zeros_like(jitter) if labels is None else labels.unique(return_inverse=True)[1][:, None]
    return (JITTER * jitter - line) * float(z.max() - z.min()) / (float(line.max()) + 1)
