"""The figures of points, of histograms and of learning curves. Lengths are units of the page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from aetrain.views.annotations import (
    Annotations,
    CurvePanel,
    Curves,
    Distributions,
    FigureOptions,
    KeyEntry,
    PointCloud,
    RateLoss,
)
from aetrain.views.page import (
    DPI,
    LABEL_SIZE,
    LINE_SPACING,
    MARGIN,
    NOTE_SIZE,
    SWATCH,
    WIDTH,
    Page,
    as_fractions,
    shorten,
    text_width,
)
from aetrain.views.render import INK, RGB
from aetrain.views.scatter import GRID_LINE_COLOUR, TEN_COLOURS, frame_corners, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_SIDE = 1100  # of the frame around points
PAIR_SIDE = 800  # of each of two frames side by side
LEFT, BELOW = 120, 90  # room for the numbers and the name of an axis
PANEL_HEIGHT, PANEL_TOP = 330, 50  # of the plot in a panel, and of the room for the panel's title
PANEL_GAP = 30  # between two panels
MAX_PANEL_COLUMNS = 3
MAX_KEY_ROWS = 28  # of the key of classes
MAX_MARKERS = 40  # epochs of a curve that are marked
BINS = 60  # number of bars in a histogram
MIN_LOG_RATIO = 30  # of the largest to the smallest value of a logarithmic axis
DOT_AREA = 28  # area of a dot in a scatter plot, in square points
LINE_WIDTH = 2.0  # in points


def draw_points(cloud: PointCloud, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of points in a square, with one scale for both axes and a key of the classes at its right.

    The cloud beside it, if there is one, has a square of its own.
    """
    clouds = [cloud] if cloud.beside is None else [cloud, cloud.beside]
    side = POINTS_SIDE if len(clouds) == 1 else PAIR_SIDE
    top = LINE_SPACING * LABEL_SIZE if cloud.title else 0.0
    names = [shorten(name) for name in cloud.class_names]
    key_rows = MAX_KEY_ROWS * side // POINTS_SIDE
    key_columns = math.ceil(len(names) / key_rows)
    key_step = 2 * SWATCH + max((text_width(name, NOTE_SIZE) for name in names), default=0)
    width = len(clouds) * (LEFT + side + MARGIN) + key_columns * key_step
    page = Page(annotations, options, width, top + side + BELOW)
    for number, part in enumerate(clouds):
        box = page.content_left + LEFT + number * (LEFT + side + MARGIN), page.content_top + top, side, side
        if part.title:
            page.add_text(box[0], page.content_top, part.title, LABEL_SIZE, "lt")
        draw_cloud(page.add_axes(box), part, part.axes or (annotations.x_axis, annotations.y_axis))
    key_left = page.content_left + len(clouds) * (LEFT + side + MARGIN)
    if names:
        page.add_text(key_left, page.content_top, "class", NOTE_SIZE, "lt")
    for number, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True)):
        column, row = divmod(number, key_rows)
        left = key_left + column * key_step
        page.add_key_entry(KeyEntry(colour, name), left, page.content_top + (row + 1) * LINE_SPACING * SWATCH)
    return page


def draw_cloud(axes: "Axes", cloud: PointCloud, axis_names: tuple[str, str]) -> None:
    """Draw the points of a cloud in the colours of their classes."""
    points = cloud.points.detach().cpu().to(torch.float64).nan_to_num(0, 0, 0)
    labels = torch.zeros(len(points)) if cloud.labels is None else cloud.labels.cpu()
    classes = labels.unique()
    low, high = frame_corners(points)
    axes.set(xlim=(float(low[0]), float(high[0])), ylim=(float(low[1]), float(high[1])))
    for label, colour in zip(classes, palette(len(classes)), strict=True):
        x, y = points[labels == label].clamp(low, high).t().numpy()
        axes.scatter(x, y, s=DOT_AREA, color=as_fractions(colour), linewidths=0, clip_on=False)
    style_axes(axes, *axis_names)
    if not cloud.has_y_ticks:
        axes.set_yticks([])


