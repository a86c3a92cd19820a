"""The objective of model selection: the metrics by which epochs and runs are compared (`objective=validation/loss`).

An epoch's metrics are a line of history.jsonl, the final ones are in metrics.json. `validation/NAME` is NAME of the
held-out examples: those of the test set in a run without a validation split. This module imports no torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.errors import ConfigError, did_you_mean, list_choices
from aetrain.evaluation.metric_direction import better_direction
from aetrain.evaluation.metric_names import find_pattern, name_of

SPLITS = ("validation", "test", "train")
VALIDATION = "validation/"
MEND = "hold training examples out for it (dataset.validation=5000), or allow it with select_on_test=true"

METRICS_AT_END = ("train/seconds_per_epoch",)  # measured once, at the end of a run, as the metrics of the test set are

# Keys of metrics.json.
BEST_EPOCH = "best_epoch"  # the first one with the best objective; also in each line of history.jsonl, up to there
KEPT_EPOCH = "kept_epoch"  # the one whose weights the run ends with


@dataclass(frozen=True)
class ObjectiveMetric:
    """One metric of the objective: its tag in the records of a run, and the better direction."""

    tag: str
    higher_is_better: bool

    def is_better(self, value: float, other: float) -> bool:
        """Tell whether a value is better than another."""
        return value > other if self.higher_is_better else value < other


def objective_names(objective: str | Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that the setting `objective` names, one or several."""
    return (objective,) if isinstance(objective, str) else tuple(objective)


def objective_metrics(objective: str | Sequence[str], held_out: str = "validation") -> tuple[ObjectiveMetric, ...]:
    """Return the metrics of the setting `objective` for a run whose held-out split is `held_out`.

    Raise ConfigError for a metric of which neither direction is better.
    """
    metrics = []
    for name in objective_names(objective):
        direction = better_direction(name)
        if direction is None:
            raise ConfigError(
                f"objective={name}: neither a higher nor a lower {name_of(name)} is better in general: use a metric "
                "such as validation/loss or validation/sse"
            )
        tag = f"{held_out}/{name.removeprefix(VALIDATION)}" if name.startswith(VALIDATION) else name
        metrics.append(ObjectiveMetric(tag, direction == "higher"))
    return tuple(metrics)


# --- Values -----------------------------------------------------------------------------------------------------------


