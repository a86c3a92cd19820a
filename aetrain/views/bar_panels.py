"""Panels of labelled bars: a table of short bar charts, as a picture of TensorBoard and as a sheet of a figure.

PIL draws them in a few milliseconds. Lengths are pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from aetrain.views.annotations import PlacedText, Sheet, write_texts
from aetrain.views.render import INK, PAPER, RGB, bytes_to_picture, fit_text, load_font

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

FONT_SIZE = 22
FIGURE_FONT_SIZE = 20
LINE_HEIGHT = 28  # of a label and its bars
HEADING_HEIGHT = 34  # of a list, and of the title of a panel
LABEL_WIDTH, BAR_WIDTH = 230, 110
GAP = 12  # between a label and its bars, and between two lists
PANEL_GAP = 36  # between two panels
MIN_BAR = 2  # of a bar that is not 0
TITLE_COLOUR: RGB = (0, 0, 0)
HEADING_COLOUR: RGB = (110, 110, 110)
LINE_COLOUR: RGB = (190, 190, 190)  # of the zero of the bars, and below the title of a panel


@dataclass(frozen=True, eq=False)
class BarList:
    """Labels, each with one bar or several in the colours of `colours`; `limits` are the ends of the scale.

    Without limits, the scale holds zero and the bars of the list.
    """

    heading: str
    labels: Sequence[str]
    values: Tensor  # [labels, bars]; NaN is no bar
    colours: Sequence[Sequence[RGB]]  # [labels][bars]
    limits: tuple[float, float] | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value of the scale, with zero between them."""
        if self.limits is not None:
            return self.limits
        values = self.values.nan_to_num(0, 0, 0)
        if not values.numel():
            return 0.0, 1.0
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        return (low, high) if high > low else (low, low + 1)


@dataclass(frozen=True)
class Panel:
    """A title, and lists of bars side by side."""

    title: str
    lists: Sequence[BarList]
    title_colour: RGB = field(default=TITLE_COLOUR)

    @property
    def num_lines(self) -> int:
        """The number of labels in its longest list."""
        return max((len(bar_list.labels) for bar_list in self.lists), default=0)


def draw_panels(
    panels: Sequence[Panel], columns: int, label_width: int = LABEL_WIDTH, bar_width: int = BAR_WIDTH
) -> tuple[Tensor, Sheet]:
    """Return panels in rows as a picture [3, H, W], uint8, and the same without its texts as a sheet.

    Labels that are wider than `label_width` lose their middle.
    """
    from PIL import Image, ImageDraw

    columns = max(1, min(columns, len(panels)))
    list_width = label_width + GAP + bar_width + GAP
    num_lists = max((len(panel.lists) for panel in panels), default=1)
    panel_width = num_lists * list_width + PANEL_GAP
    panel_height = 2 * HEADING_HEIGHT + max((panel.num_lines for panel in panels), default=0) * LINE_HEIGHT + PANEL_GAP
    rows = math.ceil(len(panels) / columns)
    page = Image.new("RGB", (columns * panel_width, max(1, rows * panel_height)), PAPER)
    draw, font, texts = ImageDraw.Draw(page), load_font(FONT_SIZE), []
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = column * panel_width + PANEL_GAP // 2, row * panel_height
        width = panel_width - PANEL_GAP
        title = fit_text(panel.title, font, width)
        texts.append(PlacedText(left, top + HEADING_HEIGHT / 2, title, "lm", panel.title_colour, FIGURE_FONT_SIZE))
        draw.line((left, top + HEADING_HEIGHT, left + width, top + HEADING_HEIGHT), fill=LINE_COLOUR, width=2)
        for place, bar_list in enumerate(panel.lists):
            corner = left + place * list_width, top + HEADING_HEIGHT
            texts += draw_list(draw, font, bar_list, corner, label_width, bar_width)
    shape = page.height, page.width, 3
    blank = bytes_to_picture(page.tobytes(), shape)
    write_texts(draw, font, texts)
    drawn = bytes_to_picture(page.tobytes(), shape)
    return drawn, Sheet(blank, texts, drawn)


def draw_list(
    draw: "ImageDraw",
    font: "FreeTypeFont",
    bar_list: BarList,
    corner: tuple[int, int],
    label_width: int,
    bar_width: int,
) -> list[PlacedText]:
    """Draw the bars of a list whose upper left corner is at `corner` (x, y); return its texts."""
    left, top = corner
    right = left + label_width
    low, high = bar_list.scale
    pixels = bar_width / (high - low)
    zero = right + GAP - low * pixels
    heading = fit_text(bar_list.heading, font, label_width + GAP + bar_width)
    x = right + GAP + bar_width
    texts = [PlacedText(x, top + HEADING_HEIGHT / 2, heading, "rm", HEADING_COLOUR, FIGURE_FONT_SIZE)]
    bottom = top + HEADING_HEIGHT + len(bar_list.labels) * LINE_HEIGHT
    draw.line((zero, top + HEADING_HEIGHT, zero, bottom), fill=LINE_COLOUR, width=2)
    lines = zip(bar_list.labels, bar_list.values.tolist(), bar_list.colours, strict=True)
    for number, (label, values, colours) in enumerate(lines):
        y = top + HEADING_HEIGHT + number * LINE_HEIGHT
        texts.append(
            PlacedText(right, y + LINE_HEIGHT / 2, fit_text(label, font, label_width), "rm", INK, FIGURE_FONT_SIZE)
        )
        thickness = (LINE_HEIGHT - 6) / max(1, len(values))
        for place, (value, colour) in enumerate(zip(values, colours, strict=True)):
            if math.isfinite(value) and value != 0:
                draw_bar(draw, zero, value * pixels, y + 3 + place * thickness, thickness, colour)
    return texts


def draw_bar(draw: "ImageDraw", zero: float, length: float, top: float, thickness: float, colour: RGB) -> None:
    """Draw a bar of a signed length from `zero` to the right or to the left."""
    if abs(length) < MIN_BAR:
        length = math.copysign(MIN_BAR, length)
    first, last = sorted((zero, zero + length))
    draw.rectangle((round(first), round(top), round(last), round(top + thickness) - 1), fill=colour)
