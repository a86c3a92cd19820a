"""Charts as SVG inside the page: curves over epochs, and rate against distortion."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aetrain.report.html import Html, el

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 40

COLOURS = 10  # the page's style has as many; then they begin again

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of one group."""

    name: str
    number: int  # of the group, which gives it its colour
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()  # x, lowest and highest over seeds
    dashed: bool = False


@dataclass(frozen=True)
class Dots:
    """The runs of one group as points, and the middle of them."""

    name: str
    number: int
    points: Sequence[tuple[float, float, str]]  # x, y and what it is

    @property
    def middle(self) -> Point:
        """The mean of the points."""
        xs, ys, _ = zip(*self.points, strict=True)
        return math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)


def colour(number: int) -> str:
    """The class that gives a group its colour."""
    return f"c{number % COLOURS}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A figure as short as it can be read: four digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 5)}f}"


def tick_label(value: float) -> str:
    """A tick: `2,000`, `0.5`, `1e-05`."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.0e}"


@dataclass(frozen=True)
class Axes:
    """From figures to places in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str = ""
    whole: bool = False  # whether x counts something, and has no ticks between
    _width: float = field(default=WIDTH - LEFT - RIGHT, init=False)
    _height: float = field(default=HEIGHT - TOP - BOTTOM, init=False)

    def at(self, x: float, y: float) -> Point:
        """The place of a point."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + across * self._width, TOP + (1 - up) * self._height

    def path(self, points: Sequence[Point], closed: bool = False) -> str:
        """Points as a path's description."""
        return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*p) for p in points)) + "Z" * closed

    def frame(self) -> Iterator[Html]:
        """Grid lines, ticks and names."""
        for y in ticks(*self.y):
            left, place = self.at(self.x[0], y)
            yield el("line", class_="grid", x1=left, x2=WIDTH - RIGHT, y1=f"{place:.1f}", y2=f"{place:.1f}")
            yield el("text", tick_label(y), class_="tick end", x=left - 7, y=f"{place + 4:.1f}")
        marks = ticks(*self.x, count=8)
        for x in [mark for mark in marks if not self.whole or mark == round(mark)]:
            place, bottom = self.at(x, self.y[0])
            yield el("line", class_="grid", x1=f"{place:.1f}", x2=f"{place:.1f}", y1=bottom, y2=bottom + 4)
            yield el("text", tick_label(x), class_="tick middle", x=f"{place:.1f}", y=bottom + 17)
        yield el("text", self.x_name, class_="axis end", x=WIDTH - RIGHT, y=HEIGHT - 6)
        if self.y_name:
            yield el("text", self.y_name, class_="axis", x=LEFT, y=HEIGHT - 6)


def picture(axes: Axes, name: str, inside: Sequence[Html], clip: str) -> Html:
    """The whole of a chart; what leaves the frame is cut off."""
    box = el(
        "clipPath",
        el("rect", x=LEFT, y=TOP - 4, width=WIDTH - LEFT - RIGHT, height=HEIGHT - TOP - BOTTOM + 8),
        id=clip,
    )
    shapes = el("g", *inside, clip_path=f"url(#{clip})")
    return el("svg", box, list(axes.frame()), shapes, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=name)


def curves(name: str, lines: Sequence[Line], clip: str) -> Html:
    """Curves over epochs. The model before training would flatten them all, and is left out where there is more."""
    if max((len(line.points) for line in lines), default=0) > 2:
        lines = [
            Line(
                line.name,
                line.number,
                [p for p in line.points if p[0] > 0],
                [b for b in line.band if b[0] > 0],
                line.dashed,
            )
            for line in lines
        ]
    xs = [x for line in lines for x, _ in line.points]
    axes = Axes((min(xs), max(max(xs), min(xs) + 1)), within(lines), "epoch", whole=True)
    shapes = []
    for line in lines:
        inside = [el("title", f"{line.name}{', train' if line.dashed else ''}")]
        if len(line.band) > 1:
            there = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
            inside.append(el("path", class_="band", d=axes.path(there, closed=True)))
        if len(line.points) > 1:
            inside.append(el("path", class_="line dashed" if line.dashed else "line", d=axes.path(line.points)))
        x, y = axes.at(*line.points[-1]) if line.points else (0.0, 0.0)
        if line.points and not line.dashed:
            inside.append(el("circle", class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6))
        shapes.append(el("g", *inside, class_=colour(line.number), data_group=line.number))
    return picture(axes, f"{name} over epochs", shapes, clip)


def within(lines: Sequence[Line]) -> tuple[float, float]:
    """The range of y that shows all lines, or all but those that are far off, such as what has diverged."""
    ends = sorted(line.points[-1][1] for line in lines if line.points)
    values = sorted(y for line in lines for _, *many in (*line.points, *line.band) for y in many)
    middle = ends[(len(ends) - 1) // 2]
    reach = max(3 * abs(middle), 1e-9)
    near = [value for value in values if abs(value - middle) <= reach] or [middle]
    low, high = near[0], near[-1]
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.25 * high else low - room), high + room


def rate_distortion(groups: Sequence[Dots], clip: str) -> Html:
    """Each run's KL against what is left of -ELBO; a diagonal is where the two have one sum."""
    xs = [x for dots in groups for x, _, _ in dots.points]
    ys = [y for dots in groups for _, y, _ in dots.points]
    x_room, y_room = (0.08 * (max(v) - min(v)) or 0.1 * abs(max(v)) or 1.0 for v in (xs, ys))
    axes = Axes(
        (max(0.0, min(xs) - x_room), max(xs) + 2.5 * x_room),
        (min(ys) - y_room, max(ys) + y_room),
        "across, rate: KL, nats",
        "up, distortion: -ELBO less KL, nats",
    )
    shapes: list[Html] = []
    (left, right), (low, high) = axes.x, axes.y
    for total in ticks(left + low, right + high, 7):
        ends = [(x, total - x) for x in (left, right)]
        shapes.append(el("path", class_="diagonal", d=axes.path(ends)))
        x = min(right, total - low)
        if left < x <= right and total - x <= high:
            px, py = axes.at(x, total - x)
            shapes.append(el("text", tick_label(total), class_="tick end", x=f"{px - 3:.1f}", y=f"{py - 5:.1f}"))
    for dots in groups:
        inside = []
        for x, y, what in dots.points:
            px, py = axes.at(x, y)
            inside.append(el("circle", el("title", what), class_="dot", cx=f"{px:.1f}", cy=f"{py:.1f}", r=4))
        px, py = axes.at(max(x for x, _, _ in dots.points), dots.middle[1])
        turned = px + 9 + 7 * len(dots.name) > WIDTH - RIGHT  # the words would leave the picture
        px = axes.at(min(x for x, _, _ in dots.points), 0)[0] - 9 if turned else px + 9
        inside.append(
            el("text", dots.name, class_="label end" if turned else "label", x=f"{px:.1f}", y=f"{py + 4:.1f}")
        )
        shapes.append(el("g", *inside, class_=colour(dots.number), data_group=dots.number))
    return picture(axes, "rate against distortion", shapes, clip)
