"""What runs differ in: only the settings that vary, and the runs that differ in nothing but their seed together."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.paths import groups
from aetrain.config.said import default_options
from aetrain.config.settings import WHERE_AND_HOW
from aetrain.report.runs import Entry

# Settings that do not say what a run is, or that seeds are averaged over.
APART = (*WHERE_AND_HOW, "views", "measures", "seed", "hydra")

UNTOLD = ("mode", "views", "measures", "run", "query", "resume")  # of the settings that are the same

MANY = 6  # settings that are told to differ where overrides do not tell runs apart


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    mean: float
    deviation: float  # of the sample, 0 for one run
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """The mean and the deviation of at least one value."""
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return Spread(statistics.fmean(values), deviation if math.isfinite(deviation) else 0.0, len(values))


@dataclass(frozen=True)
class Group:
    """Runs of one config, but for their seed."""

    number: int
    cells: Mapping[str, str]  # the settings that vary between groups
    runs: Sequence[Entry]

    @property
    def label(self) -> str:
        """What tells it from the others, short: an option by its name, another setting with its last words."""
        known = groups()
        said = [v if key in known else f"{short(key)}={v}" for key, v in self.cells.items() if v]
        return ", ".join(said) or (self.runs[0].name if not self.cells else "as configured")

    @property
    def finished(self) -> list[Entry]:
        """Those of its runs that came to an end."""
        return [run for run in self.runs if run.status == "finished"]

    def figure(self, tag: str) -> Spread | None:
        """A figure over the finished runs that have it."""
        values = [run.figures[tag] for run in self.finished if tag in run.figures]
        return Spread.of(values) if values else None


def short(key: str) -> str:
    """The last words of a setting's name: `weight` says little, `kl.weight` enough."""
    words = key.split(".")
    return ".".join(words[-2:] if len(words) > 2 or words[-1] in ("weight", "p", "k", "std") else words[-1:])


def grouped(runs: Sequence[Entry]) -> list[Group]:
    """The groups, in the order of their names, with the settings in which they differ."""
    together: dict[str, list[Entry]] = {}
    for run in runs:
        own = {k: v for k, v in run.settings.items() if not _apart(k)}
        key = json.dumps(own, sort_keys=True, default=str) if own else f"damaged: {run.name}"
        together.setdefault(key, []).append(run)
    firsts = [members[0] for members in together.values()]
    cells = _cells(firsts)
    return [
        Group(number, one, sorted(members, key=lambda run: (len(run.seed), run.seed, run.name)))
        for number, (one, members) in enumerate(zip(cells, together.values(), strict=True))
    ]


def _apart(key: str) -> bool:
    return key.split(".")[0] in APART


def _cells(firsts: Sequence[Entry]) -> list[dict[str, str]]:
    """Of each, the settings that vary, by what was said on the command line, in its order."""
    said = list(dict.fromkeys(key for run in firsts for key in run.said if not _apart(key)))
    table = {key: [_value(run, key) for run in firsts] for key in said}
    table = {key: values for key, values in table.items() if len(set(values)) > 1}
    rows = [tuple(values[i] for values in table.values()) for i in range(len(firsts))]
    if len(set(rows)) < len(rows):  # what was said does not tell them apart, as where a config file has changed
        alike = [run for run, row in zip(firsts, rows, strict=True) if rows.count(row) > 1 and run.settings]
        keys = dict.fromkeys(key for run in alike for key in run.settings if not _apart(key) and key not in table)
        differ = [key for key in keys if len({str(run.settings.get(key)) for run in alike}) > 1]
        table |= {key: [_shown(run.settings.get(key)) for run in firsts] for key in differ[:MANY]}
    return [{key: values[i] for key, values in table.items()} for i in range(len(firsts))]


def _value(run: Entry, key: str) -> str:
    """A setting of a run, also where it was left as it is."""
    if key in run.said:
        return _shorter(run.said[key])
    if key in run.settings:
        return _shown(run.settings[key])
    return "" if "experiment" in run.said else default_options().get(key, "")


def _shown(value: Any) -> str:
    return "" if value is None else _shorter(str(value))


def _shorter(text: str) -> str:
    """Hydra writes 1e9 as 1000000000.0."""
    try:
        return min(text, f"{float(text):g}", key=len)
    except ValueError:
        return text


def constants(runs: Sequence[Entry]) -> dict[str, str]:
    """The settings that are the same in all runs that have any."""
    known = [run.settings for run in runs if run.settings]
    if not known:
        return {}
    return {
        key: _shown(value)
        for key, value in known[0].items()
        if all(one.get(key) == value for one in known) and key.split(".")[0] not in UNTOLD
    }
