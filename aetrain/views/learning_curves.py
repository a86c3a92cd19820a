"""The figure of the learning curves of a run, from its history."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aetrain.evaluation.metric_names import find_pattern
from aetrain.evaluation.model_selection import BEST_EPOCH
from aetrain.views.annotations import Annotations, CurvePanel, Curves, FigureOptions
from aetrain.views.view import save_content

MIN_POINTS = 2  # a curve with fewer points is not drawn
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
UNITS = ("nats", "dB", "degrees")  # units with which descriptions end
NOTE = (
    "Epoch 0 is the untrained model. Training curves are means over the batches of an epoch, while the weights change; "
    "held-out curves are of the model after the epoch. Axes over more than a factor of 30 are logarithmic."
)


def save_learning_curves(
    history: Sequence[Mapping[str, float]],
    descriptions: Mapping[str, str],
    path: Path,
    options: FigureOptions,
    noun: str = "image",
) -> None:
    """Write the figure of all curves of a history (lines with `epoch` and tags such as `train/nll`).

    `noun` is the word for an example. A history of fewer than two epochs has no curves and no figure.
    """
    panels = list(curve_panels(history, descriptions, noun))
    if not panels:
        return
    best = history[-1].get(BEST_EPOCH)
    note = NOTE if best is None else f"{NOTE} The dotted line is epoch {best}, the best one by the objective."
    annotations = Annotations("Learning curves", x_axis="epoch", note=note)
    save_content(Curves(panels, None if best is None else int(best)), annotations, path, options)


def curve_panels(
    history: Sequence[Mapping[str, float]], descriptions: Mapping[str, str], noun: str = "image"
) -> Iterator[CurvePanel]:
    """Yield a panel for each metric, in the order of `descriptions`, with a curve for each split."""
    tags = dict.fromkeys(tag for line in history for tag in line if "/" in tag)
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for tag in tags:
        split, _, name = tag.partition("/")
        split = f"{SPLITS[split]} {noun}s" if split in SPLITS else split
        points = [(int(line["epoch"]), line[tag]) for line in history if math.isfinite(line.get(tag, math.nan))]
        if len(points) >= MIN_POINTS:
            curves.setdefault(name, {})[split] = points
    ranks = {pattern: rank for rank, pattern in enumerate(descriptions)}
    for name in sorted(curves, key=lambda name: ranks.get(find_pattern(name, descriptions), len(ranks))):
        description = descriptions.get(find_pattern(name, descriptions), "")
        yield CurvePanel(name, unit_of(description), curves[name])


def unit_of(description: str) -> str:
    """Return the unit with which the description of a metric ends; `squared error` for errors, else empty."""
    last_word = description.rpartition(" ")[2]
    if last_word in UNITS:
        return last_word
    return "squared error" if description.startswith("squared error") else ""
