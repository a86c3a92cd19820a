"""search.json in the directory of a sweep: the trials of a search, which its report reads."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aetrain.storage import atomic

SEARCH_FILE = "search.json"

MAX_FILE_BYTES = 50_000_000  # a larger file is not read


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a search: a run with settings from the space."""

    number: int
    settings: dict[str, str]  # of the space, as they are written in overrides
    status: str = "running"  # finished, pruned, failed or running
    values: list[float] | None = None  # of the objective at the end; None unless finished
    run: str = ""  # directory of the run, relative to that of the sweep if it is in there
    epochs: int = 0
    seconds: float = 0.0
    cause: str = ""  # why it failed or was pruned


@dataclass(frozen=True)
class SearchRecord:
    """A search: what it varies, what it optimizes, and its trials so far by number."""

    sweeper: str  # optuna or random
    objective: list[str]
    higher_is_better: list[bool]
    space: dict[str, dict[str, Any]]  # each setting's `values`, or `low`, `high`, `log`
    fixed: list[str]  # overrides that all trials share
    trials: list[TrialRecord] = field(default_factory=list)

    def finished(self) -> list[TrialRecord]:
        """Return the trials that have values of the objective."""
        return [trial for trial in self.trials if trial.values is not None]

    def best(self) -> list[TrialRecord]:
        """Return the finished trials, the best first.

        With several objectives, return those that no other trial beats in all of them (the Pareto front).
        """
        finished = self.finished()
        if len(self.objective) == 1:
            return sorted(finished, key=self._costs)
        front = [trial for trial in finished if not any(self._dominates(other, trial) for other in finished)]
        return sorted(front, key=self._costs)

    def _costs(self, trial: TrialRecord) -> list[float]:
        pairs = zip(trial.values or (), self.higher_is_better, strict=True)
        return [-value if higher else value for value, higher in pairs]

    def _dominates(self, trial: TrialRecord, other: TrialRecord) -> bool:
        mine, others = self._costs(trial), self._costs(other)
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))

    def overrides_of(self, trial: TrialRecord) -> list[str]:
        """Return the overrides of the command that repeats a trial."""
        return [*self.fixed, *(f"{key}={value}" for key, value in trial.settings.items())]


def write_search(directory: Path, record: SearchRecord) -> None:
    """Replace search.json in the directory of a sweep."""
    atomic.replace_text(directory / SEARCH_FILE, json.dumps(asdict(record), indent=1) + "\n")


def read_search(directory: Path) -> SearchRecord | None:
    """Return the search in the directory of a sweep; None where there is none or its file is damaged."""
    file = directory / SEARCH_FILE
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        record = SearchRecord(**{**content, "trials": [TrialRecord(**item) for item in content["trials"]]})
        return record if _is_sound(record) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _is_sound(record: SearchRecord) -> bool:
    """Return whether all values of a record that was read have their types, so that a report can rely on them."""
    texts = [record.sweeper, *record.objective, *record.fixed, *record.space]
    distributions = [item for node in record.space.values() for item in node.get("values", ())]
    for trial in record.trials:
        texts += [trial.status, trial.run, trial.cause, *trial.settings, *trial.settings.values()]
    numbers = [value for trial in record.trials for value in (trial.number, trial.epochs, trial.seconds)]
    numbers += [value for trial in record.trials for value in trial.values or ()]
    lengths = {len(record.objective), len(record.higher_is_better)}
    lengths |= {len(trial.values) for trial in record.trials if trial.values is not None}
    return (
        len(lengths) == 1
        and bool(record.objective)
        and all(isinstance(text, str) for text in [*texts, *distributions])
        and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    )
