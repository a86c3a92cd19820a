"""The plots of a sweep over a numeric setting on the page, as SVG."""

import json
from collections.abc import Sequence

from aetrain.report.charts import Axes, colour_class, draw_chart
from aetrain.report.groups import RunGroup
from aetrain.report.html import Html, el, section
from aetrain.report.labels import short_name
from aetrain.report.metrics import describe_metric, metric_name
from aetrain.report.sweep_plots import Panel, PlotLine, SweepPlot

X_PADDING, Y_PADDING = 0.04, 0.08  # between the values and the frame, as shares of the axis
MIN_LOG_RATIO = 30  # of the largest to the smallest value of a logarithmic axis of a metric
DOT_RADIUS = 4


def sweep_section(plots: Sequence[SweepPlot], groups: Sequence[RunGroup], file_names: Sequence[str]) -> Html | None:
    """Return the charts of all plots; `file_names` are those of the same plots as files, beside the page."""
    if not plots:
        return None
    blocks = []
    for number, plot in enumerate(plots):
        charts = [_chart(panel, plot, groups, f"clip-sweep-{number}-{i}") for i, panel in enumerate(plot.panels)]
        heading = el("h3", plot.test_set) if len(plots) > 1 else None
        blocks.append(el("div", heading, _legend(plot), el("div", *charts, class_="charts small")))
    note = el("p", describe_plots(plots), " As files: ", _links(file_names), ".")
    return section(
        f"Metrics over {plots[0].key}" if len(plots) == 1 else "Metrics over a setting", "sweep", *blocks, note
    )


def describe_plots(plots: Sequence[SweepPlot]) -> str:
    """Return sentences about the points, the bands and the axes of plots."""
    sentences = ["Each point is a run."]
    if any(plot.has_bands for plot in plots):
        sentences = ["Points are means over seeds, bands reach from the lowest to the highest."]
    if any(plot.axis.is_log for plot in plots):
        sentences.append("The axis of the setting is logarithmic, as its values are spaced.")
        if any(plot.axis.is_log and plot.axis.values[0] == 0 for plot in plots):
            sentences.append("Zero is at its left end.")
    if any(plot.has_pca for plot in plots):
        sentences.append("Dashed: PCA with as many components as the code has units.")
    return " ".join(sentences)


def _links(file_names: Sequence[str]) -> list[Html | str]:
    links: list[Html | str] = []
    for name in file_names:
        links += [", ", el("a", name, href=name)]
    return links[1:]


def _legend(plot: SweepPlot) -> Html | None:
    if not plot.labels:
        return None
    entries = [
        el("span", el("i", class_=f"swatch {colour_class(number)}"), label, class_="entry")
        for label, number in plot.labels
    ]
    return el("div", *entries, class_="legend")


def metric_range(panel: Panel) -> tuple[tuple[float, float], bool]:
    """Return the range of a panel's metric with its padding, and whether its axis is logarithmic."""
    values = [value for line in panel.lines for point in line.points for value in (point.low, point.high)]
    low, high = min(values), max(values)
    if low > 0 and high >= MIN_LOG_RATIO * low:
        return (low / 1.2, high * 1.2), True
    padding = Y_PADDING * (high - low) or 0.1 * abs(high) or 1.0
    return (low - padding, high + padding), False


def _chart(panel: Panel, plot: SweepPlot, groups: Sequence[RunGroup], clip_id: str) -> Html:
    """Return the chart of a metric with its caption."""
    y, is_log = metric_range(panel)
    low, high = plot.axis.ends
    padding = X_PADDING * (high - low)
    name = short_name(plot.key)
    axes = Axes((low - padding, high + padding), y, name, log_y=is_log, x_ticks=plot.axis.ticks)
    label = metric_name(panel.tag)
    shapes = [_draw_line(axes, plot, line, label) for line in panel.lines]
    caption = el("figcaption", el("b", label), f" {describe_metric(panel.tag, groups)}")
    return el("figure", caption, draw_chart(axes, f"{label} over {name}", shapes, clip_id, (name, label)))


def _draw_line(axes: Axes, plot: SweepPlot, line: PlotLine, metric: str) -> Html:
    """Return a line with its band and its dots; PCA's is dashed and has none."""
    place = plot.axis.position
    points = [(place(point.x), point.mean) for point in line.points]
    shapes = []
    if not line.is_pca and any(point.high > point.low for point in line.points):
        upper = [(place(point.x), point.high) for point in line.points]
        lower = [(place(point.x), point.low) for point in reversed(line.points)]
        shapes.append(el("path", class_="band", d=axes.path(upper + lower, closed=True)))
    if len(points) > 1:
        shapes.append(el("path", class_="line dashed" if line.is_pca else "line", d=axes.path(points)))
    for x, y in [] if line.is_pca and len(points) > 1 else [axes.position(*point) for point in points]:
        shapes.append(el("circle", class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=DOT_RADIUS))
    name = " ".join(filter(None, ["PCA" if line.is_pca else "", line.label])) or metric
    labelled = [
        [float(f"{x:.6g}"), float(f"{y:.6g}"), f"{point.x:g}"]
        for (x, y), point in zip(points, line.points, strict=True)
    ]
    class_ = "neutral" if line.number is None else colour_class(line.number)
    return el("g", *shapes, class_=class_, data_name=name, data_points=json.dumps(labelled))
