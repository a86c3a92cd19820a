"""Points in a plane, coloured by class.

Drawn without matplotlib, which would take 60 ms a picture instead of 5, and 0.4 s to import. The picture is little
larger than a TensorBoard card shows it, as cards leave out pixels instead of blending them: thin lines would vanish.
"""

import colorsys
import math
from collections.abc import Callable

import torch
from torch import Tensor

from aetrain.views.render import pixels_of

Colour = tuple[int, int, int]

SIDE = 400  # of the plane, in pixels
LEFT, BELOW, LEGEND = 62, 34, 42  # room for numbers and legend
EDGE = 12  # above and to the right
DOT = 3.5  # radius of a point
LETTERS = 24
LINE = 3
INK, PAPER, PALE = (50, 50, 50), (255, 255, 255), (215, 215, 215)

# Ten colours that are told apart easily (Tableau's, in matplotlib's order).
TEN: tuple[Colour, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def scatter(
    points: Tensor, labels: Tensor | None = None, heights: bool = True, named: Callable[[int], str] = str
) -> Tensor:
    """Points [N, 2] on one scale for both axes, as a picture [3, H, W]; with `labels` [N] in colours and a legend.

    `heights` says whether the vertical axis means something and has numbers. The frame holds all but the outermost
    half percent on each side; those are drawn on its edge.
    """
    from PIL import Image, ImageDraw, ImageFont

    points = points.detach().cpu().to(torch.float64).nan_to_num(0, 0, 0)
    classes = [] if labels is None else labels.unique().tolist()
    colours = dict(zip(classes, palette(len(classes)), strict=True))
    low, high = frame(points)
    font = ImageFont.load_default(LETTERS)
    legend = max((LEGEND + math.ceil(font.getlength(named(name))) for name in classes), default=0)
    width, height = LEFT + SIDE + EDGE + legend, EDGE + SIDE + BELOW
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)

    for axis in (0, 1) if heights else (0,):
        for value in ticks(float(low[axis]), float(high[axis])):
            place = (value - float(low[axis])) / float(high[axis] - low[axis]) * SIDE
            if axis == 0:
                draw.line((LEFT + place, EDGE, LEFT + place, EDGE + SIDE), fill=PALE, width=LINE)
                draw.text((LEFT + place, EDGE + SIDE + 8), f"{value:g}", fill=INK, font=font, anchor="mt")
            else:
                draw.line((LEFT, EDGE + SIDE - place, LEFT + SIDE, EDGE + SIDE - place), fill=PALE, width=LINE)
                draw.text((LEFT - 8, EDGE + SIDE - place), f"{value:g}", fill=INK, font=font, anchor="rm")
    draw.rectangle((LEFT, EDGE, LEFT + SIDE, EDGE + SIDE), outline=INK, width=LINE)

    at = ((points - low) / (high - low)).clamp(0, 1) * SIDE  # [N, 2]
    names = [None] * len(at) if labels is None else labels.tolist()
    for (x, y), name in zip(at.tolist(), names, strict=True):
        x, y = LEFT + x, EDGE + SIDE - y
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=TEN[0] if name is None else colours[name])

    step = min(36.0, SIDE / max(1, len(classes)))
    for row, name in enumerate(classes):
        x, y = LEFT + SIDE + EDGE + 12, EDGE + (row + 0.5) * step
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=colours[name])
        draw.text((x + 18, y), named(name), fill=INK, font=font, anchor="lm")
    return pixels_of(image.tobytes(), (height, width, 3))


def palette(count: int) -> list[Colour]:
    """As many colours as there are classes."""
    if count <= len(TEN):
        return list(TEN[:count])
    wheel = (colorsys.hsv_to_rgb(i / count, 0.9 if i % 2 else 0.6, 0.6 if i % 2 else 0.9) for i in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in wheel]


def frame(points: Tensor) -> tuple[Tensor, Tensor]:
    """The lower left and the upper right corner, [2] each, of a square around nearly all points."""
    outer = torch.quantile(points, torch.tensor([0.005, 0.995], dtype=points.dtype), dim=0)  # [2, 2]
    middle = outer.mean(0)
    half = 0.54 * float((outer[1] - outer[0]).max())
    half = max(half, 1e-6 * float(middle.abs().max())) or 1.0  # all points in one place
    return middle - half, middle + half


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within an interval, three to seven of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
