"""Metrics as text: one line per epoch, a short table at the end of a run, and the table of all metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from aetrain.data.noise import Noise, NoNoise
from aetrain.evaluation.evaluator import STANDARD_METRICS
from aetrain.evaluation.metric_names import BASELINE_SUFFIXES, find_pattern, name_of
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Kind, noun_of
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import KL
from aetrain.training.loop import TrainState
from aetrain.utils.wording import reword

# The metrics in the line of an epoch, where they are measured.
TRAINING_METRICS = ("loss", "nll", "kl", "sparsity")
HELD_OUT_METRICS = ("loss", "neg_elbo", "sse", "noisy_sse", "rmse")

# The standard metrics in the short table. Those of penalties and measures are all in it.
SUMMARY_METRICS = (
    *("loss", "kl", "neg_elbo", "sse", "noisy_sse", "psnr", "ssim", "rmse", "mae"),
    *("l0", "dead_units", "active_units", "dead_hidden", "used_codewords", "perplexity"),
)
STANDARD_NAMES = {name for by_name in STANDARD_METRICS.values() for name in by_name}
UNIT_COUNTS = ("l0", "dead_units", "active_units")  # out of the units of the code
WHOLE_NUMBERS = ("dead_units", "active_units", "used_codewords")

# Other scores of the model and baselines of a metric, by the title of their column: the beginning or the end that their
# names have in its place. For the ends of baselines see `BASELINE_SUFFIXES`.
BASELINE_PREFIXES = {
    "PCA": ("sse", "pca_sse"),
    "mean image": ("sse", "mean_sse"),
    "noisy image": ("noisy_", "input_"),
    "offsets": ("rmse", "bias_rmse"),
    "mean rating": ("rmse", "mean_rmse"),
}
SCORE_SUFFIXES = {"nll": "_nll", "nll + kl": "_nll_kl", "code distance": "_code_distance"}
TITLES_OF_VECTORS = {"mean image": "mean", "noisy image": "noisy input"}  # in place of those of images
OWN_TITLES = {
    "pixels": "code",
    "input": "code",
    "untrained": "trained",
    "code distance": "error",
}  # of the metric's column beside a baseline

# Short descriptions, by name or pattern, of metrics whose names say little.
NOTES = {
    "psnr": "dB",
    "dead_hidden": "share of hidden units",
    "probe_linear": "% by logistic regression",
    "probe_svm": "% by a support vector machine",
    "probe_knn": "% by nearest neighbours",
    "probe_kmeans": "% by k-means",
    "probe_nmi": "mutual information with k-means",
    "precision_K": "% of the nearest examples",
    "precision_K_binary": "% of the nearest examples by bits",
    "finetuned_N": "%",
}


class LossComponents(Protocol):
    """The components of a run that decide which of its metrics are equal."""

    @property
    def model(self) -> Autoencoder: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def noise(self) -> Noise: ...


def repeated_metrics(components: LossComponents, split: str) -> set[str]:
    """Return the tags of metrics that are others under a second name, for these components, and can be left out.

    Without penalties the training loss is the nll. With the KL divergence as the only penalty, its weight 1, and
    without noise, free bits and capacity, the loss of the images of `split` is the negative ELBO.
    """
    if components.model.likelihood.reduction == "mean":  # the loss is in another unit
        return set()
    penalties = list(components.objective.penalties.values())
    if not penalties:
        return {"train/nll"}
    only, *others = penalties
    is_elbo = not others and type(only) is KL and only.weight == 1 and only.free_bits is None and only.capacity is None
    return {f"{split}/loss"} if is_elbo and type(components.noise) is NoNoise else set()


def epoch_line(
    state: TrainState, metrics: Mapping[str, float], split: str, num_images: int, noun: str = "image"
) -> str:
    """Return `epoch 3/10 | train loss 104.3 kl ... | test loss 80.1 sse ... | 1.52 s, 39,000 images/s`.

    `metrics` have names such as `train/loss`; `split` is the held-out split, `validation` or `test`; `num_images` is
    the number of training images per epoch, and `noun` the word for an example.
    """
    parts = [f"epoch {state.epoch:{len(str(state.epochs))}}/{state.epochs}"]
    for prefix, names in (("train", TRAINING_METRICS), (split, HELD_OUT_METRICS)):
        values = [f"{name} {metrics[f'{prefix}/{name}']:.2f}" for name in names if f"{prefix}/{name}" in metrics]
        if values:
            parts.append(" ".join([prefix, *values]))
    if state.seconds:
        parts.append(f"{state.seconds:.2f} s, {num_images / state.seconds:,.0f} {noun}s/s")
    return " | ".join(parts)


# --- The short table --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A metric in the short table: its tag, its value, and the values of its baselines by the title of the column."""

    tag: str
    value: float
    baselines: Mapping[str, float]
    note: str


