"""The section of a report about units in words, for runs on data without pictures, from their file features.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.report.groups import RunGroup
from aetrain.report.html import Html, el, scrollable, section
from aetrain.report.runs import RunSummary
from aetrain.report.tables import swatch

FEATURES_FILE = "features.json"
MAX_FILE_BYTES = 20_000_000  # a larger file is not read
MAX_RUNS = 36  # whose units are shown
MAX_NAME = 40  # characters of a feature's name
MINUS = "\N{MINUS SIGN}"
NOTE = (
    "Active with: the features that correlate most with the activation of the unit. Produces: the features of the "
    "decoded example that change most, relative to their spread, as the unit rises by one standard deviation from its "
    "mean. A minus sign: less of the feature."
)

Words = Sequence[tuple[str, float]]  # the names and the scores of features


@dataclass(frozen=True)
class UnitWords:
    """A unit of a layer, as features.json describes it."""

    unit: int
    rate: float
    state: str
    active_with: Words
    produces: Words


def read_features(run: RunSummary) -> dict[str, list[UnitWords]]:
    """Return the units of each layer of a run; damaged parts of its file, or a missing file, are left out."""
    file = run.path / FEATURES_FILE
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    layers = content.items() if isinstance(content, dict) else ()
    return {str(name): units for name, items in layers if (units := _parse_units(items))}


def _parse_units(items: Any) -> list[UnitWords]:
    units = []
    for item in items if isinstance(items, list) else ():
        match item:
            case {
                "unit": int(unit),
                "rate": int(rate) | float(rate),
                "state": str(state),
                "active_with": dict(active_with),
                "produces": dict(produces),
            }:
                units.append(UnitWords(unit, rate, state, _parse_words(active_with), _parse_words(produces)))
    return units


def _parse_words(words: dict[Any, Any]) -> Words:
    match words:
        case {"names": list(names), "scores": list(scores)}:
            pairs = zip(names, scores, strict=False)
            return [(str(name), float(score)) for name, score in pairs if isinstance(score, int | float)]
    return []


def unit_words(groups: Sequence[RunGroup]) -> Html | None:
    """Return a table of each layer of a single run, or of the code of each run; None where no run has such units."""
    pairs = [(group, run) for group in groups for run in group.runs][:MAX_RUNS]
    blocks = []
    for group, run in pairs:
        layers = read_features(run)
        if len(pairs) > 1:
            layers = {name: units for name, units in layers.items() if name == "code"}
        for name, units in layers.items():
            title = f"{name}, {len(units)} units"
            label = [title] if len(pairs) == 1 else [swatch(group), f"{group.label}, seed {run.seed}: {title}"]
            is_open = name == "code" and run is pairs[0][1]
            table = _unit_table(units)
            blocks.append(el("details", el("summary", *label), table, open=is_open, data_group=group.number))
    return section("Units in words", "words", el("p", NOTE), *blocks) if blocks else None


def _unit_table(units: Sequence[UnitWords]) -> Html:
    """Return a table with a row for each unit."""
    head = el("tr", *(el("th", text, scope="col") for text in ("unit", "fires", "active with", "produces")))
    rows = []
    for unit in units:
        cells = [_words(unit.active_with), _words(unit.produces)]
        number = [str(unit.unit), el("span", f" {unit.state}", class_="bad") if unit.state else None]
        rate = f"{100 * unit.rate:.0f} %"
        rows.append(el("tr", el("th", number, scope="row"), el("td", rate), *(el("td", cell) for cell in cells)))
    return scrollable(el("table", el("thead", head), el("tbody", *rows), class_="words"), len(rows))


def _words(words: Words) -> list[Html | str]:
    """Return the names of features, the strongest first, each with its score as a tooltip."""
    spans: list[Html | str] = []
    for name, score in sorted(words, key=lambda word: -abs(word[1])):
        text = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
        sign = "" if score > 0 else MINUS
        spans += [", " if spans else "", el("span", f"{sign}{text}", title=f"{name}: {score:.2g}")]
    return spans