def draw_distributions(distributions: Distributions, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of histograms, one panel for each set of numbers."""
    page, all_axes = make_panels(list(distributions.values), annotations, options)
    for axes, values in zip(all_axes, distributions.values.values(), strict=True):
        numbers = values.detach().cpu().to(torch.float64)
        low, high = float(numbers.min()), float(numbers.max())
        if not high > low:  # such as of a dead layer
            low, high = low - 0.5, high + 0.5
        counts, edges = np.histogram(numbers.numpy(), bins=BINS, range=(low, high))
        axes.stairs(counts, edges, fill=True, color=as_fractions(TEN_COLOURS[0]))
        axes.set_ylim(0, 1.05 * max(1, counts.max()))
        axes.set_xlim(low, high)
        style_axes(axes, annotations.x_axis, annotations.y_axis)
    return page


def draw_curves(curves: Curves, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of learning curves, one panel for each metric; the colours of splits are in the key."""
    splits = list(dict.fromkeys(split for panel in curves.panels for split in panel.curves))
    colours = dict(zip(splits, palette(len(splits)), strict=True))
    key = [KeyEntry(colour, split) for split, colour in colours.items()]
    page, all_axes = make_panels([panel.metric for panel in curves.panels], replace(annotations, key=key), options)
    for axes, panel in zip(all_axes, curves.panels, strict=True):
        draw_panel(axes, panel, colours)
        if curves.best_epoch is not None:
            axes.axvline(curves.best_epoch, color=as_fractions(INK), linewidth=LINE_WIDTH / 2, linestyle=":")
        style_axes(axes, annotations.x_axis, panel.unit)
    return page


def draw_panel(axes: "Axes", panel: CurvePanel, colours: Mapping[str, RGB]) -> None:
    """Draw the curves of a metric; on a logarithmic axis where the largest value is many times the smallest."""
    from matplotlib.ticker import MaxNLocator

    for split, points in panel.curves.items():
        marker = "o" if len(points) <= MAX_MARKERS else ""
        axes.plot(*zip(*points, strict=True), color=as_fractions(colours[split]), linewidth=LINE_WIDTH, marker=marker)
    values = [value for points in panel.curves.values() for _, value in points]
    if min(values) > 0 and max(values) / min(values) >= MIN_LOG_RATIO:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def draw_rate_loss(test: RateLoss, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of a range test: the loss against the rate, on a logarithmic axis, and the suggested rate.

    The axis of losses ends a little above the smoothed loss at the first rate, below a divergence.
    """
    height = 2 * PANEL_HEIGHT
    page = Page(annotations, options, WIDTH - 2 * MARGIN, height + BELOW)
    axes = page.add_axes((page.content_left + LEFT, page.content_top, WIDTH - 2 * MARGIN - LEFT - PANEL_GAP, height))
    colour = as_fractions(TEN_COLOURS[0])
    axes.scatter(test.rates, test.losses, s=DOT_AREA / 2, color=colour, alpha=0.4, linewidths=0)
    axes.plot(test.rates, test.smoothed, color=colour, linewidth=LINE_WIDTH)
    axes.set_xscale("log")
    low, first = min(test.smoothed), test.smoothed[0]
    room = max(first - low, 0.1 * abs(first))
    axes.set_ylim(low - 0.2 * room, max(first, low) + 0.5 * room)
    if test.suggestion is not None:
        axes.axvline(test.suggestion, color=as_fractions(INK), linewidth=LINE_WIDTH / 2, linestyle=":")
        axes.annotate(
            f" {test.suggestion:g}",
            (test.suggestion, 0.97),
            xycoords=("data", "axes fraction"),
            va="top",
            size=NOTE_SIZE * 72 / DPI,
            color=as_fractions(INK),
        )
    style_axes(axes, annotations.x_axis, annotations.y_axis)
    return page


def make_panels(titles: Sequence[str], annotations: Annotations, options: FigureOptions) -> tuple[Page, list["Axes"]]:
    """Return a page and the axes of its panels, row by row, each with its title."""
    columns = min(MAX_PANEL_COLUMNS, math.ceil(math.sqrt(len(titles))))
    rows = math.ceil(len(titles) / columns)
    step_x = (WIDTH - 2 * MARGIN + PANEL_GAP) / columns
    step_y = PANEL_TOP + PANEL_HEIGHT + BELOW
    page = Page(annotations, options, WIDTH - 2 * MARGIN, rows * step_y)
    all_axes = []
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        left, top = page.content_left + column * step_x, page.content_top + row * step_y
        page.add_text(left + LEFT, top + PANEL_TOP / 2, shorten(title), LABEL_SIZE, "lm")
        all_axes.append(page.add_axes((left + LEFT, top + PANEL_TOP, step_x - LEFT - PANEL_GAP, PANEL_HEIGHT)))
    return page, all_axes


def style_axes(axes: "Axes", x_name: str, y_name: str) -> None:
    """Write the names of the axes and draw their numbers and grid lines."""
    size = NOTE_SIZE * 72 / DPI
    axes.tick_params(labelsize=size, colors=as_fractions(INK))
    axes.set_xlabel(x_name, size=size, color=as_fractions(INK), parse_math=False)
    axes.set_ylabel(y_name, size=size, color=as_fractions(INK), parse_math=False)
    axes.grid(True, color=as_fractions(GRID_LINE_COLOUR))
    axes.set_axisbelow(True)
