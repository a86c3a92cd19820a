"""A study proposes the settings of trials and learns their outcomes; random search is the simplest one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aetrain.config.errors import ConfigError
from aetrain.config.search_space import Choice, Distribution, Space
from aetrain.evaluation.model_selection import final_objective
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.search_file import TrialRecord


@dataclass(frozen=True)
class Trial:
    """A proposal: settings of a run."""

    number: int
    settings: Mapping[str, str]  # as they are written in overrides
    trial_id: int | None = None  # in the storage of a study that can prune the run


@dataclass(frozen=True)
class Outcome:
    """The end of a trial's run."""

    status: str  # finished, pruned, failed, or interrupted: the same command continues the run
    values: tuple[float, ...] | None = None  # of the objective; None unless finished
    epochs: int = 0
    seconds: float = 0.0  # of training
    cause: str = ""

    def recorded(self, trial: Trial, run: str) -> TrialRecord:
        """Return the record of a trial with this outcome."""
        values = None if self.values is None else list(self.values)
        settings = dict(trial.settings)
        return TrialRecord(trial.number, settings, self.status, values, run, self.epochs, self.seconds, self.cause)


class Study(Protocol):
    """A source of trials."""

    def ask(self, count: int) -> list[Trial]:
        """Return the next trials, at most `count`; none at the end of the search."""

    def tell(self, trial: Trial, outcome: Outcome, run: str) -> None:
        """Record the outcome of a trial; `run` is the directory of its run."""

    def records(self) -> list[TrialRecord]:
        """Return all trials so far by number."""


def read_outcome(run_dir: RunDirectory, objective: str | Sequence[str]) -> Outcome:
    """Return the outcome of a run from its directory."""
    metrics, history = run_dir.metrics(), run_dir.history()
    epochs = int(history[-1]["epoch"]) if history else 0
    seconds = round(sum(line.get("seconds", 0.0) for line in history), 3)
    match run_dir.status:
        case "finished":
            try:
                values = final_objective(objective, metrics, history)
            except ConfigError as error:
                return Outcome("failed", None, epochs, seconds, str(error))
            if not all(map(math.isfinite, values)):
                return Outcome("failed", None, epochs, seconds, f"its objective is {values}")
            return Outcome("finished", values, epochs, seconds)
        case "pruned":
            return Outcome("pruned", None, epochs, seconds, str(metrics.get("cause", "")))
        case "interrupted":
            return Outcome("interrupted", None, epochs, seconds, str(metrics.get("cause", "")))
        case "running" if run_dir.is_locked:
            return Outcome("interrupted", None, epochs, seconds, "another process trains its run")
        case status:
            return Outcome("failed", None, epochs, seconds, str(metrics.get("cause", f"its run is {status}")))


class RandomStudy:
    """Random search (Bergstra & Bengio 2012): trial n has settings that depend on the seed and n alone.

    The same search in the same directory therefore continues where it was; `earlier` are its trials so far.
    """

    def __init__(self, space: Space, seed: int, n_trials: int, earlier: Sequence[TrialRecord], retry: bool) -> None:
        self.space = space
        self.seed = seed
        self.n_trials = n_trials
        ended = ("finished", "pruned") if retry else ("finished", "pruned", "failed")
        self._records = {record.number: record for record in earlier if record.status in ended}
        self._next = 0

    def ask(self, count: int) -> list[Trial]:
        """Return the next trials that have not ended."""
        trials: list[Trial] = []
        while len(trials) < count and self._next < self.n_trials:
            if self._next not in self._records:
                trial = Trial(self._next, draw_settings(self.space, self.seed, self._next))
                self._records[trial.number] = TrialRecord(trial.number, dict(trial.settings))
                trials.append(trial)
            self._next += 1
        return trials

    def tell(self, trial: Trial, outcome: Outcome, run: str) -> None:
        """Record an outcome."""
        self._records[trial.number] = outcome.recorded(trial, run)

    def records(self) -> list[TrialRecord]:
        """Return all trials so far by number."""
        return [replace(self._records[number]) for number in sorted(self._records)]


def draw_settings(space: Space, seed: int, number: int) -> dict[str, str]:
    """Return the settings of trial `number` of a random search: independent draws from the distributions."""
    import numpy as np

    generator = np.random.default_rng([seed, number])
    return {key: draw_text(distribution, generator.random()) for key, distribution in space.items()}


def draw_text(distribution: Distribution, u: float) -> str:
    """Return the value at the quantile u in [0, 1) of a distribution, as it is written in an override."""
    if isinstance(distribution, Choice):
        return distribution.values[int(u * len(distribution.values))]
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        count = round((high - low) / distribution.step) + 1
        return distribution.text(low + int(u * count) * distribution.step)
    if distribution.is_integer:  # each number has the interval around it
        low, high = low - 0.5, high + 0.5
    value = math.exp(math.log(low) + u * math.log(high / low)) if distribution.log else low + u * (high - low)
    return distribution.text(min(max(value, distribution.low), distribution.high))
