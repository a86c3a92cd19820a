"""The members of a comparison: the runs that a user names, those of one config with several seeds as one member."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.evaluation.comparability import comparison_kind
from aetrain.report.groups import RunGroup
from aetrain.report.runs import RunSummary
from aetrain.storage.checkpoint_state import latest_state

CONTENTS = ("images", "shape", "pixels", "targets")  # of the digests of the test data; their classes may differ


@dataclass(frozen=True)
class Member:
    """A run, or the runs of one config with several seeds, that is compared with others."""

    label: str
    group: RunGroup
    runs: Sequence[RunSummary]


def make_members(groups: Sequence[RunGroup], first_run: RunSummary) -> list[Member]:
    """Return the members, that of `first_run` first: the groups, or the runs of the only group."""
    if len(groups) == 1:
        members = [Member(run.name, groups[0], [run]) for run in groups[0].runs]
    else:
        members = [Member(group.label, group, group.runs) for group in groups]
    return sorted(members, key=lambda member: first_run not in member.runs)


def check_common_test_data(folders: Sequence[Path], runs_by_folder: Sequence[Sequence[RunSummary]]) -> None:
    """Raise ConfigError where no two of the folders have runs with equal test data."""
    if not any(_have_common_data(first, second) for first, second in combinations(runs_by_folder, 2)):
        names = ",".join(map(str, folders))
        raise ConfigError(
            f"run=[{names}] have no test data in common, so that nothing can be compared: name runs on the same data; "
            "a report on the folder that holds them has a part for each data set"
        )


def _have_common_data(first: Sequence[RunSummary], second: Sequence[RunSummary]) -> bool:
    return any(_have_equal_data(a, b) for a in first for b in second)


def _have_equal_data(first: RunSummary, second: RunSummary) -> bool:
    """Tell whether the test data of two runs are equal by their digests, or by settings where a run has none."""
    digests = _digests(first), _digests(second)
    if None in digests:
        return _kind(first) == _kind(second)
    return digests[0] == digests[1]


def _digests(run: RunSummary) -> str | None:
    """Return the digests of a run's test data as text; None where its checkpoint has none, as in runs of 0.1."""
    state = latest_state(run.path)
    test: Any = state.data.get("test") if state else None
    return json.dumps([test.get(name) for name in CONTENTS]) if isinstance(test, dict) else None


def _kind(run: RunSummary) -> str:
    return comparison_kind("test/sse", run.settings)
