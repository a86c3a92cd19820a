"""Group runs that differ only in their seed, and find the settings in which the groups differ."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.settings import role_of
from aetrain.report.labels import as_text, name_test_sets, short_labels, value_text
from aetrain.report.natural_order import Key, natural_key
from aetrain.report.runs import RunSummary

MAX_EXTRA_SETTINGS = 6  # settings that are shown where overrides do not distinguish the groups

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
    short_label: str = ""  # distinguishes it from the groups with the same test images: `vae, lr=0.01`
    label: str = ""  # distinguishes it from all groups: `vae, lr=0.01 (mnist)`
    test_set: str = ""  # its data set, with the settings by which test images of that data set differ

    @property
    def dataset(self) -> str:
        """The option of its data set."""
        return self.runs[0].options.get("dataset", "")

    @property
    def model(self) -> str:
        """The option of its model."""
        return self.runs[0].options.get("model", "")

    @property
    def description(self) -> str:
        """All settings in which it differs from other groups: `model=vae, dataset=mnist, optimizer.lr=0.01`."""
        return ", ".join(f"{key}={value}" for key, value in self.differences.items() if value)

    @property
    def finished(self) -> list[RunSummary]:
        """The runs with the status `finished`."""
        return [run for run in self.runs if run.status == "finished"]

    def metric(self, tag: str) -> Spread | None:
        """Return the spread of a metric over the finished runs that have it; None if no run does."""
        values = [run.metrics[tag] for run in self.finished if tag in run.metrics]
        return Spread.of(values) if values else None


def group_runs(runs: Sequence[RunSummary]) -> list[RunGroup]:
    """Return the groups, those of one data set and one model side by side, numbers in their labels in ascending order.

    Runs of a group are sorted by seed.
    """
    by_config: dict[str, list[RunSummary]] = {}
    for run in runs:
        by_config.setdefault(_config_text(run), []).append(run)
    members = list(by_config.values())
    first_runs = [group[0] for group in members]
    differences = _differences(first_runs)
    test_sets = name_test_sets(first_runs)
    labels = short_labels(first_runs, differences, test_sets)
    several = len(set(test_sets)) > 1

    def order(i: int) -> tuple[Key, ...]:
        run = first_runs[i]
        return tuple(map(natural_key, (test_sets[i], run.options.get("model", ""), labels[i], run.name)))

    return [
        RunGroup(
            number,
            differences[i],
            sorted(members[i], key=lambda run: (natural_key(run.seed), natural_key(run.name))),
            labels[i],
            f"{labels[i]} ({test_sets[i]})" if several else labels[i],
            test_sets[i],
        )
        for number, i in enumerate(sorted(range(len(members)), key=order))
    ]


def by_test_set(groups: Sequence[RunGroup]) -> dict[str, list[RunGroup]]:
    """Return the groups by the name of their test images."""
    groups_of: dict[str, list[RunGroup]] = {}
    for group in groups:
        groups_of.setdefault(group.test_set, []).append(group)
    return groups_of


def _config_text(run: RunSummary) -> str:
    """Return a text that is equal for runs of the same group."""
    compared = {key: value for key, value in run.settings.items() if role_of(key).compared}
    return json.dumps(compared, sort_keys=True, default=str) if compared else f"damaged: {run.name}"


def _differences(runs: Sequence[RunSummary]) -> list[dict[str, str]]:
    """Return the settings that vary between runs, one of each group: for each run, its values.

    The overrides that vary come first, in the order of the command line, and the options of groups. Where they are
    equal for some of the runs, as after a change of a config file, other settings follow.
    """
    values_by_key = _varying_choices(runs)
    rows = [tuple(_row(values_by_key, i).values()) for i in range(len(runs))]
    counts = Counter(rows)
    equal = [run for run, row in zip(runs, rows, strict=True) if counts[row] > 1 and run.settings]
    for key in _varying_settings(equal, known=values_by_key):
        values_by_key[key] = [value_text(run, key) for run in runs]
    return [_row(values_by_key, i) for i in range(len(runs))]


def _row(values_by_key: ValuesByKey, i: int) -> dict[str, str]:
    """Return the values of run i."""
    return {key: values[i] for key, values in values_by_key.items()}


def _varying_choices(runs: Sequence[RunSummary]) -> ValuesByKey:
    """Return the settings that some run overrides, and the options of groups, that vary between the runs."""
    overrides = dict.fromkeys(key for run in runs for key in run.overrides)
    options = dict.fromkeys(key for run in runs for key in run.options)
    values_by_key = {}
    for key in filter(lambda key: role_of(key).compared, overrides | options):
        values = [value_text(run, key) for run in runs]
        if len(set(values)) > 1:
            values_by_key[key] = values
    return values_by_key


def _varying_settings(runs: Sequence[RunSummary], known: Mapping[str, Any]) -> list[str]:
    """Return up to MAX_EXTRA_SETTINGS settings that vary between the runs and are not among the known ones."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if role_of(key).compared and key not in known)

    def varies(key: str) -> bool:
        return len({str(run.settings.get(key)) for run in runs}) > 1

    return [key for key in keys if varies(key)][:MAX_EXTRA_SETTINGS]


def shared_settings(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return the settings that are equal in all runs whose config can be read."""
    configs = [run.settings for run in runs if run.settings]
    if not configs:
        return {}
    shared = {}
    for key, value in configs[0].items():
        if role_of(key).listed and all(config.get(key) == value for config in configs):
            shared[key] = as_text(value)
    return shared