def epoch_objective(objective: str | Sequence[str], line: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the values of the objective at the end of an epoch, from its line of history.jsonl.

    Return None where the epoch has no such metric: epoch 0 has no `train/` metrics, and some metrics are measured at
    the end of a run alone.
    """
    values = [line.get(metric.tag) for metric in objective_metrics(objective, held_out_split(line))]
    return None if None in values else tuple(float(value) for value in values if value is not None)


def final_objective(
    objective: str | Sequence[str], metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> tuple[float, ...]:
    """Return the values of the objective of a finished run, from its metrics.json and the lines of its history.jsonl.

    A metric that is measured after every epoch is that of the epoch whose weights were kept. Raise ConfigError where
    the run has no such metric.
    """
    kept = metrics.get(KEPT_EPOCH, metrics.get("epochs"))
    line: Mapping[str, Any] = next((line for line in reversed(history) if line["epoch"] == kept), {})
    values = []
    for metric in objective_metrics(objective, held_out_split(line)):
        value = line.get(metric.tag, metrics.get(metric.tag))
        if value is None:
            raise _no_such_metric(metric.tag, {**metrics, **line})
        values.append(float(value))
    return tuple(values)


def held_out_split(line: Mapping[str, Any]) -> str:
    """Return the split on which the epoch of a line of history.jsonl was evaluated: `validation` or `test`."""
    return "validation" if any(tag.startswith(VALIDATION) for tag in line) else "test"


# --- Checks -----------------------------------------------------------------------------------------------------------


def check_objective(objective: str | Sequence[str], known: Collection[str]) -> None:
    """Raise ConfigError for a metric that no run of a config has; `known` are names and patterns of its metrics.

    Called before any data are read.
    """
    names = objective_names(objective)
    if not names:
        raise ConfigError("objective=[] is empty: use a metric such as validation/loss, or a list of metrics")
    for name in names:
        split, slash, metric = name.partition("/")
        if not slash or split not in SPLITS:
            tags = [f"{split}/{metric}" for split in SPLITS for metric in known]
            wanted = f"{VALIDATION}{name}" if find_pattern(name, known) else name
            raise ConfigError(
                f"objective={name} is no metric of a run: write the split and the name, such as validation/loss"
                f"{did_you_mean(wanted, tags)}"
            )
        if not find_pattern(metric, known):
            hint = did_you_mean(name, [f"{split}/{metric}" for metric in known])
            raise ConfigError(f"objective={name}: this run has no metric '{metric}'{hint}")


def check_single_objective(objective: str | Sequence[str], setting: str) -> None:
    """Raise ConfigError where the objective has several metrics, for a setting that compares epochs by one."""
    if len(names := objective_names(objective)) > 1:
        raise ConfigError(f"{setting} compares epochs by one metric: use objective={names[0]}, not a list")


def check_selection(
    objective: str | Sequence[str], select_on_test: bool, selector: str, held_out: str = "validation"
) -> None:
    """Raise ConfigError where `selector`, such as `keep=best`, would select by a metric of the test set.

    Such a metric is no estimate of the error on new data. `held_out` is the split on which epochs are evaluated; before
    the data are read it is unknown, and the default finds the metrics that name the test set.
    """
    if select_on_test:
        return
    for name, metric in zip(objective_names(objective), objective_metrics(objective, held_out), strict=True):
        if metric.tag.startswith("test/"):
            reason = "" if name == metric.tag else ", which is of the test set: there are no validation examples"
            raise ConfigError(f"{selector} would select on the test set by objective={name}{reason}: {MEND}")


def check_measured(
    objective: str | Sequence[str],
    every_epoch: Mapping[str, Collection[str]],
    selector: str,
    compares_epochs: bool,
    held_out: str = "test",
) -> None:
    """Raise ConfigError where `selector` would compare epochs, or runs, by a metric that is not measured then.

    `every_epoch` are the metrics of `train` and of `validation`, the held-out examples, that are measured after every
    epoch. Metrics of the test set and METRICS_AT_END are measured at the end of a run. `held_out` is the split on which
    epochs are evaluated; before the data are read it is unknown, and the default allows metrics of both.
    """
    for name in objective_names(objective):
        split, _, metric = name.partition("/")
        measured = every_epoch["train" if split == "train" else "validation"]
        at_end = split == "test" or name in METRICS_AT_END
        if metric in measured and not (split == "test" and held_out != "test"):
            continue
        if compares_epochs or not at_end:
            tags = [f"{VALIDATION}{other}" for other in every_epoch["validation"] if better_direction(other)]
            final = "" if compares_epochs else f", or test/{metric}, of the end of a run, with select_on_test=true"
            raise ConfigError(
                f"{selector} needs a metric that is measured after every epoch, and objective={name} is not: "
                f"use {list_choices(tags, name)}{final}"
            )


def check_epoch_metric(tag: str, line: Mapping[str, Any], setting: str) -> None:
    """Raise ConfigError where the line of an epoch lacks a metric by which `setting` compares epochs."""
    is_training_metric = tag.startswith("train/")  # measured from epoch 1 on
    if tag not in line and not (is_training_metric and line["epoch"] == 0):
        raise ConfigError(f"{setting} needs a metric of every epoch: {_no_such_metric(tag, line)}")


def _no_such_metric(tag: str, metrics: Mapping[str, Any]) -> ConfigError:
    tags = [name for name in metrics if "/" in name and better_direction(name)]
    choices = f"; use {list_choices(tags, tag)}" if tags else ""
    return ConfigError(f"objective={tag}: there is no such metric{choices}")
