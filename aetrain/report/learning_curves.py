"""The section of learning curves: charts of the metrics over epochs, side by side for each set of test images."""

from collections.abc import Mapping, Sequence

from aetrain.report.best_epochs import best_points, has_best_epochs
from aetrain.report.curves import Line, draw_curves
from aetrain.report.groups import RunGroup, by_test_set
from aetrain.report.html import Block, Html, el, headed_blocks, section
from aetrain.report.metrics import describe_metric, metric_name
from aetrain.report.ranking import select_groups
from aetrain.report.tables import swatch

MAX_CHARTS = 4
FIRST_CURVES = ("loss", "neg_elbo", "sse", "kl", "nll", "noisy_sse")  # they come before all others

SOLID_LINE = Html("<svg viewBox='0 0 30 12' class='key'><path class='line' d='M2,6H26'/></svg>")
DASHED_LINE = Html("<svg viewBox='0 0 30 12' class='key'><path class='line dashed' d='M2,6H26'/></svg>")

SplitNames = Mapping[int, str]  # of each group, by its number, the split of the curves beside those of training


def learning_curves(groups: Sequence[RunGroup]) -> Html | None:
    """Return charts of the metrics over epochs, those of each set of test images side by side."""
    blocks: list[Block] = []
    groups, choice = select_groups(groups)
    test_sets = by_test_set(groups)
    for title, members in test_sets.items():
        splits = {group.number: _held_out_split(group) for group in members}
        charts = _charts(members, splits, f"clip-{len(blocks)}")
        if charts:
            class_ = "charts" if len(test_sets) == 1 else "charts small"
            blocks.append((title, [legend(members, splits), el("div", *charts, class_=class_)]))
    if not blocks:
        return None
    notes = [choice] if choice else []
    if any(len(group.runs) > 1 for group in groups):
        notes.append(
            "Lines are means over seeds, and bands reach from the lowest to the highest; both end where the first seed "
            "ends."
        )
    if any(0 < len(group.finished) < len(group.runs) for group in groups):
        notes.append("Seeds that did not finish are left out where others did.")
    if has_best_epochs(groups):
        notes.append("A ring is the best epoch of a run by its objective.")
    return section("Learning curves", "curves", *headed_blocks(blocks), el("p", " ".join(notes)) if notes else None)


def _held_out_split(group: RunGroup) -> str:
    """Return the split whose metrics the history of a group has: `validation` where a run has such images."""
    return "validation" if any(tag.startswith("validation/") for tag in _tags(group)) else "test"


def _tags(group: RunGroup) -> dict[str, None]:
    """Return the tags of the metrics of all epochs, in their order."""
    return dict.fromkeys(tag for run in group.runs for line in run.history for tag in line)


def legend(groups: Sequence[RunGroup], splits: SplitNames) -> Html:
    """Return the colours of the groups as buttons that hide a group everywhere, and the lines of the splits."""
    buttons = []
    for group in groups:
        attributes = {"type": "button", "data_toggle": group.number, "aria_pressed": "true"}
        title = group.description or None
        buttons.append(el("button", swatch(group), group.short_label, title=title, **attributes))
    held_out = ", or else ".join(sorted(set(splits.values()), reverse=True))
    styles = el("span", SOLID_LINE, f" {held_out} ", DASHED_LINE, " train", class_="styles")
    return el("div", *buttons, styles, class_="legend")


def _charts(groups: Sequence[RunGroup], splits: SplitNames, clip_id: str) -> list[Html]:
    """Return up to MAX_CHARTS charts of the metrics over epochs, of each group on its split."""
    parts = [(tag.partition("/"), splits[group.number]) for group in groups for tag in _tags(group)]
    names = dict.fromkeys(name for (split, _, name), held_out in parts if split == held_out)
    first = [name for name in FIRST_CURVES if name in names]
    order = list(dict.fromkeys([*first, *names]))
    charts = [_chart(name, splits, groups, clip_id) for name in order[:MAX_CHARTS]]
    return [chart for chart in charts if chart is not None]


def _chart(name: str, splits: SplitNames, groups: Sequence[RunGroup], clip_id: str) -> Html | None:
    """Return the curves of a metric, of each group on its split and in training; None if none has two points."""
    lines = []
    for group in groups:
        lines += [_line(group, f"{splits[group.number]}/{name}"), _line(group, f"train/{name}", dashed=True)]
    lines = [line for line in lines if line.points]
    if max((len(line.points) for line in lines), default=0) < 2:
        return None
    label = metric_name(name)
    caption = el("figcaption", el("b", label), f" {describe_metric(name, groups)}")
    return el("figure", caption, draw_curves(label, lines, f"{clip_id}-{name}".replace("/", "-")))


def _line(group: RunGroup, tag: str, dashed: bool = False) -> Line:
    """Return the means of a metric over the runs of a group, by epoch; with a band unless the line is dashed.

    The runs are the finished ones, or all where none is. The line ends where the first run ends, since a mean over
    fewer runs is no continuation of it.
    """
    curves = [
        {metrics["epoch"]: metrics[tag] for metrics in run.history if tag in metrics}
        for run in group.finished or group.runs
    ]
    curves = [curve for curve in curves if curve]
    end = min((max(curve) for curve in curves), default=0)
    epochs = sorted({epoch for curve in curves for epoch in curve if epoch <= end})
    values = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
    points = [(epoch, sum(at) / len(at)) for epoch, at in zip(epochs, values, strict=True)]
    band = []
    if len(curves) > 1 and not dashed:
        band = [(epoch, min(at), max(at)) for epoch, at in zip(epochs, values, strict=True)]
    return Line(group.short_label, group.number, points, band, dashed, () if dashed else best_points(group, tag))
