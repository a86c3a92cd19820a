"""Views of errors: the worst reconstructions of each class, and the error under each kind and level of noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from aetrain.data.noise import LeveledNoise, noise_for
from aetrain.evaluation.evaluator import squared_error
from aetrain.evaluation.measures.robustness import check_levels, noise_kinds
from aetrain.views.annotations import Annotations, KeyEntry, PlacedText, Sheet, pixel_key, write_texts
from aetrain.views.context import ViewContext
from aetrain.views.render import (
    CAPTION_SIZE,
    GAP,
    INK,
    PAPER,
    RGB,
    SMALL_TILE_WIDTH,
    bytes_to_picture,
    to_pil_images,
)
from aetrain.views.view import Picture, check_positive, grid_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

CELL_SIDE = 96  # of the images of a noise map, in pixels
CELL_GAP = 2  # between the two images of a cell, in pixels
CELL_STEP = CELL_SIDE + 2 * GAP  # from one column of a noise map to the next, in pixels
CELL_HEIGHT = 2 * (CELL_SIDE + CELL_GAP) + CAPTION_SIZE + 3 * GAP  # with the error below the images, in pixels
NOISE_MAP_FONT_SIZE = CAPTION_SIZE - 4
FIGURE_FONT_SIZE = 24  # pixels; a figure has a wider font than TensorBoard's picture
ERRORS_NOTE = "Errors are squared errors, summed over the pixels of an image."
MAX_REDNESS = 0.6  # share of green and blue that the colour of a large error lacks
MIN_MEAN_IMAGE_SSE = 1e-9  # of images that are all alike, to divide by


@final
@dataclass(frozen=True)
class Errors:
    """A row for each class: its mean squared error (`sse`), and its `count` worst images with their reconstructions.

    The first `classes` classes have a row. Without labels, there is one row.
    """

    description: ClassVar[str] = (
        "One row per class: its mean squared error, and its worst images with their reconstructions."
    )

    count: int = 4
    classes: int = 12

    def __post_init__(self) -> None:
        check_positive(count=self.count, classes=self.classes)

    def __call__(self, context: ViewContext) -> Picture:
        with torch.no_grad():
            reconstructions = context.model.likelihood.mean(context.out.decoded)
        errors = squared_error(context.model)(reconstructions, context.complete).nan_to_num(torch.inf)  # [N]
        labels = torch.zeros_like(errors) if context.labels is None else context.labels
        captions, rows = [], []
        for label in labels.unique()[: self.classes].tolist():
            members = (labels == label).nonzero().flatten()
            worst = members[errors[members].argsort(descending=True, stable=True)[: self.count]]
            worst = torch.cat([worst, worst[-1:].expand(self.count - len(worst))])  # repeat, in a class of few images
            rows.append(torch.stack([context.complete[worst], reconstructions[worst]], dim=1).flatten(0, 1))
            prefix = "" if context.labels is None else f"{context.class_name(int(label))}: "
            captions.append(f"{prefix}{float(errors[members].mean()):.3g}")
        has_classes = context.labels is not None
        annotations = Annotations(
            f"{context.split.capitalize()} images with the worst reconstructions",
            y_axis="class: mean squared error" if has_classes else "mean squared error",
            rows=captions,
            columns=["image", "reconstruction"] * self.count,
            note=f"{ERRORS_NOTE} One row per class, its largest error first." if has_classes else ERRORS_NOTE,
            **pixel_key(context.complete),
        )
        return grid_picture(torch.cat(rows), annotations, 2 * self.count, captions, width=SMALL_TILE_WIDTH)


@final
@dataclass(frozen=True)
class NoiseMap:
    """A table of noise kinds (rows) and `levels` (columns): a noisy image, its reconstruction, and the mean error.

    The number below the two images is the squared error from reconstructions of noisy images to the clean images
    (`noisy_sse`), a mean over `count` images. Its background goes from white at 0 to red at the error of the mean
    image, or more. Each kind of noise defines its levels (`at_level`): gaussian noise has the level as standard
    deviation, masking noise replaces that share of the pixels. `kinds` names options of `noise`; null for all that
    declare a level. `extra_kinds` are other kinds by name, such as a user's own. None for a model that is trained
    without noise.

    Raises ValueError where a level is not from 0 to 1 or a kind is unknown.
    """

    description: ClassVar[str] = (
        "One row per kind of noise, one column per level: a noisy image, its reconstruction and the mean squared error."
    )

    count: int = 100
    levels: Sequence[float] = (0.0, 0.15, 0.3, 0.5, 0.7)
    kinds: Sequence[str] | None = None
    extra_kinds: Mapping[str, LeveledNoise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_positive(count=self.count)
        check_levels(self.levels)
        noise_kinds(self.kinds, self.extra_kinds)

    def __call__(self, context: ViewContext) -> Picture | None:
        if context.x_in is context.x:
            return None
        x = context.complete[: self.count]
        mean_image_sse = float(squared_error(context.model)(context.mean_image.expand_as(x), x).mean())
        headings = [f"{level:g}" for level in self.levels]
        pixels, sheet = draw_noise_map(self.compute_cells(context), headings, mean_image_sse)
        annotations = Annotations(
            f"Reconstructions of noisy {context.split} images",
            x_axis="level of the noise",
            y_axis="kind of noise",
            key_title="squared error",
            key=(KeyEntry(PAPER, "0"), KeyEntry(redness(1), f"{mean_image_sse:.3g} (of the mean image) or more")),
            note=f"A cell shows a noisy image, its reconstruction, and the squared error between reconstructions and "
            f"clean images, summed over the pixels, in the mean over {len(x):,} images.",
        )
        return Picture(pixels, annotations, sheet)

    def compute_cells(self, context: ViewContext) -> dict[str, list["Cell"]]:
        """Return the cells of each row, by the name of its noise; all kinds and levels use the same random seed."""
        x, complete = context.x[: self.count], context.complete[: self.count]
        error = squared_error(context.model)
        rows: dict[str, list[Cell]] = {}
        for name, kind in noise_kinds(self.kinds, self.extra_kinds).items():
            row = rows.setdefault(name.replace("_and_", ", "), [])
            for level in self.levels:
                leveled = kind.at_level(float(level), context.model.image_shape)
                noise = noise_for(leveled, context.model.kind, context.model.has_missing)
                noisy = noise(x, context.make_generator())
                reconstructions = context.reconstruct(noisy)
                row.append(Cell(noisy[0], reconstructions[0], float(error(reconstructions, complete).mean())))
        return rows


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell of a noise map: one noisy image and its reconstruction, [C, H, W] each, and the mean error over images."""

    noisy: Tensor
    reconstruction: Tensor
    error: float


