"""The metrics of a report: their names, descriptions and order, and those by which runs are compared."""

from collections.abc import Iterable, Sequence

from aetrain.evaluation.metric_direction import CLASS_METRICS, GENERATIVE_METRICS, ITEM_METRICS, find_result
from aetrain.evaluation.metric_names import name_of
from aetrain.report.groups import RunGroup
from aetrain.report.natural_order import natural_key, without_numbers

SECONDS_PER_EPOCH = "train/seconds_per_epoch"

# Metrics by which runs are compared, in this order. Those of CLASS_, ITEM_ and GENERATIVE_METRICS follow.
MAIN_METRICS = (
    "test/sse",
    "test/pca_sse",
    "test/rmse",
    "test/bias_rmse",
    "test/noisy_sse",
    "test/nll",
    "test/neg_elbo",
    "test/kl",
    "test/active_units",
    "test/perplexity",
    "test/ssim",
    SECONDS_PER_EPOCH,
)

SHORT_LABELS = {SECONDS_PER_EPOCH: "s/epoch", "neg_elbo": "-ELBO"}


def metric_name(tag: str) -> str:
    """Return the name of a metric without its split."""
    name = tag.rpartition("/")[2]
    return SHORT_LABELS.get(tag) or SHORT_LABELS.get(name) or name


def describe_metric(tag: str, groups: Sequence[RunGroup]) -> str:
    """Return the description of a metric by the runs that have it, in one line; empty if there is none.

    The texts differ where the metric of runs differs, such as `sparsity` of two kinds of penalty.
    """
    name = name_of(tag)
    texts = dict.fromkeys(run.descriptions.get(name, "") for group in groups for run in group.runs)
    return "; in other runs: ".join(text for text in texts if text)


def main_metrics(tags: Iterable[str]) -> list[str]:
    """Return those of the metrics by which runs are compared."""
    known = sorted(set(tags), key=natural_key)
    main = [tag for tag in MAIN_METRICS if tag in known]
    for pattern in (*CLASS_METRICS, *ITEM_METRICS, *GENERATIVE_METRICS):
        main += [tag for tag in known if find_result(name_of(tag), [pattern])]
    return sorted(main, key=lambda tag: tag.startswith("train/"))  # the time per epoch comes last


def sort_metrics(tags: Iterable[str], groups: Sequence[RunGroup]) -> list[str]:
    """Return metrics in the order in which the runs list them, then by tag.

    Metrics that differ in their numbers are side by side: `precision_2`, `precision_10`.
    """
    ranks: dict[str, int] = {}
    for rank, name in enumerate(_metric_order(groups)):
        ranks.setdefault(without_numbers(name), rank)
    names = {tag: without_numbers(name_of(tag)) for tag in tags}
    return sorted(names, key=lambda tag: (ranks.get(names[tag], len(ranks)), names[tag], natural_key(tag)))


def _metric_order(groups: Sequence[RunGroup]) -> list[str]:
    """Return the names of metrics in the order of the runs' descriptions, and of their metrics.json without them.

    A metric that the first runs lack comes after the one that is before it in another run.
    """
    runs = [run for group in groups for run in group.runs]
    orders = dict.fromkeys((*run.descriptions, *map(name_of, run.metrics)) for run in runs)
    merged: list[str] = []
    for names in orders:
        position = 0
        for name in dict.fromkeys(names):
            if name not in merged:
                merged.insert(position, name)
            position = merged.index(name) + 1
    return merged
