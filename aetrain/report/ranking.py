"""The best runs by a metric, among those whose values may be ranked."""

from collections.abc import Mapping, Sequence
from typing import Any

from aetrain.evaluation.comparability import comparison_kind, ranking_obstacles
from aetrain.evaluation.metric_direction import better_direction
from aetrain.report.groups import RunGroup, Spread
from aetrain.report.metrics import main_metrics, metric_name

Ranking = list[tuple[Spread, RunGroup]]  # the best group first


def comparable_groups(tag: str, groups: Sequence[RunGroup]) -> list[list[RunGroup]]:
    """Return the groups that have a metric in lists, in each of which its values may be ranked.

    See `comparison_kind` for the settings in which they are equal.
    """
    by_kind: dict[str, list[RunGroup]] = {}
    for group in groups:
        if group.metric(tag) is not None:
            by_kind.setdefault(comparison_kind(tag, group.runs[0].settings), []).append(group)
    return list(by_kind.values())


def rankings(tag: str, groups: Sequence[RunGroup]) -> list[Ranking]:
    """Return a ranking of each two or more groups whose values of a metric may be ranked.

    Empty if the metric has no better direction.
    """
    direction = better_direction(tag)
    if direction is None:
        return []
    all_rankings = []
    for members in comparable_groups(tag, groups):
        pairs = [(spread, group) for group in members if (spread := group.metric(tag)) is not None]
        if len(pairs) > 1:
            all_rankings.append(sorted(pairs, key=lambda pair: pair[0].mean, reverse=direction == "higher"))
    return all_rankings


def best_groups(tag: str, groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Return the best group by a metric of each ranking."""
    return [ranking[0][1] for ranking in rankings(tag, groups)]


def ranking_notes(tags: Sequence[str], groups: Sequence[RunGroup]) -> list[str]:
    """Return sentences about the metrics that are not ranked among all groups, and the reasons."""
    names_by_obstacles: dict[tuple[str, ...], list[str]] = {}
    without_direction = []
    for tag in tags:
        owners = [group.runs[0].settings for group in groups if group.metric(tag) is not None]
        if better_direction(tag) is None:
            without_direction.append(metric_name(tag))
        elif obstacles := _main_obstacles(tag, owners):
            names_by_obstacles.setdefault(obstacles, []).append(metric_name(tag))
    notes = []
    for obstacles, names in names_by_obstacles.items():
        verb = "is" if len(names) == 1 else "are"
        notes.append(f"{_enumerate(names)} {verb} ranked only among runs with equal {_enumerate(obstacles)}.")
    if without_direction:
        verb = "has" if len(without_direction) == 1 else "have"
        notes.append(f"{_enumerate(without_direction)} {verb} no better direction.")
    return notes


def _main_obstacles(tag: str, owners: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the settings that forbid to rank a metric, those of the data set first.

    Settings that only some of the runs' classes have are left out: the class itself is among the settings.
    """
    obstacles = sorted(ranking_obstacles(tag, owners), key=lambda name: not name.startswith("dataset"))
    return tuple(name for name in obstacles if all(name in run or f"{name}._target_" in run for run in owners))


def _enumerate(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


MAX_DRAWN = 100  # settings whose curves and columns are on the page; of more, a reader sees none


def select_groups(groups: Sequence[RunGroup]) -> tuple[list[RunGroup], str]:
    """Return the groups that charts and wide tables show, and a sentence about the choice; all, and none, of a few.

    Of many, these are the best of each ranking by the first metric that ranks them.
    """
    if len(groups) <= MAX_DRAWN:
        return list(groups), ""
    tags = main_metrics(tag for group in groups for run in group.finished for tag in run.metrics)
    tag, places = next(((tag, _places(ranked)) for tag in tags if (ranked := rankings(tag, groups))), (None, {}))
    chosen = sorted(groups, key=lambda group: places.get(group.number, len(groups)))[:MAX_DRAWN]
    kind = "first" if tag is None else f"best by {metric_name(tag)}"
    sentence = f"Shown are the {MAX_DRAWN} {kind} of {len(groups):,} settings; the table at the top has all."
    return sorted(chosen, key=lambda group: group.number), sentence


def _places(all_rankings: Sequence[Ranking]) -> dict[int, int]:
    """Return the place of each group in its ranking, by its number."""
    return {group.number: place for ranking in all_rankings for place, (_, group) in enumerate(ranking)}
