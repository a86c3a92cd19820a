"""The choices that a run makes by its objective: the best epoch, the rate of a schedule, and when training stops early.

All are functions of the metrics of its past epochs, so that a resumed run makes the same ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aetrain.config.errors import RunPruned, error_context
from aetrain.config.settings import Settings
from aetrain.config.validate import locate
from aetrain.data.noise import NoNoise
from aetrain.evaluation.metric_descriptions import collect_descriptions
from aetrain.evaluation.model_selection import (
    BEST_EPOCH,
    KEPT_EPOCH,
    ObjectiveMetric,
    check_epoch_metric,
    check_measured,
    check_objective,
    check_selection,
    check_single_objective,
    final_objective,
    objective_metrics,
)
from aetrain.model.codes import RandomCode
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.saved_config import saved_config
from aetrain.training.early_stopping import StopRule
from aetrain.training.schedules import reads_objective
from aetrain.training.selectors import name_selectors
from aetrain.training.step import OptimizerStep

PRUNED = "pruned"  # key of an epoch's record: why a search stopped the run after it

SEARCH = "the search"  # in messages

EpochLine = Mapping[str, Any]  # a line of history.jsonl


class EpochSelection:
    """The best epoch, the early stop and the learning rates of one run, from the metrics of its epochs."""

    def __init__(self, request: RunRequest, settings: Settings, held_out: str) -> None:
        self.objective = settings.objective
        self.prune = request.prune
        self.keeps_best = settings.keep == "best"
        self.rule = make_stop_rule(settings)
        self.selectors = _selectors(settings)
        self.reads_objective = reads_objective(locate(settings.schedule["_target_"]))
        self.held_out = held_out

    @property
    def metric(self) -> ObjectiveMetric:
        """The metric of the objective, the first where there are several."""
        return objective_metrics(self.objective, self.held_out)[0]

    @property
    def compares_epochs(self) -> bool:
        """Tell whether the run compares its epochs by the objective."""
        return bool(self.selectors)

    def best_epoch(self, lines: Sequence[EpochLine]) -> int | None:
        """Return the first epoch with the best objective; None before one has been measured."""
        metric = self.metric
        measured = [line for line in lines if metric.tag in line]
        if not measured:
            return None
        sign = -1.0 if metric.higher_is_better else 1.0
        return int(min(measured, key=lambda line: sign * line[metric.tag])["epoch"])

    def recorded_stop_reason(self, lines: Sequence[EpochLine]) -> str:
        """Return why training has stopped after these epochs of a run that is resumed; empty where it continues.

        A search is not asked again.
        """
        pruned = "" if self.prune is None or not lines else str(lines[-1].get(PRUNED, ""))
        return self._reason_of_rule(lines) or pruned

    def record(self, lines: Sequence[dict[str, Any]]) -> str:
        """Return why training stops after the last of these epochs; empty where it continues.

        The record of the epoch gets the best epoch so far, and the reason of a search that stops the run. Raise
        ConfigError where it lacks the metric by which the run compares epochs.
        """
        line = lines[-1]
        if self.compares_epochs:
            check_epoch_metric(self.metric.tag, line, self.selectors[0])
            if (best := self.best_epoch(lines)) is not None:
                line[BEST_EPOCH] = best
        pruned = "" if self.prune is None else self.prune(lines)
        if pruned:
            line[PRUNED] = pruned
        return self._reason_of_rule(lines) or pruned

    def summary(self, lines: Sequence[EpochLine], stop_reason: str) -> dict[str, Any]:
        """Return what metrics.json says about the end of training after these epochs."""
        summary: dict[str, Any] = {"stop_reason": stop_reason} if stop_reason else {}
        best = self.best_epoch(lines) if self.compares_epochs else None
        if best is not None:
            summary[BEST_EPOCH] = best
            summary[KEPT_EPOCH] = best if self.keeps_best else lines[-1]["epoch"]
        return summary

    def describe_best(self, lines: Sequence[EpochLine]) -> str:
        """Return a sentence about the best epoch; empty where the run does not compare epochs."""
        best = self.best_epoch(lines) if self.compares_epochs else None
        if best is None:
            return ""
        tag, last = self.metric.tag, lines[-1]
        value = next(line[tag] for line in lines if line["epoch"] == best)
        if best == last["epoch"]:
            return f"best: epoch {best}, the last, with {tag} {value:.4g}"
        kept = "its weights are kept" if self.keeps_best else "the weights are those of the last (keep=best: the best)"
        return f"best: epoch {best} with {tag} {value:.4g}, last: epoch {last['epoch']} with {last[tag]:.4g}; {kept}"

    def set_rates(self, steps: Sequence[OptimizerStep], lines: Sequence[EpochLine]) -> None:
        """Let the schedules of steps that read the objective set their learning rates after these epochs."""
        if self.reads_objective:
            for step in steps:
                step.set_objective(self._values(lines), self.metric.higher_is_better)

    def _reason_of_rule(self, lines: Sequence[EpochLine]) -> str:
        if not self.rule.is_active:
            return ""
        reason = self.rule.reason(self._values(lines), self.metric.higher_is_better)
        return f"{self.metric.tag}: {reason}" if reason else ""

    def _values(self, lines: Sequence[EpochLine]) -> list[float]:
        """Return the objective of these epochs, without those in which it was not measured."""
        tag = self.metric.tag
        return [float(line[tag]) for line in lines if tag in line]


def check_pruned(lines: Sequence[EpochLine], stop_reason: str) -> None:
    """Raise RunPruned where a search has stopped the training after these epochs: such a run is not evaluated."""
    if stop_reason and stop_reason == lines[-1].get(PRUNED):
        raise RunPruned(stop_reason)


def make_stop_rule(settings: Settings) -> StopRule:
    """Return the rule of the group `stop`."""
    arguments = {name: value for name, value in settings.stop.items() if name != "_target_"}
    with error_context("stop"):
        rule: StopRule = locate(settings.stop["_target_"])(**arguments)
    return rule


def selectors(request: RunRequest, settings: Settings) -> list[str]:
    """Return the settings that compare by the objective, in words; none for a plain training run."""
    return [*_selectors(settings), *([SEARCH] if request.in_search else [])]


def _selectors(settings: Settings) -> list[str]:
    """Return the settings that compare the epochs of a run by the objective, in words."""
    return name_selectors(settings.keep, make_stop_rule(settings), locate(settings.schedule["_target_"]))


def check_names(request: RunRequest, settings: Settings, components: Components) -> None:
    """Raise ConfigError where the objective does not fit the run, as far as it is known before any data are read."""
    measures, noun = components.measures.values(), components.dataset.noun
    if all(getattr(measure, "descriptions", {}) for measure in measures):
        check_objective(settings.objective, collect_descriptions(components.objective.penalties, measures, noun))
    for selector in selectors(request, settings):
        if selector != SEARCH:
            check_single_objective(settings.objective, selector)
        check_selection(settings.objective, settings.select_on_test, selector)
        check_measured(settings.objective, epoch_metrics(components), selector, selector != SEARCH)


def check_split(request: RunRequest, settings: Settings, components: Components, held_out: str) -> None:
    """Raise ConfigError where the objective does not fit the split on which epochs are evaluated.

    The run would select on the test set because it has no validation examples, or by the test set where it has some.
    """
    for selector in selectors(request, settings):
        check_selection(settings.objective, settings.select_on_test, selector, held_out)
        check_measured(settings.objective, epoch_metrics(components), selector, selector != SEARCH, held_out)


def epoch_metrics(components: Components) -> dict[str, set[str]]:
    """Return the metrics of `train` and `validation`, the held-out examples, that are measured after every epoch.

    Metrics of training alone that have no better direction are left out.
    """
    model, losses = components.model, {"loss", "nll", *components.objective.penalties}
    groups = {
        ("sse", "mse"): True,
        ("kl", "neg_elbo"): issubclass(model.bottleneck.emits, RandomCode),
        ("bits_per_dim",): model.likelihood.reports_bits_per_dim,
        ("bce",): model.kind == "image" and not model.has_missing,
        ("noisy_sse",): not isinstance(components.noise, NoNoise),
        ("rmse", "mae"): model.kind != "counts" and model.has_missing,
        ("token_perplexity",): model.kind == "counts",
    }
    return {"train": losses, "validation": losses.union(*(names for names, has in groups.items() if has))}


def stop_reason_of_finished(request: RunRequest, settings: Settings, run_dir: RunDirectory) -> str:
    """Return why a finished run has ended before its last epoch under these settings; empty where it continues."""
    lines = run_dir.history()
    if not lines:
        return ""
    held_out = "validation" if any(tag.startswith("validation/") for tag in lines[-1]) else "test"
    return EpochSelection(request, settings, held_out).recorded_stop_reason(lines)


def epoch_of_weights(run_dir: RunDirectory, epoch: int) -> int:
    """Return the epoch of the weights in a run's checkpoint of an epoch: with keep=best, the best one up to there."""
    if saved_config(run_dir.path).get("keep") != "best":
        return epoch
    line: EpochLine = next((line for line in run_dir.history() if line["epoch"] == epoch), {})
    return int(line.get(BEST_EPOCH, epoch))


def objective_of_run(run_dir: RunDirectory, objective: str | Sequence[str]) -> float | tuple[float, ...]:
    """Return the objective of a finished run: a number, or a tuple where the setting `objective` is a list.

    Raise ConfigError where the run has no such metric.
    """
    values = final_objective(objective, run_dir.metrics(), run_dir.history())
    return values[0] if isinstance(objective, str) else values
