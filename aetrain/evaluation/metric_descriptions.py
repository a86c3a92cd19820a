"""The descriptions of metrics, from the classes that compute them: of a run, and of all options as a page.

`python -m aetrain.evaluation.metric_descriptions > docs/metrics.md` writes the page. Names of folders with further
options, such as `mine` of `--config-dir mine`, may follow.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from aetrain.config.paths import CONFIG_DIR
from aetrain.config.validate import locate
from aetrain.evaluation.evaluator import STANDARD_METRICS
from aetrain.evaluation.measures.measure import Measure
from aetrain.evaluation.metric_names import find_pattern, name_of
from aetrain.objective.penalties import Penalty
from aetrain.utils.wording import reword

TIME_METRICS: Mapping[str, str] = {
    "seconds_per_epoch": "median seconds per training epoch, without evaluation and pictures",
}

_INTRODUCTION = """\
# Metrics

Every run writes its metrics to `metrics.json` under names such as `test/sse`, their descriptions to
`descriptions.json`, and both as a table to `metrics.txt`. Losses and errors are means over the test images, in
evaluation mode.

`nll`, `neg_elbo` and `loss` have the constants of the likelihood, also in curves and in the log. With
`likelihood=gaussian` and `laplace` they are of a density of pixels in [0, 1], for every variance and `dataset.scale`,
and can be negative. With `likelihood=bernoulli` they are of black and white pixels (`dataset.binarize`), or the
cross-entropy of grey ones; with the others they are probabilities. With `likelihood=poisson` and `multinomial` they are
probabilities of counts, and no likelihood of values that are no whole numbers, such as tf-idf. Values of different
kinds have no common unit: a report ranks only those of runs with the same likelihood and the same test images. If
`likelihood.reduction=mean`, the nll in `loss` is divided by the number of pixels. Missing values add nothing. Training
descends the loss without the constants, which change no gradient; metrics and `history.jsonl` name the constant that
all examples share as `nll_constant`, and a constant of the data, such as log x! of counts, is in the losses alone. The
curves `pretrain/2/nll` and above are errors of hidden units, without a constant.

Errors compare images in [0, 1] with the mean of the likelihood. The mean of a Gaussian can lie outside of [0, 1]; it is
not clipped, because its error is part of the nll (`ssim` excepted). Pictures, `mode=export` and `run.reconstruct` clip
it, so their error is at most `test/sse`.

Where the weight of a penalty rises during training (`warmup`, `cycles`), `train/loss` has the weights that training
descends with, and `test/loss` and `validation/loss` the full ones, in every epoch: they can be compared between epochs.
`kl` is the KL itself, also with `free_bits` and `capacity`; the loss then has `kl_term` in its place.

A metric that does not apply to a model is left out, such as `kl` if the code is not random. In a name, `K` and `N`
stand for a number, longer words in capitals for any word: `is_nll_K` describes `is_nll_50`.
"""
_PENALTIES = """\
## Penalties

The metric of a penalty has the name under which the config lists it: `test/dip` for `penalty.dip`. It is not multiplied
by its weight. The losses of a critic are measured in training only, such as `train/critic_accuracy`.
"""
_MEASURES = """\
## Measures

They are computed on request (`measures=`).
"""

Rows = dict[tuple[str, str], list[str]]  # the options that have a metric, by its name and description


# --- The metrics of a run ---------------------------------------------------------------------------------------------


def collect_descriptions(
    penalties: Mapping[str, Penalty], measures: Iterable[Measure], noun: str = "image"
) -> dict[str, str]:
    """Return descriptions by the names or patterns of metrics, in the order of tables, for examples called `noun`.

    First come the standard metrics, then the penalties by name, then the measures, then the time per epoch. A penalty
    without a description has an empty one.
    """
    descriptions: dict[str, str] = {}
    for by_name in STANDARD_METRICS.values():
        descriptions |= by_name
    for name, penalty in penalties.items():
        descriptions |= penalty_descriptions(name, penalty)
    for measure in measures:
        descriptions |= getattr(measure, "descriptions", {})
    return {name: reword(text, noun) for name, text in {**descriptions, **TIME_METRICS}.items()}


def penalty_descriptions(name: str, penalty: Any) -> dict[str, str]:
    """Return the description of a penalty or of its class, and of a critic's losses, by the names of the metrics."""
    descriptions = {name: getattr(penalty, "description", "")}
    for loss, text in getattr(penalty, "loss_descriptions", {}).items():
        descriptions[f"{name}_{loss}"] = text
    return descriptions


