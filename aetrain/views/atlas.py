"""The atlas: a page for each layer with a row for each of its units: inputs, effect, images, activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.model.records import Kind
from aetrain.views.annotations import (
    BLACK_GREY_WHITE,
    Annotations,
    KeyEntry,
    PlacedText,
    Sheet,
    write_texts,
)
from aetrain.views.context import Norm, ViewContext
from aetrain.views.render import (
    DEAD_COLOUR,
    INK,
    PAPER,
    RGB,
    SATURATED_COLOUR,
    bounding_box,
    bytes_to_picture,
    load_font,
    to_pil_images,
)
from aetrain.views.text_columns import FONT_SIZE as WORDS_FONT_SIZE
from aetrain.views.text_columns import TextColumn, text_columns
from aetrain.views.unit_activations import UnitActivations, by_unit
from aetrain.views.units import frame_colours, layer_name, shade
from aetrain.views.view import Picture, PictureSet, check_positive

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

TILE_SIDE = 84  # of a picture, in pixels: 3 x MNIST's 28
GAP = 6  # between tiles, in pixels
STEP = TILE_SIDE + GAP  # from one tile to the next, in pixels
LABEL_WIDTH = 136  # of the first column: number, firing rate and state of a unit, in pixels
LABEL_MARGIN = 12  # right of the labels, in pixels
HISTOGRAM_WIDTH = 168  # in pixels
HEADING_HEIGHT = 38  # in pixels
FONT_SIZE = 27  # TensorBoard shows a third of it
FIGURE_FONT_SIZE = 20
SHADES = (
    "ink that lowers the activation, or that the unit removes",
    "no effect",
    "ink that raises the activation, or that the unit adds",
)
NOTE = (
    "Left: the number of the unit, the images or places at which it fires, and its state. Right: the distribution of "
    "its activations, with square roots as heights; the numbers above are the ends of the axis."
)
WORDS_NOTE = (
    "Left: the number of the unit, the examples at which it fires, and its state. Active with: the features of largest "
    "correlation with the activation of the unit. Produces: the features of the decoded example that change most, "
    "relative to their spread, as the unit rises by one standard deviation from its mean. A minus sign: less of the "
    "feature. Right: the distribution of the activations, with square roots as heights; the numbers above are the ends "
    "of the axis."
)
LINE_WIDTH = 3
LINE_COLOUR: RGB = (225, 225, 225)  # of the axes of histograms
BINS = 28  # of a histogram
MAX_HISTOGRAM_VALUES = 20_000  # activations of a unit that are counted, up to twice as many
MIN_CHANGE = 1e-6  # of a pixel that counts as changed by a unit
MIN_CHANGE_NORM = 0.05  # smaller changes of the image are not scaled up to norm 1
BEST_IMAGES = "best images"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of the page: k pictures for each unit."""

    heading: str
    tiles: Tensor  # [U, k, C, h, w]

    @property
    def width(self) -> int:
        """The width of the tiles and of the gap behind them, in pixels."""
        return self.tiles.shape[1] * STEP + GAP


