"""Charts as SVG inside the page: learning curves, and rate against distortion."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from aetrain.report.html import Html, el

# Sizes of a chart and of its margins, in SVG units.
WIDTH, HEIGHT = 560, 300
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 56, 14, 12, 40
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - MARGIN_LEFT - MARGIN_RIGHT, HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
CLIP_MARGIN = 4  # curves may leave the plot by this much above and below
LETTER_WIDTH = 7  # of a label, approximately

NUM_COLOURS = 10  # colours in the page's style; group 10 has the colour of group 0 again

MAX_PLAIN_NUMBER = 1e6  # from here on, numbers are written with an exponent
MIN_PLAIN_NUMBER = 1e-4  # below it, too
MAX_DECIMALS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of one group."""

    name: str
    group_number: int
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()  # x, minimum and maximum over seeds
    dashed: bool = False


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


def tick_values(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    raw_step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw_step))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw_step * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def format_number(value: float) -> str:
    """Return a number with four significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= MAX_PLAIN_NUMBER or abs(value) < MIN_PLAIN_NUMBER:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, MAX_DECIMALS)}f}"


def tick_label(value: float) -> str:
    """Return the label of a tick: `2,000`, `0.5`, `1e-05`."""
    plain = value == 0 or MIN_PLAIN_NUMBER <= abs(value) < MAX_PLAIN_NUMBER
    return f"{value:,.10g}" if plain else f"{value:.0e}"


@dataclass(frozen=True)
class Axes:
    """The ranges of the data, and their map to SVG coordinates."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str = ""
    integer_x: bool = False  # x counts something: ticks are integers only
    _width: float = field(default=PLOT_WIDTH, init=False)
    _height: float = field(default=PLOT_HEIGHT, init=False)

    def position(self, x: float, y: float) -> Point:
        """Return the SVG coordinates of a point."""
        right = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return MARGIN_LEFT + right * self._width, MARGIN_TOP + (1 - up) * self._height

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
        for value in tick_values(*self.y):
            left, y = self.position(self.x[0], value)
            yield el("line", class_="grid", x1=left, x2=WIDTH - MARGIN_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")
            yield el("text", tick_label(value), class_="tick end", x=left - 7, y=f"{y + 4:.1f}")

    def _x_ticks(self) -> Iterator[Html]:
        for value in tick_values(*self.x, count=8):
            if self.integer_x and value != round(value):
                continue
            x, bottom = self.position(value, self.y[0])
            yield el("line", class_="grid", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=bottom, y2=bottom + 4)
            yield el("text", tick_label(value), class_="tick middle", x=f"{x:.1f}", y=bottom + 17)


def draw_chart(axes: Axes, name: str, shapes: Sequence[Html], clip_id: str) -> Html:
    """Return a chart as an SVG element. Shapes are clipped to the plot; `clip_id` must be unique on the page."""
    top, height = MARGIN_TOP - CLIP_MARGIN, PLOT_HEIGHT + 2 * CLIP_MARGIN
    rectangle = el("rect", x=MARGIN_LEFT, y=top, width=PLOT_WIDTH, height=height)
    clip = el("clipPath", rectangle, id=clip_id)
    clipped = el("g", *shapes, clip_path=f"url(#{clip_id})")
    return el("svg", clip, list(axes.frame()), clipped, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=name)


# --- Learning curves --------------------------------------------------------------------------------------------------


def draw_curves(name: str, lines: Sequence[Line], clip_id: str) -> Html:
    """Return a chart of curves over epochs.

    Epoch 0, the untrained model, is left out if more than one epoch follows: it would flatten the curves.
    """
    longest = max((len(line.points) for line in lines), default=0)
    if longest > 2:
        lines = [_without_epoch_0(line) for line in lines]
    xs = [x for line in lines for x, _ in line.points]
    axes = Axes((min(xs), max(max(xs), min(xs) + 1)), y_range(lines), "epoch", integer_x=True)
    return draw_chart(axes, f"{name} over epochs", [_curve(axes, line) for line in lines], clip_id)


def _without_epoch_0(line: Line) -> Line:
    points = [point for point in line.points if point[0] > 0]
    band = [part for part in line.band if part[0] > 0]
    return replace(line, points=points, band=band)


def _curve(axes: Axes, line: Line) -> Html:
    """Return a curve with its tooltip, its band over seeds, and a dot at its end unless it is dashed."""
    shapes = [el("title", f"{line.name}, train" if line.dashed else line.name)]
    if len(line.band) > 1:
        upper = [(x, high) for x, _, high in line.band]
        lower = [(x, low) for x, low, _ in reversed(line.band)]
        shapes.append(el("path", class_="band", d=axes.path(upper + lower, closed=True)))
    if len(line.points) > 1:
        shapes.append(el("path", class_="line dashed" if line.dashed else "line", d=axes.path(line.points)))
    if line.points and not line.dashed:
        x, y = axes.position(*line.points[-1])
        shapes.append(el("circle", class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6))
    return el("g", *shapes, class_=colour_class(line.group_number), data_group=line.group_number)


def y_range(lines: Sequence[Line]) -> tuple[float, float]:
    """Return the range of y that shows all values but those far from the median end, such as of a diverged run."""
    values = []
    for line in lines:
        values += [y for _, y in line.points]
        for _, low, high in line.band:
            values += [low, high]
    ends = sorted(line.points[-1][1] for line in lines if line.points)
    median = ends[(len(ends) - 1) // 2]
    max_distance = max(3 * abs(median), 1e-9)
    near = [value for value in values if abs(value - median) <= max_distance] or [median]
    low, high = min(near), max(near)
    padding = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.25 * high else low - padding), high + padding


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
    shapes = [*_diagonals(axes), *(_dots(axes, scatter) for scatter in groups)]
    return draw_chart(axes, "rate against distortion", shapes, clip_id)


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


def _dots(axes: Axes, scatter: Scatter) -> Html:
    """Return the dots of a group with its name beside them: on the right, or on the left where it would not fit."""
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
    shapes.append(el("text", scatter.name, class_=class_, x=f"{x:.1f}", y=f"{y + 4:.1f}"))
    return el("g", *shapes, class_=colour_class(scatter.group_number), data_group=scatter.group_number)