def final_table(
    metrics: Mapping[str, float], descriptions: Mapping[str, str], components: LossComponents, verbose: bool
) -> str:
    """Return the table at the end of a run or an evaluation: the short one, or that of all metrics if `verbose`."""
    if verbose:
        return metrics_table(metrics, descriptions)
    repeated = repeated_metrics(components, "test")
    own = {tag: value for tag, value in metrics.items() if tag not in repeated}
    return summary_table(own, descriptions, components.model.code_dim, components.model.kind)


def summary_table(
    metrics: Mapping[str, float], descriptions: Mapping[str, str], code_dim: int, kind: Kind = "image"
) -> str:
    """Return the metrics that matter most as text, with their baselines beside them.

    `kind` is that of the examples. Rows with the same baselines share a head, so that probes, for example, are a
    matrix. `descriptions` give the order, and `code_dim` is the number of units of the code.
    """
    tags = {name_of(tag): tag for tag in _in_order(metrics, descriptions)}
    baselines = {name: _baselines(name, tags) for name in tags}
    folded = {baseline for by_title in baselines.values() for baseline in by_title.values()}
    blocks: dict[tuple[str, ...], list[Row]] = {}
    for name, tag in tags.items():
        if name in folded or not _is_summarised(name, metrics[tag], code_dim):
            continue
        values = {title: metrics[tags[baseline]] for title, baseline in baselines[name].items()}
        titles = () if name in STANDARD_NAMES else tuple(values)
        note = reword(_note(name, code_dim), noun_of(kind))
        blocks.setdefault(titles, []).append(Row(tag, metrics[tag], values, note))
    return _format_blocks(list(blocks.values()), {} if kind == "image" else TITLES_OF_VECTORS)


def _is_summarised(name: str, value: float, code_dim: int) -> bool:
    if name == "l0":
        return value < code_dim  # a dense code has no zeros
    return name in SUMMARY_METRICS or name not in (*STANDARD_NAMES, "seconds_per_epoch")


def _baselines(name: str, names: Iterable[str]) -> dict[str, str]:
    """Return the names of a metric's other scores and baselines by the title of their column."""
    candidates = {title: name + suffix for title, suffix in (SCORE_SUFFIXES | BASELINE_SUFFIXES).items()}
    for title, (prefix, replacement) in BASELINE_PREFIXES.items():
        if name == prefix or (prefix.endswith("_") and name.startswith(prefix)):
            candidates[title] = replacement + name.removeprefix(prefix)
    known = set(names)
    return {title: baseline for title, baseline in candidates.items() if baseline in known}


def _note(name: str, code_dim: int) -> str:
    return f"of {code_dim}" if name in UNIT_COUNTS else NOTES.get(find_pattern(name, NOTES), "")


def _format_blocks(blocks: Iterable[Sequence[Row]], other_titles: Mapping[str, str]) -> str:
    """Return the rows of all blocks as lines, under the head of each block, in columns of equal width.

    `other_titles` replace titles of columns.
    """
    lines: list[tuple[str, list[str], str]] = []  # tag, cells and note
    for rows in blocks:
        titles = list(dict.fromkeys(title for row in rows for title in row.baselines))
        own_title = next((OWN_TITLES[title] for title in titles if title in OWN_TITLES), "model")
        lines.append(("", [own_title, *(other_titles.get(title, title) for title in titles)], ""))
        for row in rows:
            values = [row.value, *(row.baselines.get(title) for title in titles)]
            cells = [_format_value(value, name_of(row.tag)) for value in values]
            lines.append((row.tag, cells, row.note))
    tag_width = max(len(tag) for tag, _, _ in lines)
    columns = zip_longest(*(cells for _, cells, _ in lines), fillvalue="")
    widths = [max(map(len, column)) for column in columns]
    text = []
    for tag, cells, note in lines:
        cells += [""] * (len(widths) - len(cells))
        padded = map(str.rjust, cells, widths)
        text.append("  ".join(["", tag.ljust(tag_width), *padded, note]).rstrip())
    return "\n".join(text)


def _format_value(value: float | None, name: str) -> str:
    """Return a number with four digits, or the count that it is; an empty string for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if name in WHOLE_NUMBERS or abs(value) >= 10_000 else f"{value:#.4g}"


# --- The table of all metrics -----------------------------------------------------------------------------------------


def metrics_table(metrics: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """Return a text table with the columns tag, value and description, one metric per line.

    `descriptions` are texts by the name of the metric, in the order of the table. Other metrics come last.
    """
    values = {tag: f"{metrics[tag]:.4f}" for tag in _in_order(metrics, descriptions)}
    tag_width, value_width = max(map(len, values)), max(map(len, values.values()))
    lines = []
    for tag, value in values.items():
        description = descriptions.get(name_of(tag), "")
        lines.append(f"  {tag:{tag_width}}  {value:>{value_width}}  {description}".rstrip())
    return "\n".join(lines)


def _in_order(metrics: Iterable[str], descriptions: Iterable[str]) -> list[str]:
    """Return the tags of metrics in the order of the descriptions, and then those without one."""
    ranks = {name: rank for rank, name in enumerate(descriptions)}
    return sorted(metrics, key=lambda tag: ranks.get(name_of(tag), len(ranks)))