def draw_noise_map(
    rows: Mapping[str, Sequence[Cell]], headings: Sequence[str], mean_image_sse: float
) -> tuple[Tensor, Sheet]:
    """Return a table of cells as a picture [3, H, W], uint8, and without its texts as a sheet.

    `rows` maps names to cells, one for each heading.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(NOISE_MAP_FONT_SIZE)
    left = round(max(font.getlength(name) for name in rows)) + 3 * GAP
    size = (left + len(headings) * CELL_STEP, CAPTION_SIZE + 2 * GAP + len(rows) * CELL_HEIGHT)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    texts = []
    for column, heading in enumerate(headings):
        texts.append(PlacedText(left + column * CELL_STEP + CELL_SIDE / 2, 4, heading, "mt", size=FIGURE_FONT_SIZE))
    for row, (name, cells) in enumerate(rows.items()):
        top = CAPTION_SIZE + GAP + row * CELL_HEIGHT
        texts.append(PlacedText(left - 2 * GAP, top + CELL_SIDE, name, "rm", INK, FIGURE_FONT_SIZE, left - 3 * GAP))
        for column, cell in enumerate(cells):
            texts.append(draw_cell(page, draw, cell, (left + column * CELL_STEP, top), mean_image_sse))
    shape = page.height, page.width, 3
    sheet = Sheet(bytes_to_picture(page.tobytes(), shape), texts)
    write_texts(draw, font, texts)
    return bytes_to_picture(page.tobytes(), shape), sheet


def draw_cell(
    page: "Image",
    draw: "ImageDraw",
    cell: Cell,
    position: tuple[int, int],
    mean_image_sse: float,
) -> PlacedText:
    """Draw a cell with its upper left corner at pixel `position` (x, y); return the text of its error."""
    left, top = position
    noisy, reconstruction = to_pil_images(torch.stack([cell.noisy, cell.reconstruction]), CELL_SIDE)
    page.paste(noisy, (left, top))
    page.paste(reconstruction, (left, top + CELL_SIDE + CELL_GAP))
    relative_error = min(1.0, cell.error / max(mean_image_sse, MIN_MEAN_IMAGE_SSE))
    text_top = top + 2 * (CELL_SIDE + CELL_GAP)
    text_area = (left, text_top, left + CELL_SIDE - 1, text_top + CAPTION_SIZE)
    draw.rectangle(text_area, fill=redness(relative_error))
    middle = (left + CELL_SIDE / 2, text_top + CAPTION_SIZE / 2)
    return PlacedText(*middle, f"{cell.error:.3g}", "mm", INK, FIGURE_FONT_SIZE, CELL_SIDE)


def redness(relative_error: float) -> RGB:
    """Return the colour of an error relative to that of the mean image: white for 0, red for 1."""
    green_and_blue = round(255 * (1 - relative_error * MAX_REDNESS))
    return 255, green_and_blue, green_and_blue
