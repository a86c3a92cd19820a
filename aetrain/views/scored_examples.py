"""Pictures of examples with their scores: images with error maps, vectors with errors by feature, windows as lines.

They are drawn outside of training, and have no view of their own. Shapes: K examples, C channels, H height, W width.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aetrain.views.annotations import Annotations, KeyEntry, PlacedText, Sheet, pixel_key, write_texts
from aetrain.views.bar_panels import FIGURE_FONT_SIZE, FONT_SIZE, LINE_COLOUR, BarList, Panel, draw_panels
from aetrain.views.render import GAP, PAPER, bytes_to_picture, load_font
from aetrain.views.rows import RECONSTRUCTED, TRUE
from aetrain.views.view import Picture, grid_picture

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

NUM_FEATURES = 12  # of an example, those of the largest errors
PLOT_WIDTH, PLOT_HEIGHT, TITLE_HEIGHT = 700, 130, 34  # of the lines of a window, in pixels
PLOT_COLUMNS = 2
MIN_RANGE = 1e-9  # of values that are all alike, to divide by


def image_errors_picture(title: str, x: Tensor, reconstructions: Tensor, labels: Sequence[str]) -> Picture:
    """Return images x [K, C, H, W] above their reconstructions and the absolute error of each pixel.

    The error is the mean over channels. `labels` are the texts above the K columns.
    """
    errors = (reconstructions - x).abs().mean(1, keepdim=True).expand_as(x)
    rows = {"image": x, "reconstruction": reconstructions, "error": errors}
    annotations = Annotations(
        title,
        rows=[*rows],
        columns=labels,
        note="The error of a pixel is the absolute difference between image and reconstruction: black 0, white 1.",
        **pixel_key(x),
    )
    return grid_picture(torch.cat([*rows.values()]), annotations, len(x), [*rows])


def feature_errors_picture(
    title: str,
    errors: Tensor,
    values: Tensor,
    reconstructions: Tensor,
    labels: Sequence[str],
    feature_names: Sequence[str],
) -> Picture:
    """Return a panel for each of K vectors: the features of its largest squared errors [K, D], in the model's units.

    Beside the name of a feature are its value and that of the reconstruction, [K, D] each, in original units. A missing
    value has no error and is left out.
    """
    panels = []
    for row, label in enumerate(labels):
        count = min(NUM_FEATURES, int((~errors[row].isnan()).sum()))
        index = errors[row].nan_to_num(-1.0).topk(count).indices
        names = [
            f"{feature_names[number]}: {values[row, number]:.3g} ({reconstructions[row, number]:.3g})"
            for number in index.tolist()
        ]
        bars = BarList("squared error", names, errors[row, index, None].cpu(), [[RECONSTRUCTED]] * count)
        panels.append(Panel(label, [bars]))
    pixels, sheet = draw_panels(panels)
    note = (
        f"The {NUM_FEATURES} features of the largest squared errors of each example, with their value and, in "
        "brackets, that of the reconstruction. Errors are in the units of the model; each panel has its own scale."
    )
    return Picture(pixels, Annotations(title, note=note), sheet)


def window_errors_picture(
    title: str, x: Tensor, reconstructions: Tensor, labels: Sequence[str], columns: Sequence[str]
) -> Picture:
    """Return the lines of K windows of a series, x [K, C, W] in original units, and of their reconstructions.

    A window has one plot for each of its C columns, on the scale of that column in all K windows.
    """
    from PIL import Image, ImageDraw

    step_x, step_y = PLOT_WIDTH + 4 * GAP, TITLE_HEIGHT + len(columns) * (PLOT_HEIGHT + GAP) + 2 * GAP
    page = Image.new("RGB", (PLOT_COLUMNS * step_x, -(-len(x) // PLOT_COLUMNS) * step_y), PAPER)
    draw, texts = ImageDraw.Draw(page), []
    both = torch.stack([x, reconstructions], dim=2).cpu()  # [K, C, 2, W]
    for number, (window, label) in enumerate(zip(both, labels, strict=True)):
        left, top = number % PLOT_COLUMNS * step_x + 2 * GAP, number // PLOT_COLUMNS * step_y
        texts.append(PlacedText(left, top + TITLE_HEIGHT / 2, label, "lm", size=FIGURE_FONT_SIZE, max_width=PLOT_WIDTH))
        for place, name in enumerate(columns):
            known = both[:, place]
            known = known[~known.isnan()]
            limits = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
            corner = left, top + TITLE_HEIGHT + place * (PLOT_HEIGHT + GAP)
            draw_lines(draw, window[place], corner, limits)
            if len(columns) > 1:
                position = corner[0] + GAP, corner[1] + GAP
                texts.append(PlacedText(*position, name, "lt", size=FIGURE_FONT_SIZE, max_width=PLOT_WIDTH / 2))
    shape = page.height, page.width, 3
    blank = bytes_to_picture(page.tobytes(), shape)
    write_texts(draw, load_font(FONT_SIZE), texts)
    drawn = bytes_to_picture(page.tobytes(), shape)
    key = KeyEntry(TRUE, "window"), KeyEntry(RECONSTRUCTED, "reconstruction")
    note = "Values of the rows of a window, the last row on the right. All windows have one scale."
    return Picture(drawn, Annotations(title, key=key, note=note), Sheet(blank, texts, drawn))


def draw_lines(draw: "ImageDraw", lines: Tensor, corner: tuple[int, int], limits: tuple[float, float]) -> None:
    """Draw a window and its reconstruction, [2, W], in a frame whose upper left corner is `corner` (x, y)."""
    left, top = corner
    draw.rectangle((left, top, left + PLOT_WIDTH, top + PLOT_HEIGHT), outline=LINE_COLOUR)
    low, high = limits
    pixels = (PLOT_HEIGHT - 2 * GAP) / max(high - low, MIN_RANGE)
    step = PLOT_WIDTH / max(1, lines.shape[1] - 1)
    for values, colour in zip(lines.tolist(), (TRUE, RECONSTRUCTED), strict=True):
        points = [
            (left + row * step, top + PLOT_HEIGHT - GAP - (value - low) * pixels) for row, value in enumerate(values)
        ]
        for first, second in itertools.pairwise(points):
            if not (math.isnan(first[1]) or math.isnan(second[1])):
                draw.line((*first, *second), fill=colour, width=2)
