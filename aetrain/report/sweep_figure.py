"""The plots of a sweep over a numeric setting as PNG and SVG files, drawn by matplotlib. Imports no torch."""

import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aetrain.report.labels import short_name
from aetrain.report.metrics import metric_name
from aetrain.report.sweep_plots import Panel, PlotLine, SweepPlot
from aetrain.report.sweep_section import describe_plots, metric_range
from aetrain.storage import atomic
from aetrain.storage.run_directory import display_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("aetrain")

FORMATS = ("png", "svg")
MAX_COLUMNS = 3
PANEL_SIZE = (4.2, 3.0)  # width and height in inches
HEAD, FOOT = 0.7, 0.45  # room above for the title and the key, and below for the note, in inches
DPI = 160
X_PADDING = 0.04  # between the values and the frame, as a share of the axis
COLOURS = ("0072b2", "d55e00", "009e73", "b5479a", "8a6d00", "2aa5d8", "7a4fd0", "c23b5a", "5a7d1f", "6b6b6b")
NEUTRAL = "5d6670"  # PCA of all lines
INK, GRID = "323232", "dfe3e8"


def figure_names(plots: Sequence[SweepPlot], stem: str) -> list[str]:
    """Return the names of the files of plots: `sweep.png` and `sweep.svg`, or `sweep-1.png` and so on of several."""
    stems = [stem] if len(plots) == 1 else [f"{stem}-{number}" for number in range(1, len(plots) + 1)]
    return [f"{name}.{kind}" for name in stems for kind in FORMATS]


def write_figures(plots: Sequence[SweepPlot], folder: Path, stem: str) -> list[Path]:
    """Write the files of plots into a folder and return their paths; matplotlib is imported if there are any."""
    if not plots:
        return []
    from aetrain.views.drawing_parameters import METADATA, drawing_parameters

    files = [folder / name for name in figure_names(plots, stem)]
    with drawing_parameters():
        for number, file in enumerate(files):
            figure = draw_figure(plots[number // len(FORMATS)])
            content = io.BytesIO()
            kind = file.suffix[1:]
            figure.savefig(content, format=kind, dpi=DPI, metadata=METADATA.get(kind))
            atomic.replace(file, content.getvalue())
    log.info("plots:   %s", ", ".join(map(display_path, files)))
    return files


def draw_figure(plot: SweepPlot) -> "Figure":
    """Return the figure of a plot, a panel for each metric."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    columns = min(MAX_COLUMNS, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    width, height = max(2, columns) * PANEL_SIZE[0], rows * PANEL_SIZE[1] + HEAD + FOOT
    rectangle = (0, FOOT / height, 1, 1 - (HEAD + FOOT) / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=rectangle))
    for number, panel in enumerate(plot.panels):
        _draw_panel(figure.add_subplot(rows, columns, number + 1), plot, panel)
    title = f"Metrics of the test data over {plot.key} ({plot.test_set})"
    figure.text(0.01, 1 - 0.1 / height, title, size=13, va="top", color=f"#{INK}", parse_math=False)
    note = describe_plots([plot])
    figure.text(0.01, 0.08 / height, note, size=8.5, va="bottom", color=f"#{INK}", wrap=True, parse_math=False)
    handles = [
        Line2D([], [], color=_colour(number), marker="o", markersize=4, label=label) for label, number in plot.labels
    ]
    if plot.has_pca:
        handles.append(Line2D([], [], color=f"#{NEUTRAL}", linestyle="--", label="PCA"))
    if handles:
        place = (0.0, 1 - 0.34 / height)
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, ncols=6, fontsize=9, frameon=False)
    return figure


def _colour(number: int | None) -> str:
    return f"#{NEUTRAL if number is None else COLOURS[number % len(COLOURS)]}"


def _draw_panel(axes: "Axes", plot: SweepPlot, panel: Panel) -> None:
    """Draw the lines of a metric with their bands, ticks at the values of the setting."""
    for line in panel.lines:
        _draw_line(axes, plot, line)
    limits, is_log = metric_range(panel)
    if is_log:
        axes.set_yscale("log")
    axes.set_ylim(*limits)
    low, high = plot.axis.ends
    padding = X_PADDING * (high - low)
    axes.set_xlim(low - padding, high + padding)
    places, labels = zip(*plot.axis.ticks, strict=True)
    axes.set_xticks(places, labels, parse_math=False)
    axes.minorticks_off()
    axes.set_title(metric_name(panel.tag), size=11, loc="left", color=f"#{INK}", parse_math=False)
    axes.set_xlabel(short_name(plot.key), size=9, color=f"#{INK}", parse_math=False)
    axes.tick_params(labelsize=8, colors=f"#{INK}")
    axes.grid(True, color=f"#{GRID}")
    axes.set_axisbelow(True)


def _draw_line(axes: "Axes", plot: SweepPlot, line: PlotLine) -> None:
    places = [plot.axis.position(point.x) for point in line.points]
    colour = _colour(line.number)
    if not line.is_pca:
        lows, highs = ([getattr(point, end) for point in line.points] for end in ("low", "high"))
        axes.fill_between(places, lows, highs, color=colour, alpha=0.16, linewidth=0)
    style = "--" if line.is_pca else "-"
    means = [point.mean for point in line.points]
    axes.plot(places, means, style, color=colour, marker="" if line.is_pca else "o", markersize=4, linewidth=1.6)
