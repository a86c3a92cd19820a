"""The plots of a sweep over a numeric setting: each main metric against it, with a line per value of other settings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aetrain.config.paths import groups as option_groups
from aetrain.report.groups import RunGroup, by_test_set
from aetrain.report.labels import short_name
from aetrain.report.metrics import SECONDS_PER_EPOCH, main_metrics
from aetrain.report.natural_order import natural_key
from aetrain.report.numeric_axis import NumericAxis

MIN_VALUES = 3  # of the setting; two values are compared in the table
MAX_LINES = 10  # as many as there are colours
MAX_PANELS = 9
BASELINES = ("test/pca_sse", "test/bias_rmse")  # metrics that are no results of a model
PCA_TAGS = {"test/sse": "test/pca_sse"}  # of other metrics, the tag with `_pca` at its end
EQUAL_SHARE = 1e-3  # relative difference below which the errors of PCA of two lines are the same


@dataclass(frozen=True)
class Point:
    """A metric at a value of the setting: the mean over seeds, the lowest and the highest."""

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PlotLine:
    """A metric over the setting; `number` is that of its colour, None of a line that belongs to all others."""

    label: str
    number: int | None
    points: Sequence[Point]
    is_pca: bool = False


@dataclass(frozen=True)
class Panel:
    """The lines of one metric."""

    tag: str
    lines: Sequence[PlotLine]


@dataclass(frozen=True)
class SweepPlot:
    """The panels of the runs on one set of test data."""

    test_set: str
    key: str  # the dotted name of the setting
    axis: NumericAxis
    panels: Sequence[Panel]

    @property
    def labels(self) -> list[tuple[str, int]]:
        """The labels of the lines and the numbers of their colours; none where there is only one line."""
        lines = {line.label: line.number for panel in self.panels for line in panel.lines if not line.is_pca}
        return [(label, number) for label, number in lines.items() if label and number is not None]

    @property
    def has_pca(self) -> bool:
        """Whether a metric has PCA's beside it."""
        return any(line.is_pca for panel in self.panels for line in panel.lines)

    @property
    def has_bands(self) -> bool:
        """Whether a point is a mean over seeds."""
        return any(point.high > point.low for panel in self.panels for line in panel.lines for point in line.points)


def make_sweep_plots(groups: Sequence[RunGroup]) -> list[SweepPlot]:
    """Return a plot for each set of test data on which runs differ in a numeric setting with MIN_VALUES or more."""
    plots = [_make_plot(name, members) for name, members in by_test_set(groups).items()]
    return [plot for plot in plots if plot is not None]


def _make_plot(test_set: str, groups: Sequence[RunGroup]) -> SweepPlot | None:
    """Return the plot of runs on the same test data; None if no setting fits or there would be too many lines."""
    finished = [group for group in groups if group.finished]
    key = numeric_setting(finished)
    if key is None:
        return None
    members = [group for group in finished if group.differences[key]]
    by_label: dict[str, list[RunGroup]] = {}
    others = [name for name in members[0].differences if name != key and _varies(name, members)]
    for group in members:
        by_label.setdefault(_line_label(group, others), []).append(group)
    labels = sorted(by_label, key=natural_key)
    longest = max(len({group.differences[key] for group in line}) for line in by_label.values())
    if len(labels) > MAX_LINES or longest < MIN_VALUES:
        return None
    axis = NumericAxis.of(float(group.differences[key]) for group in members)
    tags = main_metrics(tag for group in members for run in group.finished for tag in run.metrics)
    panels = []
    for tag in [tag for tag in tags if tag not in (*BASELINES, SECONDS_PER_EPOCH)][:MAX_PANELS]:
        lines = [PlotLine(label, i, _points(tag, key, by_label[label])) for i, label in enumerate(labels)]
        pca_tag = PCA_TAGS.get(tag, f"{tag}_pca")
        baselines = [PlotLine(label, i, _points(pca_tag, key, by_label[label]), True) for i, label in enumerate(labels)]
        panels.append(Panel(tag, [line for line in [*lines, *_merge_equal(baselines)] if line.points]))
    return SweepPlot(test_set, key, axis, panels) if panels else None


def numeric_setting(groups: Sequence[RunGroup]) -> str | None:
    """Return the numeric setting with the most values in groups, the first of those with as many; None without one.

    A setting that some groups lack, as their model has it not, counts by the others.
    """
    counts: dict[str, int] = {}
    for key in groups[0].differences if groups else ():
        values = [group.differences[key] for group in groups if group.differences[key]]
        if key not in option_groups() and all(map(_is_number, values)):
            counts[key] = len(set(map(float, values)))
    best = max(counts, key=lambda key: counts[key], default=None)
    return best if best is not None and counts[best] >= MIN_VALUES else None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _varies(key: str, groups: Sequence[RunGroup]) -> bool:
    return len({group.differences[key] for group in groups}) > 1


def _line_label(group: RunGroup, keys: Sequence[str]) -> str:
    """Return the values of the settings that tell lines apart: `vae, lr=0.01`."""
    texts = []
    for key in keys:
        value = group.differences[key]
        texts.append(value if key in option_groups() and value != "none" else f"{short_name(key)}={value}")
    return ", ".join(texts)


def _points(tag: str, key: str, groups: Sequence[RunGroup]) -> list[Point]:
    """Return a metric of the finished runs at each value of a setting, in ascending order of the values."""
    by_value: dict[float, list[float]] = {}
    for group in groups:
        values = [run.metrics[tag] for run in group.finished if tag in run.metrics]
        if values:
            by_value.setdefault(float(group.differences[key]), []).extend(values)
    return [Point(x, math.fsum(y) / len(y), min(y), max(y)) for x, y in sorted(by_value.items())]


def _merge_equal(lines: Sequence[PlotLine]) -> list[PlotLine]:
    """Return one line for all, where they have the same values, as PCA of one data set has for all models."""
    by_x: dict[float, list[float]] = {}
    for line in lines:
        for point in line.points:
            by_x.setdefault(point.x, []).extend((point.low, point.high))
    if any(max(y) - min(y) > EQUAL_SHARE * max(map(abs, y)) for y in by_x.values()):
        return list(lines)
    points = [Point(x, math.fsum(y) / len(y), min(y), max(y)) for x, y in sorted(by_x.items())]
    return [PlotLine("", None, points, True)]
