"""Learning curves as SVG: means over seeds with bands, and a mark wherever a curve leaves its chart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from aetrain.report.charts import (
    MARGIN_LEFT,
    MARGIN_TOP,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    Axes,
    Point,
    colour_class,
    draw_chart,
    points_json,
)
from aetrain.report.html import Html, el
from aetrain.report.numbers import format_number

MAX_LOG_RATIO = 1e4  # of the largest value to the smallest one; with more, a logarithmic axis would flatten all curves

# Size of a mark, and the space between the labels of two marks, in SVG units.
MARK_SIZE = 5
LABEL_GAP = 80

Band = Sequence[tuple[float, float, float]]  # x, minimum and maximum over seeds


@dataclass(frozen=True)
class Line:
    """A curve of one group."""

    name: str
    group_number: int
    points: Sequence[Point]
    band: Band = ()
    dashed: bool = False
    best: Sequence[Point] = ()  # the best epoch of each run


@dataclass(frozen=True)
class Mark:
    """A triangle at the edge of a chart, where a curve is outside, and the value that is farthest outside."""

    x: float
    y: float
    is_above: bool


def draw_curves(name: str, lines: Sequence[Line], clip_id: str) -> Html:
    """Return a chart of curves over epochs.

    Epoch 0, the untrained model, is left out if more than one epoch follows: it would flatten the curves. The axis is
    logarithmic where curves would leave a linear one and their values are positive and within MAX_LOG_RATIO.
    """
    longest = max((len(line.points) for line in lines), default=0)
    if longest > 2:
        lines = [_without_epoch_0(line) for line in lines]
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in (*line.points, *line.best)]  # a run may be best after the end of the mean
    y, is_log = _y_axis(lines)
    x = (min(xs), max(max(xs), min(xs) + 1))
    axes = Axes(x, y, "epoch", "logarithmic axis" if is_log else "", integer_x=True, log_y=is_log)
    label_xs: dict[bool, list[float]] = {True: [], False: []}  # of the marks above and below
    shapes = [_curve(axes, line, label_xs) for line in lines]
    return draw_chart(axes, f"{name} over epochs", shapes, clip_id, ("epoch", name))


def _without_epoch_0(line: Line) -> Line:
    points = [point for point in line.points if point[0] > 0]
    band = [part for part in line.band if part[0] > 0]
    return replace(line, points=points, band=band, best=[point for point in line.best if point[0] > 0])


def _curve(axes: Axes, line: Line, label_xs: dict[bool, list[float]]) -> Html:
    """Return a curve with its tooltip, its band over seeds, its marks, and a dot at its end unless it is dashed."""
    name = f"{line.name}, train" if line.dashed else line.name
    shapes = [el("title", name)]
    if len(line.band) > 1:
        upper = [(x, high) for x, _, high in line.band]
        lower = [(x, low) for x, low, _ in reversed(line.band)]
        shapes.append(el("path", class_="band", d=axes.path(upper + lower, closed=True)))
    if len(line.points) > 1:
        shapes.append(el("path", class_="line dashed" if line.dashed else "line", d=axes.path(line.points)))
    if not line.dashed:
        x, y = axes.position(*line.points[-1])
        shapes.append(el("circle", class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6))
    for point in line.best:
        x, y = axes.position(*point)
        title = el("title", f"{name}, best epoch {point[0]:g}: {format_number(point[1])}")
        shapes.append(el("circle", title, class_="best-epoch", cx=f"{x:.1f}", cy=f"{y:.1f}", r=5))
    for mark in find_marks(axes, line):
        shapes += _draw_mark(axes, mark, name, label_xs[mark.is_above])
    attributes = {"data_group": line.group_number, "data_name": name, "data_points": points_json(line.points)}
    return el("g", *shapes, class_=colour_class(line.group_number), **attributes)


# --- Axes and marks ---------------------------------------------------------------------------------------------------


def _y_axis(lines: Sequence[Line]) -> tuple[tuple[float, float], bool]:
    """Return the range of y, and whether it is logarithmic."""
    low, high = y_range(lines)
    values = _values(lines)
    if low <= min(values) and max(values) <= high:
        return (low, high), False
    smallest, largest = min(values), max(values)
    if smallest > 0 and largest / smallest <= MAX_LOG_RATIO:
        return (smallest / 1.1, largest * 1.1), True
    return (low, high), False


def y_range(lines: Sequence[Line]) -> tuple[float, float]:
    """Return the range of y that shows all values but those far from the median end, such as of a diverged run."""
    values = _values(lines)
    ends = sorted(line.points[-1][1] for line in lines)
    median = ends[(len(ends) - 1) // 2]
    max_distance = max(3 * abs(median), 1e-9)
    near = [value for value in values if abs(value - median) <= max_distance] or [median]
    low, high = min(near), max(near)
    padding = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.25 * high else low - padding), high + padding


def _values(lines: Sequence[Line]) -> list[float]:
    """Return all values of curves, bands and best epochs."""
    values = []
    for line in lines:
        values += [y for _, y in (*line.points, *line.best)]
        for _, low, high in line.band:
            values += [low, high]
    return values


def find_marks(axes: Axes, line: Line) -> list[Mark]:
    """Return the marks of a curve, one for each stretch of epochs outside the chart, and of its band elsewhere.

    A mark is at the farthest value, or at the last one where the curve ends outside.
    """
    bands = [[(x, low) for x, low, _ in line.band], [(x, high) for x, _, high in line.band]]
    marks: list[Mark] = []
    for points in (line.points, *bands):
        outside_xs = {mark.x for mark in marks}
        own = list(_marks_of(axes, points))
        marks += [mark for mark in own if mark.x not in outside_xs]
    return marks


def _marks_of(axes: Axes, points: Sequence[Point]) -> Iterator[Mark]:
    low, high = axes.y
    for side, stretch in groupby(points, lambda point: (point[1] > high) - (point[1] < low)):
        if side:
            outside = list(stretch)
            ends_outside = outside[-1] == points[-1]
            x, y = outside[-1] if ends_outside else max(outside, key=lambda point: side * point[1])
            yield Mark(x, y, side > 0)


def _draw_mark(axes: Axes, mark: Mark, name: str, label_xs: list[float]) -> Iterator[Html]:
    """Yield a triangle that points out of the chart and, where there is space, its value."""
    x, _ = axes.position(mark.x, axes.y[0])
    x = min(max(x, MARGIN_LEFT + MARK_SIZE), MARGIN_LEFT + PLOT_WIDTH - MARK_SIZE)
    edge, inwards = (MARGIN_TOP, 1) if mark.is_above else (MARGIN_TOP + PLOT_HEIGHT, -1)
    base = edge + inwards * 1.6 * MARK_SIZE
    value = format_number(mark.y)
    title = el("title", f"{name}, epoch {mark.x:g}: {value}, outside the chart")
    triangle = f"M{x:.1f},{edge}L{x - MARK_SIZE:.1f},{base}L{x + MARK_SIZE:.1f},{base}Z"
    yield el("path", title, class_="mark", d=triangle)
    if all(abs(x - other) >= LABEL_GAP for other in label_xs):
        label_xs.append(x)
        class_, offset = "label", MARK_SIZE + 3
        if x > MARGIN_LEFT + PLOT_WIDTH - LABEL_GAP:
            class_, offset = "label end", -MARK_SIZE - 3
        yield el("text", value, class_=class_, x=f"{x + offset:.1f}", y=f"{edge + inwards * 10:.1f}")
