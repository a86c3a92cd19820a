"""Views along paths through the code space: interpolations between images, and traversals of single units."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from aetrain.views.annotations import Annotations, pixel_key
from aetrain.views.context import ViewContext
from aetrain.views.image_grids import interleave_classes
from aetrain.views.render import SMALL_TILE_WIDTH
from aetrain.views.view import Picture, check_positive, grid_picture

CLASSES_APART = 2  # from the first to the last image of an interpolation


@final
@dataclass(frozen=True)
class Interpolations:
    """Rows of `steps` images that the model decodes from the straight line between the codes of two images.

    The two images are at the ends of a row, their reconstructions next to them. With labels, row i starts at the first
    image of class i and ends at the first image of class i + 2; without labels, images i and i + 2.
    """

    description: ClassVar[str] = (
        "Rows of images that the model decodes from the straight line between the codes of two "
        "images, which are at its ends."
    )

    count: int = 6
    steps: int = 7

    def __post_init__(self) -> None:
        check_positive(count=self.count, steps=self.steps)

    def __call__(self, context: ViewContext) -> Picture:
        order = interleave_classes(context.labels, len(context.x)).to(context.x.device)
        index = torch.arange(min(self.count, len(order)), device=order.device)
        first, last = order[index], order[(index + CLASSES_APART) % len(order)]
        weights = torch.linspace(0, 1, self.steps, device=context.z.device)[:, None]
        begin, end = context.z[first][:, None], context.z[last][:, None]  # [rows, 1, D]
        z = (begin + weights * (end - begin)).flatten(0, 1)  # [rows * steps, D]
        decoded = context.decode_pixels(context.project_to_data_range(z)).unflatten(0, (len(index), self.steps))
        rows = torch.cat([context.x[first][:, None], decoded, context.x[last][:, None]], dim=1)
        annotations = Annotations(
            f"Interpolations between the codes of two {context.split} images",
            x_axis="position between the two codes",
            columns=["image", *(f"{weight:.2g}" for weight in weights.flatten().tolist()), "image"],
            rows=[" to ".join(names) for names in zip(*map(context.class_labels, (first, last)), strict=True)],
            **pixel_key(context.x),
        )
        return grid_picture(rows.flatten(0, 1), annotations, self.steps + 2)


@final
@dataclass(frozen=True)
class Traversals:
    """A row for each of the `count` most important units: the decoded images as the unit alone goes from low to high.

    The caption shows the unit's number and its importance (`ViewContext.rank_units`): for a Gaussian code its KL from
    the prior, a mean over images in nats; else the squared change of the decoded image as the unit rises by a standard
    deviation. All other units keep the values of the first image. The unit covers `limit` standard deviations on each
    side of its mean over the images; for a Gaussian code, of the prior.
    """

    description: ClassVar[str] = (
        "One row per code unit: the decoded images as the unit alone goes from low to high, the "
        "most important unit first."
    )

    selects_units: ClassVar[bool] = True

    count: int = 10
    steps: int = 9
    limit: float = 2.5

    def __post_init__(self) -> None:
        check_positive(count=self.count, steps=self.steps, limit=self.limit)

    def __call__(self, context: ViewContext) -> Picture:
        code, z = context.out.code, context.z.nan_to_num(0, 0, 0)
        mean, std = z.mean(0), z.std(0, correction=0)
        selection = context.rank_units(context.code_tap, self.count)
        units, importance = selection.units, context.unit_importance(context.code_tap)
        centre, meaning, unit = "its mean", "its squared effect on the decoded image", ""
        first_image = interleave_classes(context.labels, len(z))[0]
        prior_moments = code.prior_moments
        if prior_moments is not None:  # of units before the code's activation
            centre, meaning, unit = "the mean of the prior", "its KL from the prior", " nats"
            (mean, std), z = prior_moments, code.mean_z
        steps = torch.linspace(-self.limit, self.limit, self.steps, device=z.device)
        rows = z[first_image].repeat(len(units), self.steps, 1)  # [units, steps, D]
        for row, j in zip(rows, units.tolist(), strict=True):
            row[:, j] = mean[j] + steps * std[j]
        codes = rows.flatten(0, 1)
        in_range = context.project_to_data_range if prior_moments is None else context.model.code_transform
        codes = in_range(codes)
        captions = [f"{j + 1}: {format_short(float(importance[j]))}{unit}" for j in units.tolist()]
        annotations = Annotations(
            "Images decoded as one unit of the code varies",
            x_axis=f"value of the unit, standard deviations from {centre}",
            rows=[f"unit {caption}" for caption in captions],
            columns=[f"{step:.3g}" for step in steps.tolist()],
            note=f"Beside the number of a unit: {meaning}. Shown: {selection.describe()}.",
            **pixel_key(context.x),
        )
        images = context.decode_pixels(codes)
        picture = grid_picture(images, annotations, self.steps, captions, width=SMALL_TILE_WIDTH)
        return replace(picture, selection=selection)


def format_short(value: float) -> str:
    """Return a number with two or three significant digits, in at most seven characters."""
    return f"{value:.2g}" if abs(value) < 0.1 or abs(value) >= 1000 else f"{value:.3g}"
