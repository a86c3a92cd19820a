"""A view of units as features: for data without pictures, the names of the features that a unit goes with."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from aetrain.model.records import Kind, Tap
from aetrain.storage import atomic
from aetrain.views.annotations import DEFAULT_OPTIONS, Annotations, FigureOptions, KeyEntry
from aetrain.views.atlas import format_rate
from aetrain.views.bar_panels import BarList, Panel, draw_panels
from aetrain.views.context import ViewContext
from aetrain.views.feature_scores import (
    Strongest,
    feature_names,
    strongest_features,
    unit_correlations,
    unit_effects,
)
from aetrain.views.render import DEAD_COLOUR, INK, RGB, SATURATED_COLOUR
from aetrain.views.unit_selection import UnitSelection
from aetrain.views.units import frame_colours, layer_name
from aetrain.views.view import Picture, PictureSet, check_positive

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FEATURES_FILE = "features.json"  # of a run directory, from which its report has the words
MORE: RGB = (44, 160, 44)  # green: more of the feature
LESS: RGB = (148, 103, 189)  # purple: less of the feature
STATES = {DEAD_COLOUR: "dead", SATURATED_COLOUR: "saturated"}
ACTIVE_WITH, PRODUCES = "active with", "produces"
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~-])")  # characters with a meaning


@dataclass(frozen=True)
class UnitFeatures:
    """A unit in words: its number from 1, its firing rate, its state, and its strongest features."""

    unit: int
    rate: float
    state: str  # dead, saturated or empty
    active_with: Strongest
    produces: Strongest


@dataclass(frozen=True, eq=False)
class FeatureTables:
    """The units of each layer in words, and the first of them as pictures."""

    layers: Mapping[str, Sequence[UnitFeatures]]
    pictures: PictureSet

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        """Add the pictures under `views_TAG/LAYER`, and a table of words to the page Text under `TAG/LAYER`."""
        self.pictures.log(writer, tag, step)
        for name, units in self.layers.items():
            writer.add_text(f"{tag}/{name}", markdown_table(units), step)

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        """Write the figures, for `path` = RUN/figures/NAME, and all words to RUN/features.json."""
        self.pictures.save(path, options)
        content = {name: [asdict(unit) for unit in units] for name, units in self.layers.items()}
        atomic.replace_text(path.parent.parent / FEATURES_FILE, json.dumps(content, ensure_ascii=False) + "\n")


@final
@dataclass(frozen=True)
class Features:
    """Every layer's units in words, for examples without a picture: the `words` strongest features of each unit.

    - `active with`: the features that correlate most with the unit's activation over the context's examples
      (`aetrain.views.feature_scores.unit_correlations`).
    - `produces`: the features of the decoded example that change most, in standard deviations of the feature, as the
      unit rises by a standard deviation from its mean (`aetrain.views.feature_scores.unit_effects`).

    The tables have at most `count` units of a layer (`ViewContext.select_units`), the pictures the first `panels` of
    them.
    """

    description: ClassVar[str] = (
        "The features that each unit goes with: those that correlate with its activation, and those of the decoded "
        "example that change most as the unit rises by a standard deviation from its mean. Green: more of the feature. "
        "Purple: less of it. In parentheses: the length of the longest bar."
    )
    data_kinds: ClassVar[tuple[Kind, ...]] = ("vector", "counts", "ratings")
    selects_units: ClassVar[bool] = True

    count: int = 64
    panels: int = 12
    words: int = 10

    def __post_init__(self) -> None:
        check_positive(count=self.count, panels=self.panels, words=self.words)

    def __call__(self, context: ViewContext) -> FeatureTables:
        layers, pictures = {}, {}
        for tap in context.unit_layers:
            selection = context.select_units(tap, self.count)
            layers[tap.name] = describe_units(context, tap, selection.units, self.words)
            pictures[tap.name] = self._picture(tap, layers[tap.name], selection)
        return FeatureTables(layers, PictureSet(pictures))

    def _picture(self, tap: Tap, units: Sequence[UnitFeatures], selection: UnitSelection) -> Picture:
        shown = selection.reorder(selection.units[: self.panels], selection.order)
        pixels, sheet = draw_panels([unit_panel(unit) for unit in units[: self.panels]])
        annotations = Annotations(
            f"Features of the units of {layer_name(tap.name)}",
            key=(KeyEntry(MORE, "more of the feature"), KeyEntry(LESS, "less of the feature")),
            note="Active with: the features of largest correlation with the activation of the unit. Produces: the "
            "features of the decoded example that change most, relative to their spread, as the unit rises by one "
            "standard deviation from its mean. In parentheses: the length of the longest bar. "
            f"Shown: {shown.describe()}.",
        )
        return Picture(pixels, annotations, sheet, shown)


def describe_units(context: ViewContext, tap: Tap, units: Tensor, count: int) -> list[UnitFeatures]:
    """Return `units` [U'] of a layer in words, with `count` features each; a dead unit has none that go with it."""
    activations, names = context.activations[tap.name], feature_names(context)
    active_with = strongest_features(unit_correlations(context, tap, units), names, count)
    produces = strongest_features(unit_effects(context, tap, units), names, count)
    states = [STATES.get(colour, "") if colour else "" for colour in frame_colours(activations, units)]
    rates = activations.rate[units].tolist()
    rows = zip(units.tolist(), rates, states, active_with, produces, strict=True)
    return [UnitFeatures(unit + 1, rate, state, active, made) for unit, rate, state, active, made in rows]


def unit_panel(unit: UnitFeatures) -> Panel:
    """Return the bars of a unit's features."""
    title = f"unit {unit.unit}, fires at {format_rate(unit.rate)}"
    if unit.state:
        title += f", {unit.state}"
    lists = [score_bars(ACTIVE_WITH, unit.active_with), score_bars(PRODUCES, unit.produces)]
    colour = next((colour for colour, state in STATES.items() if state == unit.state), INK)
    return Panel(title, lists, colour)


def score_bars(heading: str, features: Strongest) -> BarList:
    """Return the absolute scores of features as bars, in the colour of their signs."""
    longest = max(map(abs, features.scores), default=0.0)
    colours = [[MORE if score > 0 else LESS] for score in features.scores]
    values = torch.tensor(features.scores).abs()[:, None]
    return BarList(f"{heading} ({longest:.2g})", features.names, values, colours)


def markdown_table(units: Sequence[UnitFeatures]) -> str:
    """Return units and their features as a table in Markdown; a feature of which there is less has a minus sign."""
    lines = [f"| unit | fires | {ACTIVE_WITH} | {PRODUCES} |", "|---|---|---|---|"]
    for unit in units:
        cells = [join_names(unit.active_with), join_names(unit.produces)]
        state = f" {unit.state}" if unit.state else ""
        lines.append(" | ".join([f"| {unit.unit}{state}", format_rate(unit.rate), *cells]) + " |")
    return "\n".join(lines)


def join_names(features: Strongest) -> str:
    """Return the names of features in one line of Markdown."""
    names = [" ".join(name.split()) for name in features.names]
    marks = ["" if score > 0 else "\N{MINUS SIGN}" for score in features.scores]
    return ", ".join(mark + MARKDOWN.sub(r"\\\1", name) for mark, name in zip(marks, names, strict=True))
