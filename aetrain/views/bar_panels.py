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
PANEL_COLUMNS = 2
PANEL_WIDTH = 730  # with its lists, whatever their number
MAX_LABEL_SHARE = 0.78  # of the width of a list; the bars have the rest
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


@dataclass(frozen=True)
class Layout:
    """The widths of the parts of a list, the same ones in all panels of a picture."""

    label: int
    bars: int

    @property
    def width(self) -> int:
        """The width of a list, with the gaps right of the labels and of the bars."""
        return self.label + self.bars + 2 * GAP


def draw_panels(panels: Sequence[Panel]) -> tuple[Tensor, Sheet]:
    """Return panels in rows of `PANEL_COLUMNS` as a picture [3, H, W], uint8, and the same without texts as a sheet.

    Labels that are too long lose their middle.
    """
    from PIL import Image, ImageDraw

    font, texts = load_font(FONT_SIZE), []
    layout = plan_lists(panels, font)
    step_x = PANEL_WIDTH + PANEL_GAP
    step_y = 2 * HEADING_HEIGHT + max((panel.num_lines for panel in panels), default=0) * LINE_HEIGHT + PANEL_GAP
    page = Image.new("RGB", (PANEL_COLUMNS * step_x, max(1, math.ceil(len(panels) / PANEL_COLUMNS)) * step_y), PAPER)
    draw = ImageDraw.Draw(page)
    for number, panel in enumerate(panels):
        row, column = divmod(number, PANEL_COLUMNS)
        left, top = column * step_x + PANEL_GAP // 2, row * step_y
        title = fit_text(panel.title, font, PANEL_WIDTH)
        texts.append(PlacedText(left, top + HEADING_HEIGHT / 2, title, "lm", panel.title_colour, FIGURE_FONT_SIZE))
        line = top + HEADING_HEIGHT
        draw.line((left, line, left + PANEL_WIDTH, line), fill=LINE_COLOUR, width=2)
        for place, bar_list in enumerate(panel.lists):
            texts += draw_list(draw, font, bar_list, (left + place * layout.width, line), layout)
    shape = page.height, page.width, 3
    blank = bytes_to_picture(page.tobytes(), shape)
    write_texts(draw, font, texts)
    drawn = bytes_to_picture(page.tobytes(), shape)
    return drawn, Sheet(blank, texts, drawn)


def plan_lists(panels: Sequence[Panel], font: "FreeTypeFont") -> Layout:
    """Return the widths with which the lists of a panel fill it: labels as wide as the longest, within a limit."""
    list_width = PANEL_WIDTH // max((len(panel.lists) for panel in panels), default=1)
    lists = [bar_list for panel in panels for bar_list in panel.lists]
    labels = [label for bar_list in lists for label in bar_list.labels]
    longest = max((font.getlength(" ".join(label.split())) for label in labels), default=0.0)
    label_width = math.ceil(min(longest, MAX_LABEL_SHARE * list_width))
    return Layout(label_width, list_width - label_width - 2 * GAP)


def draw_list(
    draw: "ImageDraw", font: "FreeTypeFont", bar_list: BarList, corner: tuple[int, int], layout: Layout
) -> list[PlacedText]:
    """Draw the bars of a list whose upper left corner is at `corner` (x, y); return its texts."""
    left, top = corner
    right, bars_top = left + layout.label, top + HEADING_HEIGHT
    low, high = bar_list.scale
    pixels = layout.bars / (high - low)
    zero = right + GAP - low * pixels
    heading = fit_text(bar_list.heading, font, layout.width - GAP)
    x = left + layout.width - GAP
    texts = [PlacedText(x, top + HEADING_HEIGHT / 2, heading, "rm", HEADING_COLOUR, FIGURE_FONT_SIZE)]
    draw.line((zero, bars_top, zero, bars_top + len(bar_list.labels) * LINE_HEIGHT), fill=LINE_COLOUR, width=2)
    lines = zip(bar_list.labels, bar_list.values.tolist(), bar_list.colours, strict=True)
    for number, (label, values, colours) in enumerate(lines):
        y = bars_top + number * LINE_HEIGHT
        name = fit_text(label, font, layout.label)
        texts.append(PlacedText(right, y + LINE_HEIGHT / 2, name, "rm", INK, FIGURE_FONT_SIZE))
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
