"""The best epochs of runs that compare their epochs by the objective, such as by `keep=best` or `stop.patience=`."""

from collections.abc import Iterable, Sequence

from aetrain.evaluation.model_selection import BEST_EPOCH, KEPT_EPOCH
from aetrain.report.charts import Point
from aetrain.report.groups import RunGroup
from aetrain.report.html import Html, el
from aetrain.report.runs import RunSummary


def best_points(group: RunGroup, tag: str) -> list[Point]:
    """Return the best epoch of each run of a group, and its value of a metric."""
    points = []
    for run in group.runs:
        best = run.metrics.get(BEST_EPOCH)
        points += [(line["epoch"], line[tag]) for line in run.history if line["epoch"] == best and tag in line]
    return points


def best_epoch_of_single_run(runs: Sequence[RunSummary]) -> Iterable[Html]:
    """Yield a sentence about the best epoch of the only run."""
    if len(runs) != 1 or BEST_EPOCH not in runs[0].metrics:
        return
    metrics, objective = runs[0].metrics, runs[0].settings.get("objective", "")
    best, last = metrics[BEST_EPOCH], metrics.get("epochs", 0)
    kept = "its weights are kept" if metrics.get(KEPT_EPOCH) == best else "the weights are those of the last one"
    yield el("li", "Best epoch: ", el("b", f"{best:.0f}"), f" of {last:.0f}, by {objective}; {kept}.")


def has_best_epochs(groups: Sequence[RunGroup]) -> bool:
    """Tell whether any run has a best epoch."""
    return any(BEST_EPOCH in run.metrics for group in groups for run in group.runs)
