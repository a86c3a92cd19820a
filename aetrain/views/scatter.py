"""Scatter plots of points in a plane, coloured by class.

PIL draws them in 5 ms each; matplotlib would take 60 ms, and 0.4 s for the import. The picture is hardly larger than
TensorBoard shows it, because TensorBoard drops pixels where it shrinks pictures, and thin lines would vanish.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aetrain.views.render import INK, PAPER, RGB, bytes_to_float_picture, load_font

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

SIDE = 400  # of the plane, in pixels
LEFT, BELOW, LEGEND = 62, 34, 42  # room for the numbers of the axes and for the dots of the legend, in pixels
EDGE = 12  # margin above the plane and to its right, in pixels
DOT_RADIUS = 3.5
LEGEND_DOT_RADIUS = 8
MAX_LEGEND_STEP = 36.0  # pixels from one line of the legend to the next
FONT_SIZE = 24
MIN_FONT_SIZE = 6  # of a legend of very many classes
TITLE_HEIGHT = 36
LINE_WIDTH = 3
GRID_LINE_COLOUR: RGB = (215, 215, 215)
MIN_RELATIVE_SPAN = 1e-6  # of the frame, relative to the distance of the points from 0

# Ten colours that are easy to tell apart (Tableau's, in matplotlib's order).
TEN_COLOURS: tuple[RGB, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def scatter(
    points: Tensor,
    labels: Tensor | None = None,
    y_ticks: bool = True,
    class_name: Callable[[int], str] = str,
    title: str = "",
    has_legend: bool = True,
) -> Tensor:
    """Return a plot [3, H, W] of points [N, 2] on one scale for both axes; with `labels` [N] in colours and a legend.

    `y_ticks` is False where the vertical axis has no meaning and shows no numbers. A `title` is above the frame, which
    holds all points but the outermost 0.5 % on each side; these are drawn on its edge.
    """
    from PIL import Image, ImageDraw, ImageFont

    points = points.detach().cpu().to(torch.float64).nan_to_num(0, 0, 0)
    classes = [] if labels is None else labels.unique().tolist()
    colours = dict(zip(classes, palette(len(classes)), strict=True))
    names = {label: class_name(label) for label in classes}
    low, high = frame_corners(points)
    font = ImageFont.load_default(FONT_SIZE)
    entries = [(names[label], colours[label]) for label in classes] if has_legend else []
    legend_font = load_font(legend_font_size(len(entries)))
    legend_width = max((LEGEND + math.ceil(legend_font.getlength(name)) for name, _ in entries), default=0)
    width, height = LEFT + SIDE + EDGE + legend_width, EDGE + SIDE + BELOW
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)

    draw_axes(draw, font, low.tolist(), high.tolist(), y_ticks)
    point_colours = [TEN_COLOURS[0]] * len(points) if labels is None else [colours[label] for label in labels.tolist()]
    draw_points(draw, ((points - low) / (high - low)).clamp(0, 1), point_colours)
    draw_legend(draw, legend_font, entries)
    picture = bytes_to_float_picture(image.tobytes(), (height, width, 3))
    return add_title(picture, title) if title else picture


def add_title(picture: Tensor, title: str) -> Tensor:
    """Return a plot [3, H, W] with a line of text above its frame."""
    from PIL import Image, ImageDraw

    width = picture.shape[2]
    image = Image.new("RGB", (width, TITLE_HEIGHT), PAPER)
    ImageDraw.Draw(image).text((LEFT, TITLE_HEIGHT / 2), title, fill=INK, font=load_font(FONT_SIZE), anchor="lm")
    return torch.cat([bytes_to_float_picture(image.tobytes(), (TITLE_HEIGHT, width, 3)), picture], dim=1)


def legend_font_size(num_entries: int) -> int:
    """Return the size of the legend's font, which is smaller where many lines share the height of the frame."""
    return max(MIN_FONT_SIZE, min(FONT_SIZE, int(0.9 * SIDE / max(1, num_entries))))


def draw_axes(
    draw: "ImageDraw", font: "FreeTypeFont | ImageFont", low: Sequence[float], high: Sequence[float], y_ticks: bool
) -> None:
    """Draw the frame from corner `low` to corner `high`, its grid lines and the numbers at them."""
    for axis in (0, 1) if y_ticks else (0,):
        for value in ticks(low[axis], high[axis]):
            offset = (value - low[axis]) / (high[axis] - low[axis]) * SIDE
            if axis == 0:
                x = LEFT + offset
                draw.line((x, EDGE, x, EDGE + SIDE), fill=GRID_LINE_COLOUR, width=LINE_WIDTH)
                draw.text((x, EDGE + SIDE + 8), f"{value:g}", fill=INK, font=font, anchor="mt")
            else:
                y = EDGE + SIDE - offset
                draw.line((LEFT, y, LEFT + SIDE, y), fill=GRID_LINE_COLOUR, width=LINE_WIDTH)
                draw.text((LEFT - 8, y), f"{value:g}", fill=INK, font=font, anchor="rm")
    draw.rectangle((LEFT, EDGE, LEFT + SIDE, EDGE + SIDE), outline=INK, width=LINE_WIDTH)


def draw_points(draw: "ImageDraw", points: Tensor, colours: Sequence[RGB]) -> None:
    """Draw points [N, 2] in [0, 1], from the lower left corner of the frame."""
    for (across, up), colour in zip((points * SIDE).tolist(), colours, strict=True):
        draw_dot(draw, LEFT + across, EDGE + SIDE - up, DOT_RADIUS, colour)


def draw_legend(draw: "ImageDraw", font: "FreeTypeFont | ImageFont", entries: Sequence[tuple[str, RGB]]) -> None:
    """Draw the names and colours of the classes to the right of the frame."""
    step = min(MAX_LEGEND_STEP, SIDE / max(1, len(entries)))
    for row, (name, colour) in enumerate(entries):
        x, y = LEFT + SIDE + EDGE + 12, EDGE + (row + 0.5) * step
        draw_dot(draw, x, y, min(LEGEND_DOT_RADIUS, 0.4 * step), colour)
        draw.text((x + 18, y), name, fill=INK, font=font, anchor="lm")


def draw_dot(draw: "ImageDraw", x: float, y: float, radius: float, colour: RGB) -> None:
    """Draw a filled circle around (x, y)."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def palette(count: int) -> list[RGB]:
    """Return `count` distinct colours."""
    if count <= len(TEN_COLOURS):
        return list(TEN_COLOURS[:count])
    wheel = (colorsys.hsv_to_rgb(i / count, 0.9 if i % 2 else 0.6, 0.6 if i % 2 else 0.9) for i in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in wheel]


def frame_corners(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower left and the upper right corner, [2] each, of a square around 99 % of points [N, 2] per axis."""
    outer = torch.quantile(points, torch.tensor([0.005, 0.995], dtype=points.dtype), dim=0)  # [2, 2]
    middle = outer.mean(0)
    half_side = 0.54 * float((outer[1] - outer[0]).max())
    half_side = max(half_side, MIN_RELATIVE_SPAN * float(middle.abs().max())) or 1.0  # 1 where all points are at 0
    return middle - half_side, middle + half_side


def ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers within an interval."""
    rough_step = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough_step))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough_step)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