@final
@dataclass(frozen=True)
class Atlas:
    """For each layer a page, with a row for each of `count` units (`ViewContext.select_units`).

    - Its number, its firing rate, and its state: dead (red: no image changes it) or saturated (blue: nearly always
      close to a bound of its range).
    - The input that activates it most, as in `Units`, with the same `limit` and `norm`.
    - Its effect: the change of the decoded image where the unit alone is active, with its largest activation over the
      images, divided by the change's norm. White: the unit adds ink. Black: it removes ink.
    - The `images` of the context that activate it most, in descending order; for channels, the patch that the channel
      sees at the place of its largest activation.
    - The histogram of its activations, on one scale for the page, with square roots as heights. The grey line is zero.

    Of examples that are no images, words take the place of the pictures: the features that the unit goes with and
    those that it produces, as in `aetrain.views.unit_features.Features`, and the classes of its best examples.
    """

    description: ClassVar[str] = (
        "One row per unit: its state, the input that activates it most, its effect, its best images, its activations."
    )

    selects_units: ClassVar[bool] = True
    data_kinds: ClassVar[tuple[Kind, ...]] = ("image", "vector", "counts", "ratings")

    count: int = 12
    images: int = 5
    limit: float = 0.9
    norm: Norm = "data_covariance"

    def __post_init__(self) -> None:
        check_positive(count=self.count, images=self.images, limit=self.limit)

    def __call__(self, context: ViewContext) -> PictureSet:
        pictures = {}
        for name, activations in context.activations.items():
            selection = context.select_units(activations.tap, self.count)
            pixels, sheet = self._page(context, activations, selection.units)
            key = [KeyEntry(colour, text) for colour, text in zip(BLACK_GREY_WHITE, SHADES, strict=True)]
            is_image = context.model.kind == "image"
            annotations = Annotations(
                f"Atlas of the units of {layer_name(name)}",
                key_title="input and effect" if is_image else "",
                key=key if is_image else (),
                note=f"{NOTE if is_image else WORDS_NOTE} Shown: {selection.describe()}.",
            )
            pictures[name] = Picture(pixels, annotations, sheet, selection)
        return PictureSet(pictures)

    def _page(self, context: ViewContext, activations: UnitActivations, units: Tensor) -> tuple[Tensor, Sheet]:
        """Return the page [1 or 3, H, W] of a layer, uint8, and the same without its texts as a sheet."""
        from PIL import Image, ImageDraw, ImageFont

        columns = self._columns(context, activations, units)
        histograms_left = LABEL_WIDTH + sum(column.width for column in columns)
        size = (histograms_left + HISTOGRAM_WIDTH, HEADING_HEIGHT + len(units) * STEP)
        page = Image.new("RGB", size, PAPER)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE)

        left, texts = LABEL_WIDTH, label_texts(activations, units)
        dead = activations.dead[units].tolist()
        words: list[PlacedText] = []
        for column in columns:
            texts.append(heading(column.heading, left))
            if isinstance(column, TextColumn):
                words += column.texts(left, [HEADING_HEIGHT + row * STEP for row in range(len(units))])
            else:
                # The images of a dead unit would be arbitrary.
                hidden = dead if column.heading == BEST_IMAGES else [False] * len(units)
                paste_tiles(page, column.tiles, hidden, left)
            left += column.width
        texts += draw_histograms(draw, activations, units, histograms_left)
        is_grey = context.x.shape[1] != 3 and not any(frame_colours(activations, units))
        sheet = Sheet(page_pixels(page, is_grey), [*texts, *words, heading("unit", LABEL_WIDTH - LABEL_MARGIN, "rm")])
        write_texts(draw, font, texts)
        write_texts(draw, load_font(WORDS_FONT_SIZE), words)
        return page_pixels(page, is_grey), sheet

    def _columns(
        self, context: ViewContext, activations: UnitActivations, units: Tensor
    ) -> Sequence[Column | TextColumn]:
        """Return the columns of pictures or words; the first picture is missing where the units have no gradient."""
        if context.model.kind != "image":
            return text_columns(context, activations, units, self.images)
        columns = []
        inputs = context.max_activating_input(activations.tap, units, self.norm)
        if inputs is not None:
            columns.append(Column("input", shade(inputs, self.limit)[:, None]))
        effect = crop_changes(context.single_unit_effect(activations.tap, units))
        columns.append(Column("effect", shade(effect, self.limit)[:, None]))
        columns.append(Column(BEST_IMAGES, top_images(context, activations, units, self.images)))
        return columns


def paste_tiles(page: "Image", tiles: Tensor, hidden: Sequence[bool], left: int) -> None:
    """Paste tiles [U, k, C, h, w] on the page, a row for each unit, but not in rows that are `hidden`."""
    for row, line in enumerate(tiles):
        if hidden[row]:
            continue
        for column, tile in enumerate(to_pil_images(line, TILE_SIDE)):
            page.paste(tile, (left + column * STEP, HEADING_HEIGHT + row * STEP))


def page_pixels(page: "Image", is_grey: bool) -> Tensor:
    """Return the pixels of a page, uint8: [1, H, W] for a grey one, whose file is smaller, else [3, H, W]."""
    if is_grey:
        page = page.convert("L")
    return bytes_to_picture(page.tobytes(), (page.height, page.width, 1 if is_grey else 3))


def heading(text: str, x: float, anchor: str = "lm") -> PlacedText:
    """Return the heading of a column."""
    return PlacedText(x, HEADING_HEIGHT / 2, text, anchor, size=FIGURE_FONT_SIZE)


def draw_histograms(draw: "ImageDraw", activations: UnitActivations, units: Tensor, left: int) -> list[PlacedText]:
    """Draw the histogram of each unit's activations in the last column, which begins at pixel `left`.

    Return the lowest and the highest value of the common scale as texts.
    """
    heights, low, high = compute_histograms(activations, units)
    right = left + HISTOGRAM_WIDTH
    zero = left + (0 - low) / (high - low) * HISTOGRAM_WIDTH
    for row, bars in enumerate(heights.tolist()):
        top = HEADING_HEIGHT + row * STEP
        bottom = top + TILE_SIDE
        draw.line((left, bottom, right, bottom), fill=LINE_COLOUR, width=LINE_WIDTH)
        if left <= zero <= right:
            draw.line((zero, top, zero, bottom), fill=LINE_COLOUR, width=LINE_WIDTH)
        for number, height in enumerate(bars):
            if height > 0:
                x = left + number * HISTOGRAM_WIDTH / BINS
                draw.rectangle((x, bottom - height * TILE_SIDE, x + HISTOGRAM_WIDTH / BINS, bottom), fill=INK)
    return [heading(f"{low:.2g}", left), heading(f"{high:.2g}", right - GAP, "rm")]


