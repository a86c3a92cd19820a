"""Charts as SVG inside the page: axes, and rate against distortion."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aetrain.report.html import Html, el
from aetrain.report.numbers import log_tick_values, tick_label, tick_values

# Sizes of a chart and of its margins, in SVG units.
WIDTH, HEIGHT = 480, 280
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 56, 14, 12, 40
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - MARGIN_LEFT - MARGIN_RIGHT, HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
CLIP_MARGIN = 4  # curves may leave the plot by this much above and below
LETTER_WIDTH, LINE_HEIGHT = 7, 13  # approximate size of the text of a label, in units of the SVG

NUM_COLOURS = 10  # colours in the page's style; group 10 has the colour of group 0 again

Point = tuple[float, float]


@dataclass(frozen=True)
class Scatter:
    """The runs of one group as points."""

    name: str
    group_number: int
    points: Sequence[tuple[float, float, str]]  # x, y, tooltip

    @property
    def mean_y(self) -> float:
        """The mean of the points' y."""
        return math.fsum(y for _, y, _ in self.points) / len(self.points)


def colour_class(group_number: int) -> str:
    """Return the CSS class with the colour of a group."""
    return f"c{group_number % NUM_COLOURS}"


@dataclass(frozen=True)
class Axes:
    """The ranges of the data, and their map to SVG coordinates."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str = ""
    integer_x: bool = False  # x counts something: ticks are integers only
    log_y: bool = False  # y is logarithmic
    x_ticks: Sequence[tuple[float, str]] | None = None  # places and labels of ticks; None for round numbers

    def position(self, x: float, y: float) -> Point:
        """Return the SVG coordinates of a point."""
        right = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        low, high, value = self._scaled(self.y[0]), self._scaled(self.y[1]), self._scaled(y)
        up = (value - low) / ((high - low) or 1)
        return MARGIN_LEFT + right * PLOT_WIDTH, MARGIN_TOP + (1 - up) * PLOT_HEIGHT

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log_y else y

    @property
    def as_json(self) -> str:
        """The map from data to SVG coordinates for the page's script, which repeats `position`."""
        plot = {"left": MARGIN_LEFT, "top": MARGIN_TOP, "width": PLOT_WIDTH, "height": PLOT_HEIGHT}
        return json.dumps({**plot, "x": self.x, "y": self.y, "log": self.log_y})

    def path(self, points: Sequence[Point], closed: bool = False) -> str:
        """Return the path data (attribute `d`) of a line through points."""
        positions = [self.position(*point) for point in points]
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in positions) + "Z" * closed

    def frame(self) -> Iterator[Html]:
        """Yield grid lines, ticks and names of the axes."""
        yield from self._y_ticks()
        yield from self._x_ticks()
        yield el("text", self.x_name, class_="axis end", x=WIDTH - MARGIN_RIGHT, y=HEIGHT - 6)
        if self.y_name:
            yield el("text", self.y_name, class_="axis", x=MARGIN_LEFT, y=HEIGHT - 6)

    def _y_ticks(self) -> Iterator[Html]:
        for value in log_tick_values(*self.y) if self.log_y else tick_values(*self.y):
            left, y = self.position(self.x[0], value)
            yield el("line", class_="grid", x1=left, x2=WIDTH - MARGIN_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")
            yield el("text", tick_label(value), class_="tick end", x=left - 7, y=f"{y + 4:.1f}")

    def _x_ticks(self) -> Iterator[Html]:
        for value, label in self.x_ticks or [(value, tick_label(value)) for value in tick_values(*self.x, count=8)]:
            if self.integer_x and value != round(value):
                continue
            x, bottom = self.position(value, self.y[0])
            yield el("line", class_="grid", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=bottom, y2=bottom + 4)
            yield el("text", label, class_="tick middle", x=f"{x:.1f}", y=bottom + 17)


def draw_chart(axes: Axes, name: str, shapes: Sequence[Html], clip_id: str, value_names: tuple[str, str]) -> Html:
    """Return a chart as an SVG element. Shapes are clipped to the plot; `clip_id` must be unique on the page.

    `value_names` are those of x and y of a point, which the page's script shows beside it.
    """
    top, height = MARGIN_TOP - CLIP_MARGIN, PLOT_HEIGHT + 2 * CLIP_MARGIN
    rectangle = el("rect", x=MARGIN_LEFT, y=top, width=PLOT_WIDTH, height=height)
    clip = el("clipPath", rectangle, id=clip_id)
    clipped = el("g", *shapes, clip_path=f"url(#{clip_id})")
    label = f"{name}; arrow keys show the values"
    names = json.dumps(value_names)
    attributes = {"role": "img", "aria_label": label, "tabindex": "0", "data_axes": axes.as_json, "data_names": names}
    return el("svg", clip, list(axes.frame()), clipped, viewBox=f"0 0 {WIDTH} {HEIGHT}", **attributes)


def points_json(points: Sequence[Point]) -> str:
    """Return points with six significant digits for the page's script."""
    return json.dumps([[float(f"{x:.6g}"), float(f"{y:.6g}")] for x, y in points], separators=(",", ":"))


# --- Rate against distortion ------------------------------------------------------------------------------------------


def draw_rate_distortion(groups: Sequence[Scatter], clip_id: str) -> Html:
    """Return a chart of each run's KL and the rest of its -ELBO. On a diagonal the sum of the two is constant."""
    xs = [x for scatter in groups for x, _, _ in scatter.points]
    ys = [y for scatter in groups for _, y, _ in scatter.points]
    x_padding, y_padding = _padding(xs), _padding(ys)
    axes = Axes(
        (max(0.0, min(xs) - x_padding), max(xs) + 2.5 * x_padding),
        (min(ys) - y_padding, max(ys) + y_padding),
        "across, rate: KL, nats",
        "up, distortion: -ELBO less KL, nats",
    )
    label_ys: list[float] = []
    shapes = [*_diagonals(axes), *(_dots(axes, scatter, label_ys) for scatter in groups)]
    return draw_chart(axes, "rate against distortion", shapes, clip_id, ("rate", "distortion"))


def _padding(values: Sequence[float]) -> float:
    """Return the space between the values and the frame."""
    return 0.08 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 1.0


def _diagonals(axes: Axes) -> Iterator[Html]:
    """Yield lines of equal -ELBO, with a label where the lower end of a line is inside the frame."""
    (left, right), (low, high) = axes.x, axes.y
    for total in tick_values(left + low, right + high, 7):
        yield el("path", class_="diagonal", d=axes.path([(left, total - left), (right, total - right)]))
        label_x = min(right, total - low)
        if left < label_x <= right and total - label_x <= high:
            x, y = axes.position(label_x, total - label_x)
            yield el("text", tick_label(total), class_="tick end", x=f"{x - 3:.1f}", y=f"{y - 5:.1f}")


def _dots(axes: Axes, scatter: Scatter, label_ys: list[float]) -> Html:
    """Return the dots of a group with its name beside them: on the right, or on the left where it would not fit.

    `label_ys` are the places of the names before it, which it does not cover.
    """
    shapes = []
    for x_value, y_value, tooltip in scatter.points:
        x, y = axes.position(x_value, y_value)
        shapes.append(el("circle", el("title", tooltip), class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4))
    xs = [x for x, _, _ in scatter.points]
    left, _ = axes.position(min(xs), 0)
    right, y = axes.position(max(xs), scatter.mean_y)
    x, class_ = right + 9, "label"
    if x + LETTER_WIDTH * len(scatter.name) > WIDTH - MARGIN_RIGHT:
        x, class_ = left - 9, "label end"
    while y < HEIGHT and any(abs(y - other) < LINE_HEIGHT for other in label_ys):
        y += LINE_HEIGHT
    if y < HEIGHT:  # of many names, only so many fit beside each other
        label_ys.append(y)
        shapes.append(el("text", scatter.name, class_=class_, x=f"{x:.1f}", y=f"{y + 4:.1f}"))
    points = points_json([(x, y) for x, y, _ in scatter.points])
    number = scatter.group_number
    attributes = {"data_group": number, "data_name": scatter.name, "data_points": points}
    return el("g", *shapes, class_=colour_class(number), **attributes)