def describe_metrics(tags: Iterable[str], descriptions: Mapping[str, str]) -> dict[str, str]:
    """Return the description of each metric by its name, in the order of `descriptions`; unknown ones are last, empty.

    `tags` are names with a split, such as `test/is_nll_50`.
    """
    patterns = {name: find_pattern(name, descriptions) for name in map(name_of, tags)}
    ranks = {pattern: rank for rank, pattern in enumerate(descriptions)}
    names = sorted(patterns, key=lambda name: ranks.get(patterns[name], len(ranks)))
    return {name: descriptions.get(patterns[name], "") for name in names}


# --- The page of all metrics ------------------------------------------------------------------------------------------


def metrics_page(*folders: Path) -> str:
    """Return the text of docs/metrics.md: tables of the standard metrics, and of the metrics of each option.

    `folders` have further options, in the same groups as `configs/`.
    """
    config_dirs = (CONFIG_DIR, *folders)
    parts = [_INTRODUCTION]
    for kind, descriptions in STANDARD_METRICS.items():
        parts.append(_table(f"## {kind}\n", descriptions))
    parts.append(_option_table(_PENALTIES, _penalty_rows(config_dirs)))
    parts.append(_option_table(_MEASURES, _measure_rows(config_dirs)))
    parts.append(_table("## Time\n", TIME_METRICS))
    return "\n".join(parts)


def _table(title: str, descriptions: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | {text} |" for name, text in descriptions.items()]
    return "\n".join([title, "| metric | description |", "|---|---|", *rows, ""])


def _option_table(title: str, options_by_metric: Rows) -> str:
    rows = []
    for (name, text), options in options_by_metric.items():
        names = ", ".join(f"`{option}`" for option in options)
        rows.append(f"| `{name}` | {text} | {names} |")
    return "\n".join([title, "| metric | description | options |", "|---|---|---|", *rows, ""])


def _penalty_rows(config_dirs: Iterable[Path]) -> Rows:
    """Return the metrics of the penalties that options list, in the order of a run's."""
    rows: Rows = {}
    for config_dir in config_dirs:
        for option, node in _options(config_dir, "model"):
            _add_penalties(rows, option, node.get("penalties") or {})
        for option, node in _options(config_dir, "penalty"):
            _add_penalties(rows, option, node)
        for option, node in _options(config_dir, "sparsity"):
            settings = {key: value for key, value in node.items() if key not in ("_target_", "defaults")}
            penalties = locate(node["_target_"])(**settings).penalties
            for name, penalty in penalties.items():
                _add_rows(rows, option, penalty_descriptions(name, penalty))
    return rows


def _add_penalties(rows: Rows, option: str, nodes: Mapping[str, Any]) -> None:
    """Add the metrics of the penalties of an option, whose nodes name their classes."""
    for name, target in _targets(nodes):
        _add_rows(rows, option, penalty_descriptions(name, locate(target)))


def _measure_rows(config_dirs: Iterable[Path]) -> Rows:
    """Return the metrics of the measures that options list."""
    rows: Rows = {}
    for config_dir in config_dirs:
        for option, node in _options(config_dir, "measures"):
            for _, target in _targets(node):
                _add_rows(rows, option, getattr(locate(target), "descriptions", {}))
    return rows


def _add_rows(rows: Rows, option: str, descriptions: Mapping[str, str]) -> None:
    for row in descriptions.items():
        options = rows.setdefault(row, [])
        if option not in options:
            options.append(option)


def _options(config_dir: Path, group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each option of a group, such as `model=vae`, with its config, without that of its `defaults`."""
    for file in sorted((config_dir / group).glob("*.yaml")):
        yield f"{group}={file.stem}", yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _targets(nodes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the class of each node that has a `_target_`."""
    for name, node in nodes.items():
        if isinstance(node, Mapping) and "_target_" in node:
            yield name, node["_target_"]


if __name__ == "__main__":
    print(metrics_page(*map(Path, sys.argv[1:])), end="")