def label_texts(activations: UnitActivations, units: Tensor) -> list[PlacedText]:
    """Return the number, the firing rate and the state of each unit as texts in the first column."""
    states = {DEAD_COLOUR: "dead", SATURATED_COLOUR: "saturated"}
    right, size, texts = LABEL_WIDTH - LABEL_MARGIN, FIGURE_FONT_SIZE, []
    for row, (unit, colour) in enumerate(zip(units.tolist(), frame_colours(activations, units), strict=True)):
        top = HEADING_HEIGHT + row * STEP
        rate = format_rate(float(activations.rate[unit]))
        texts.append(PlacedText(right, top + 14, str(unit + 1), "rm", colour or INK, size))
        texts.append(PlacedText(right, top + 43, rate, "rm", INK, size))
        if colour is not None:
            texts.append(PlacedText(right, top + 71, states[colour], "rm", colour, size, right))
    return texts


def crop_changes(changes: Tensor) -> Tensor:
    """Return changes of an image [U, C, H, W] over their norms, cut to the region that they change: [U, C, h, w].

    They are not cut where the region is larger than half of the image. Changes of a norm below `MIN_CHANGE_NORM` are
    divided by `MIN_CHANGE_NORM`, so they stay faint.
    """
    changes = changes.nan_to_num(0, 0, 0)
    changed = (changes.abs() > MIN_CHANGE).flatten(0, 1).any(0)  # [H, W]
    box = bounding_box(changed)
    if box is not None:
        extent = max(side.stop - 1 - side.start for side in box)
        if 2 * extent < min(changed.shape):
            changes = changes[:, :, *box]
    return changes / changes.flatten(1).norm(dim=1).clamp_min(MIN_CHANGE_NORM)[:, None, None, None]


def format_rate(rate: float) -> str:
    """Return a firing rate in percent, with one decimal below 10 % so that a rare unit differs from a silent one."""
    return f"{100 * rate:.1f} %" if 0 < rate < 0.0995 else f"{100 * rate:.0f} %"


def top_images(context: ViewContext, activations: UnitActivations, units: Tensor, count: int) -> Tensor:
    """Return the images that activate `units` [U] most, [U, count, C, h, w].

    For feature maps, return the patch that the channel sees at the place of its largest activation, zero outside the
    image.
    """
    images, map_rows, map_columns = activations.top_positions(units, count)  # each [U, count]
    rows, columns = context.receptive_field(activations.tap)
    patch_height, patch_width = rows.stop - rows.start, columns.stop - columns.start
    height, width = context.x.shape[2:]
    if (patch_height, patch_width) == (height, width):
        return context.x[images]
    map_height, map_width = activations.values.shape[2:]
    # Shift the receptive field of the middle of the map by the stride, in pixels, for each place.
    top = rows.start + (map_rows - map_height // 2) * round(height / map_height)
    left = columns.start + (map_columns - map_width // 2) * round(width / map_width)
    padded = F.pad(context.x, (patch_width, patch_width, patch_height, patch_height))
    top = (top + patch_height).clamp(0, height + patch_height)
    left = (left + patch_width).clamp(0, width + patch_width)
    patch_rows = (top[..., None] + torch.arange(patch_height, device=top.device))[..., None]  # [U, count, h, 1]
    patch_columns = (left[..., None] + torch.arange(patch_width, device=top.device))[..., None, :]  # [U, count, 1, w]
    return padded.permute(0, 2, 3, 1)[images[..., None, None], patch_rows, patch_columns].movedim(-1, 2)


def compute_histograms(activations: UnitActivations, units: Tensor) -> tuple[Tensor, float, float]:
    """Return bar heights [U, bins] in [0, 1], and the lowest and the highest value of the common scale.

    A height is the square root of the share of activations in its bin.
    """
    values = by_unit(activations.values[:, units]).nan_to_num(0, 0, 0).cpu()
    values = values[:, :: max(1, values.shape[1] // MAX_HISTOGRAM_VALUES)]
    low, high = float(values.min()), float(values.max())
    if not high > low:
        low, high = low - 1, high + 1
    bin_index = ((values.to(torch.float64) - low) / (high - low) * BINS).long().clamp(0, BINS - 1)
    ones = torch.ones_like(bin_index, dtype=torch.float32)
    counts = torch.zeros(len(values), BINS).scatter_add_(1, bin_index, ones)
    return (counts / values.shape[1]).sqrt(), low, high
