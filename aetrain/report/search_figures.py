"""The pictures of a search as PNG files. matplotlib draws them by its objects, and is imported late."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetrain.report.labels import short_name
from aetrain.report.numbers import log_tick_values
from aetrain.report.search_values import Importance, SettingAxis, best_so_far, setting_axes, setting_importance
from aetrain.storage import atomic
from aetrain.storage.search_file import SearchRecord, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

DPI = 160
WIDTH = 10.0  # inches
PANEL_HEIGHT = 2.6
MAX_COLUMNS = 3
MAX_UPRIGHT_LETTERS = 22  # of the names below a panel
MAX_QUANTILE = 0.9  # of the values of an objective: worse ones are drawn at the edge
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#9a9a9a"
COLOURS = "viridis_r"  # from early trials, or bad ones, to late or good ones

# Of a text beside a parallel axis, readable where lines cross it.
LABEL: dict[str, Any] = {
    "va": "center",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    "zorder": 5,
}

TITLES = {
    "best_so_far": "Best so far",
    "slices": "Objective against each setting",
    "importance": "Importance of the settings",
    "parallel": "Parallel coordinates",
    "objectives": "The metrics of the objective against each other",
}


def write_search_figures(record: SearchRecord, folder: Path) -> dict[str, Path]:
    """Write the pictures of a search with two or more finished trials to PNG files in a folder; return them by name."""
    files = {}
    for name, figure in draw_search(record).items():
        files[name] = folder / f"search_{name}.png"
        atomic.replace(files[name], _encode(figure))
    return files


def draw_search(record: SearchRecord) -> "Mapping[str, Figure]":
    """Return the pictures by name; none where fewer than two trials have finished."""
    trials = record.finished()
    if len(trials) < 2:
        return {}
    axes = setting_axes(record, trials)
    with _default_style():
        figures: dict[str, Figure] = {}
        if len(record.objective) == 1:
            figures["best_so_far"] = draw_best_so_far(record)
        else:
            figures["objectives"] = draw_objectives(record)
        if axes:
            figures["slices"] = draw_slices(record, axes)
        importances = [setting_importance(record, number) for number in range(len(record.objective))]
        pairs = zip(record.objective, importances, strict=True)
        if explained := {name: item for name, item in pairs if item is not None and item.explained > 0}:
            figures["importance"] = draw_importance(explained)
        if len(axes) > 1:
            figures["parallel"] = draw_parallel(record, axes)
        return figures


@contextmanager
def _default_style() -> Iterator[None]:
    """Draw with matplotlib's own parameters inside, whatever the user's are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
        matplotlib.rcParams.update({"axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True})
        yield


def _new_figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def _encode(figure: "Figure") -> bytes:
    with _default_style():
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue()


def _value(trial: TrialRecord, number: int = 0) -> float:
    return (trial.values or [])[number]


def _limits(values: Sequence[float], higher_is_better: bool) -> tuple[float, float]:
    """Return the range of an axis of an objective, from the best value to the quantile MAX_QUANTILE of the worst."""
    ordered = sorted(values, reverse=higher_is_better)
    best, worst = ordered[0], ordered[math.ceil(MAX_QUANTILE * (len(ordered) - 1))]
    margin = 0.08 * abs(worst - best) or 0.05 * abs(best) or 1.0
    return (worst - margin, best + margin) if higher_is_better else (best - margin, worst + margin)


def draw_best_so_far(record: SearchRecord) -> "Figure":
    """Return the values of the trials in their order, and the best value up to each of them."""
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(3.4)
    axes = figure.subplots()
    trials = record.finished()
    numbers, best = map(list, zip(*best_so_far(record), strict=True))
    if record.trials[-1].number > numbers[-1]:  # the best value holds until the last trial
        numbers, best = [*numbers, record.trials[-1].number], [*best, best[-1]]
    low, high = _limits([_value(trial) for trial in trials], record.higher_is_better[0])
    values = [min(max(_value(trial), low), high) for trial in trials]
    axes.plot(
        [trial.number for trial in trials], values, "o", color=BLUE, markersize=4, label="finished", clip_on=False
    )
    axes.step(numbers, best, where="post", color=ORANGE, label="best so far")
    edge = low if record.higher_is_better[0] else high
    for status, marker, colour in (("pruned", "x", GREY), ("failed", "s", "#b3261e")):
        others = [trial.number for trial in record.trials if trial.status == status]
        if others:
            label = f"{status} (no value)"
            axes.plot(others, [edge] * len(others), marker, color=colour, markersize=4, label=label, clip_on=False)
    axes.set(xlabel="trial", ylabel=record.objective[0], ylim=(low, high))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_objectives(record: SearchRecord) -> "Figure":
    """Return the first two metrics of the objective against each other, the Pareto front in another colour."""
    figure = _new_figure(4.0)
    axes = figure.subplots()
    front = record.best()
    for trials, colour, label in ((record.finished(), BLUE, "finished"), (front, ORANGE, "Pareto front")):
        points = [(_value(trial, 0), _value(trial, 1)) for trial in trials]
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5, label=label)
    axes.set(xlabel=record.objective[0], ylabel=record.objective[1])
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_slices(record: SearchRecord, settings: Sequence[SettingAxis]) -> "Figure":
    """Return a panel for each setting and metric: the objective of each trial against its value."""
    from matplotlib.ticker import MaxNLocator

    columns = min(MAX_COLUMNS, len(settings))
    rows_each = math.ceil(len(settings) / columns)
    figure = _new_figure(rows_each * len(record.objective) * PANEL_HEIGHT)
    panels = figure.subplots(rows_each * len(record.objective), columns, squeeze=False)
    points = None
    for number, metric in enumerate(record.objective):
        for place in range(rows_each * columns):
            axes = panels[number * rows_each + place // columns][place % columns]
            if place >= len(settings):
                axes.set_visible(False)
                continue
            points = _draw_slice(axes, record, settings[place], number)
            if place % columns == 0:
                axes.set_ylabel(metric)
    if points is not None:
        bar = figure.colorbar(points, ax=panels, label="trial", aspect=40, pad=0.01)
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    return figure


def _draw_slice(axes: "Axes", record: SearchRecord, setting: SettingAxis, number: int) -> "PathCollection":
    trials = record.finished()
    low, high = _limits([_value(trial, number) for trial in trials], record.higher_is_better[number])
    x = [setting.position(trial) for trial in trials]
    y = [min(max(_value(trial, number), low), high) for trial in trials]
    points = axes.scatter(x, y, c=[trial.number for trial in trials], cmap=COLOURS, s=18, clip_on=False, zorder=3)
    best = record.best()[0]
    place = setting.position(best), _value(best, number)
    axes.plot(*place, "o", color=ORANGE, fillstyle="none", markersize=10, markeredgewidth=1.8, zorder=4)
    axes.set_ylim(low, high)
    axes.set_title(short_name(setting.key), fontsize=9)
    if setting.log:
        _set_log_ticks(axes, x)
    if setting.names:
        turned = sum(map(len, setting.names)) > MAX_UPRIGHT_LETTERS
        rotation: dict[str, Any] = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if turned else {}
        axes.set_xticks(range(len(setting.names)), setting.names, **rotation)
        axes.set_xlim(-0.5, len(setting.names) - 0.5)
    return points


def _set_log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with the round numbers of the report's own charts."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    ticks = log_tick_values(min(values), max(values))
    while sum(len(f"{value:g}") for value in ticks) > MAX_UPRIGHT_LETTERS:
        ticks = ticks[::2]
    if len(ticks) > 1:
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.xaxis.set_minor_locator(NullLocator())


def draw_importance(importances: Mapping[str, Importance]) -> "Figure":
    """Return the importance of each setting as a bar, a panel for each metric."""
    count = max(len(item.of_settings) for item in importances.values())
    figure = _new_figure(1.0 + 0.32 * count)
    panels = figure.subplots(1, len(importances), squeeze=False)[0]
    for axes, (metric, item) in zip(panels, importances.items(), strict=True):
        keys = [*reversed(item.of_settings)]
        axes.barh([short_name(key) for key in keys], [item.of_settings[key] for key in keys], color=BLUE, height=0.6)
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.set_xlabel(f"loss of explained variance, of {item.explained:.2f} in all,\nof the rank by {metric}")
        axes.grid(False, axis="y")
    return figure


def draw_parallel(record: SearchRecord, settings: Sequence[SettingAxis]) -> "Figure":
    """Return a line for each finished trial through its values on parallel axes and its rank; the best one is bold."""
    from matplotlib import colormaps

    figure = _new_figure(3.8)
    axes = figure.subplots()
    axes.grid(False, axis="y")
    sign = -1 if record.higher_is_better[0] else 1
    worst_first = sorted(record.finished(), key=lambda trial: -sign * _value(trial))
    scales = [_scale(record, setting) for setting in settings]
    places = [*range(len(settings) + 1)]
    for rank, trial in enumerate(worst_first):
        quality = rank / max(len(worst_first) - 1, 1)
        heights = [(s.scaled(trial) - low) / (high - low) for s, (low, high) in zip(settings, scales, strict=True)]
        is_best = trial is worst_first[-1]
        colour = ORANGE if is_best else colormaps[COLOURS](quality)
        width = 2.5 if is_best else 1.0
        axes.plot(places, [*heights, quality], color=colour, linewidth=width, alpha=1 if is_best else 0.75)
    for place, setting, (low, high) in zip(places, settings, scales, strict=False):
        _label_axis(axes, place, setting, low, high)
    values = [f"{_value(trial):.4g}" for trial in (worst_first[0], worst_first[-1])]
    axes.text(len(settings) + 0.03, 0, f"worst\n{values[0]}", **LABEL)
    axes.text(len(settings) + 0.03, 1, f"best\n{values[1]}", **LABEL)
    axes.set_xticks(places, [*(short_name(setting.key) for setting in settings), f"rank by\n{record.objective[0]}"])
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(settings) + 0.35)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _scale(record: SearchRecord, setting: SettingAxis) -> tuple[float, float]:
    """Return the ends of an axis, in scaled positions."""
    if setting.names:
        return -0.5, len(setting.names) - 0.5
    values = [setting.scaled(trial) for trial in record.finished()]
    return min(values), max(values)


def _label_axis(axes: "Axes", place: int, setting: SettingAxis, low: float, high: float) -> None:
    axes.axvline(place, color="#333333", linewidth=0.8)
    if setting.names:
        for number, name in enumerate(setting.names):
            axes.text(place + 0.03, (number - low) / (high - low), name, **LABEL)
        return
    for height, value in ((0, low), (1, high)):
        axes.text(place + 0.03, height, f"{10**value if setting.log else value:.3g}", **LABEL)
