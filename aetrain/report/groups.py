"""Group runs that differ only in their seed, and find the settings in which the groups differ."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.paths import default_options, groups
from aetrain.config.settings import role_of
from aetrain.report.runs import RunSummary

MAX_EXTRA_SETTINGS = 6  # settings that are shown where overrides do not distinguish the groups

# Last parts of names that mean little without the part before them: `kl.weight`.
AMBIGUOUS_NAMES = ("weight", "p", "k", "std")

ValuesByKey = dict[str, list[str]]  # of each setting, the value in each group


@dataclass(frozen=True)
class Spread:
    """The mean and the standard deviation of a metric over seeds."""

    mean: float
    deviation: float  # of the sample; 0 for one run
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return Spread(statistics.fmean(values), deviation if math.isfinite(deviation) else 0.0, len(values))


@dataclass(frozen=True)
class RunGroup:
    """Runs of one config that may differ in their seed."""

    number: int
    differences: Mapping[str, str]  # the settings that vary between groups, and their values in this one
    runs: Sequence[RunSummary]

    @property
    def label(self) -> str:
        """A short name that distinguishes the group from the others: `vae, lr=0.01`."""
        parts = []
        for key, value in self.differences.items():
            if value:
                parts.append(value if key in groups() else f"{short_name(key)}={value}")
        return ", ".join(parts) or ("as configured" if self.differences else self.runs[0].name)

    @property
    def finished(self) -> list[RunSummary]:
        """The runs with the status `finished`."""
        return [run for run in self.runs if run.status == "finished"]

    def metric(self, tag: str) -> Spread | None:
        """Return the spread of a metric over the finished runs that have it; None if no run does."""
        values = [run.metrics[tag] for run in self.finished if tag in run.metrics]
        return Spread.of(values) if values else None


def short_name(key: str) -> str:
    """Return the end of a setting's dotted name: `lr`, but `kl.weight`."""
    names = key.split(".")
    two = len(names) > 2 or names[-1] in AMBIGUOUS_NAMES
    return ".".join(names[-2:] if two else names[-1:])


def group_runs(runs: Sequence[RunSummary]) -> list[RunGroup]:
    """Return the groups in the order of their first runs. Runs of a group are sorted by seed."""
    by_config: dict[str, list[RunSummary]] = {}
    for run in runs:
        by_config.setdefault(_config_text(run), []).append(run)
    differences = _differences([members[0] for members in by_config.values()])
    return [
        RunGroup(number, differences[number], sorted(members, key=lambda run: (len(run.seed), run.seed, run.name)))
        for number, members in enumerate(by_config.values())
    ]


def _config_text(run: RunSummary) -> str:
    """Return a text that is equal for runs of the same group."""
    compared = {key: value for key, value in run.settings.items() if role_of(key).compared}
    return json.dumps(compared, sort_keys=True, default=str) if compared else f"damaged: {run.name}"


def _differences(runs: Sequence[RunSummary]) -> list[dict[str, str]]:
    """Return the settings that vary between runs, one of each group: for each run, its values.

    The overrides that vary come first, in the order of the command line. Where they are equal for some of the runs, as
    after a change of a config file, other settings follow.
    """
    values_by_key = _varying_overrides(runs)
    rows = [tuple(_row(values_by_key, i).values()) for i in range(len(runs))]
    counts = Counter(rows)
    equal = [run for run, row in zip(runs, rows, strict=True) if counts[row] > 1 and run.settings]
    for key in _varying_settings(equal, known=values_by_key):
        values_by_key[key] = [_as_text(run.settings.get(key)) for run in runs]
    return [_row(values_by_key, i) for i in range(len(runs))]


def _row(values_by_key: ValuesByKey, i: int) -> dict[str, str]:
    """Return the values of run i."""
    return {key: values[i] for key, values in values_by_key.items()}


def _varying_overrides(runs: Sequence[RunSummary]) -> ValuesByKey:
    """Return the settings that some run overrides and that vary between the runs."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides if role_of(key).compared)
    values_by_key = {}
    for key in keys:
        values = [_value(run, key) for run in runs]
        if len(set(values)) > 1:
            values_by_key[key] = values
    return values_by_key


def _varying_settings(runs: Sequence[RunSummary], known: Mapping[str, Any]) -> list[str]:
    """Return up to MAX_EXTRA_SETTINGS settings that vary between the runs and are not among the known ones."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if role_of(key).compared and key not in known)

    def varies(key: str) -> bool:
        return len({str(run.settings.get(key)) for run in runs}) > 1

    return [key for key in keys if varies(key)][:MAX_EXTRA_SETTINGS]


def _value(run: RunSummary, key: str) -> str:
    """Return a setting of a run as text: its override, its config's value, or the default option of a group."""
    if key in run.overrides:
        return _shorter_number(run.overrides[key])
    if key in run.settings:
        return _as_text(run.settings[key])
    return "" if "experiment" in run.overrides else default_options().get(key, "")


def _as_text(value: Any) -> str:
    return "" if value is None else _shorter_number(str(value))


def _shorter_number(text: str) -> str:
    """Return a number in its shorter form: Hydra writes 1e9 as 1000000000.0. Other texts are returned as they are."""
    try:
        return min(text, f"{float(text):g}", key=len)
    except ValueError:
        return text


def shared_settings(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return the settings that are equal in all runs whose config can be read."""
    configs = [run.settings for run in runs if run.settings]
    if not configs:
        return {}
    shared = {}
    for key, value in configs[0].items():
        if role_of(key).listed and all(config.get(key) == value for config in configs):
            shared[key] = _as_text(value)
    return shared
