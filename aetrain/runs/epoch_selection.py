"""The choices that a run makes by its objective: when training stops early. All are functions of its past epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

from aetrain.config.errors import error_context
from aetrain.config.settings import Settings
from aetrain.config.validate import locate
from aetrain.evaluation.metric_descriptions import collect_descriptions
from aetrain.evaluation.model_selection import (
    ObjectiveMetric,
    check_epoch_metric,
    check_objective,
    check_selection,
    check_single_objective,
    final_objective,
    objective_metrics,
)
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.early_stopping import StopRule

PRUNED = "pruned"  # key of an epoch's record: why a search stopped the run after it

EpochLine = Mapping[str, Any]  # a line of history.jsonl


class EpochSelection:
    """What follows from the metrics of the epochs of one run."""

    def __init__(self, request: RunRequest, settings: Settings, held_out: str) -> None:
        self.objective = settings.objective
        self.prune = request.prune
        self.rule = make_stop_rule(settings)
        self.held_out = held_out

    @property
    def metric(self) -> ObjectiveMetric:
        """The metric of the objective, the first where there are several."""
        return objective_metrics(self.objective, self.held_out)[0]

    def check_first_epoch(self, line: EpochLine) -> None:
        """Raise ConfigError where the record of an epoch lacks the metric by which the run compares epochs."""
        if self.rule.is_active:
            check_epoch_metric(self.metric.tag, line, "stop.patience")

    def recorded_stop_reason(self, lines: Sequence[EpochLine]) -> str:
        """Return why training has stopped after these epochs of a run that is resumed; empty where it goes on.

        A search is not asked again.
        """
        pruned = "" if self.prune is None or not lines else str(lines[-1].get(PRUNED, ""))
        return self._reason_of_rule(lines) or pruned

    def stop_reason(self, lines: Sequence[EpochLine]) -> tuple[str, dict[str, str]]:
        """Return why training stops after the last of these epochs, and what its record says about it.

        The reason is empty where training continues.
        """
        pruned = "" if self.prune is None else self.prune(lines)
        return self._reason_of_rule(lines) or pruned, {PRUNED: pruned} if pruned else {}

    def _reason_of_rule(self, lines: Sequence[EpochLine]) -> str:
        if not self.rule.is_active:
            return ""
        metric = self.metric
        values = [float(line[metric.tag]) for line in lines if metric.tag in line]
        reason = self.rule.reason(values, metric.higher_is_better)
        return f"{metric.tag}: {reason}" if reason else ""


def make_stop_rule(settings: Settings) -> StopRule:
    """Return the rule of the group `stop`."""
    arguments = {name: value for name, value in settings.stop.items() if name != "_target_"}
    with error_context("stop"):
        rule: StopRule = locate(settings.stop["_target_"])(**arguments)
    return rule


def selectors(request: RunRequest, settings: Settings) -> list[str]:
    """Return the settings that compare by the objective, in words; none for a plain training run."""
    selecting = ["stop.patience"] if make_stop_rule(settings).is_active else []
    return [*selecting, "the search"] if request.in_search else selecting


def check_names(request: RunRequest, settings: Settings, components: Components) -> None:
    """Raise ConfigError where the objective does not fit the run, as far as it is known before any data are read."""
    measures, noun = components.measures.values(), components.dataset.noun
    if all(getattr(measure, "descriptions", {}) for measure in measures):
        check_objective(settings.objective, collect_descriptions(components.objective.penalties, measures, noun))
    for selector in selectors(request, settings):
        if selector != "the search":
            check_single_objective(settings.objective, selector)
        check_selection(settings.objective, settings.select_on_test, selector)


def check_split(request: RunRequest, settings: Settings, held_out: str) -> None:
    """Raise ConfigError where the run would select on the test set because it has no validation examples."""
    for selector in selectors(request, settings):
        check_selection(settings.objective, settings.select_on_test, selector, held_out)


def stop_reason_of_finished(request: RunRequest, settings: Settings, run_dir: RunDirectory) -> str:
    """Return why a finished run has ended before its last epoch under these settings; empty where it goes on."""
    lines = run_dir.history()
    if not lines:
        return ""
    held_out = "validation" if any(tag.startswith("validation/") for tag in lines[-1]) else "test"
    return EpochSelection(request, settings, held_out).recorded_stop_reason(lines)


def objective_of_run(run_dir: RunDirectory, objective: str | Sequence[str]) -> float | tuple[float, ...]:
    """Return the objective of a finished run: a number, or a tuple where the setting `objective` is a list.

    Raise ConfigError where the run has no such metric.
    """
    values = final_objective(objective, run_dir.metrics(), run_dir.history())
    return values[0] if isinstance(objective, str) else values
