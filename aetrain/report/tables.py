"""The tables of a report, on the page and as CSV."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from aetrain.evaluation.metric_names import find_pattern, name_of
from aetrain.report.charts import colour_class, format_number
from aetrain.report.groups import RunGroup, Spread, short_name
from aetrain.report.html import Html, el
from aetrain.report.runs import RunSummary

SECONDS_PER_EPOCH = "train/seconds_per_epoch"

# Metrics by which runs are compared, in this order.
MAIN_METRICS = (
    "test/sse",
    "test/noisy_sse",
    "test/nll",
    "test/neg_elbo",
    "test/kl",
    "test/active_units",
    "test/perplexity",
    "test/ssim",
    SECONDS_PER_EPOCH,
)
# Metrics on request (`measures=`) by which runs are compared as well: names and patterns, in this order.
CLASS_METRICS = ("probe_linear", "probe_svm", "probe_knn", "probe_kmeans", "probe_nmi", "precision_K", "finetuned_N")
GENERATIVE_METRICS = ("frechet_reconstructions", "frechet_samples", "is_nll_K")

SHORT_LABELS = {SECONDS_PER_EPOCH: "s/epoch", "neg_elbo": "-ELBO"}

HIGHER_IS_BETTER = ("psnr", "ssim", "noisy_psnr", *CLASS_METRICS)
LOWER_IS_BETTER = (
    *("sse", "code_sse", "noisy_sse", "mse", "nll", "neg_elbo", "bce", "bce_excess", "noisy_bce"),
    *("seconds_per_epoch", *GENERATIVE_METRICS),
)

TRAINING_SETTINGS = ("dataset.validation",)  # settings of a data set that do not change its test images


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


def sort_metrics(tags: Iterable[str], groups: Sequence[RunGroup]) -> list[str]:
    """Return metrics in the order in which the runs list them, then by tag."""
    ranks = {name: rank for rank, name in enumerate(_metric_order(groups))}
    return sorted(set(tags), key=lambda tag: (ranks.get(name_of(tag), len(ranks)), tag))


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


def main_metrics(tags: Iterable[str]) -> list[str]:
    """Return those of the metrics by which runs are compared."""
    known = sorted(set(tags))
    main = [tag for tag in MAIN_METRICS if tag in known]
    for pattern in (*CLASS_METRICS, *GENERATIVE_METRICS):
        main += [tag for tag in known if find_pattern(name_of(tag), [pattern])]
    return sorted(main, key=lambda tag: tag.startswith("train/"))  # the time per epoch comes last


def best_group(tag: str, groups: Sequence[RunGroup]) -> RunGroup | None:
    """Return the group with the best mean of a metric.

    None if the metric has no better and worse, if fewer than two groups have it, or if the test images differ in any
    way between groups (time per epoch is compared nonetheless).
    """
    if tag != SECONDS_PER_EPOCH and len({_test_images(group) for group in groups}) > 1:
        return None
    ranked = rank_groups(tag, groups)
    pattern = find_pattern(name_of(tag), HIGHER_IS_BETTER + LOWER_IS_BETTER)
    if len(ranked) < 2 or not pattern:
        return None
    choose = max if pattern in HIGHER_IS_BETTER else min
    return choose(ranked, key=lambda pair: pair[0].mean)[1]


def rank_groups(tag: str, groups: Sequence[RunGroup]) -> list[tuple[Spread, RunGroup]]:
    """Return the groups that have a metric, with its spread, in ascending order of the means."""
    pairs = []
    for group in groups:
        spread = group.metric(tag)
        if spread is not None:
            pairs.append((spread, group))
    return sorted(pairs, key=lambda pair: pair[0].mean)


def _test_images(group: RunGroup) -> str:
    """Return a text that is equal for groups whose test images are equal."""

    def matters(key: str) -> bool:
        return key.startswith("dataset.") and key not in TRAINING_SETTINGS

    settings = {key: value for key, value in group.runs[0].settings.items() if matters(key)}
    return json.dumps(settings, sort_keys=True, default=str)


# --- Cells ------------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a sortable table."""

    name: str
    description: str = ""  # tooltip
    numeric: bool = False


def swatch(group: RunGroup) -> Html:
    """Return a square in the colour of a group."""
    return el("i", class_=f"swatch {colour_class(group.number)}")


def run_link(run: RunSummary, name: str = "") -> Html:
    """Return a link from the page to the directory of a run; its text is the run's name by default."""
    return el("a", name or run.name, href=f"{quote(run.link, errors='replace')}/")


def spread_text(spread: Spread | None) -> Html:
    """Return `12.4 ± 1.2`: four significant digits, or fewer if the deviation is large."""
    if spread is None:
        return el("span", "-", class_="none")
    mean = format_number(spread.mean)
    if spread.count == 1:
        return el("span", mean)
    if spread.deviation == 0:
        text, deviation = mean.removesuffix(".00").removesuffix(".0"), "0"
    elif abs(spread.mean) >= 1e6 or "e" in mean:
        text, deviation = mean, format_number(spread.deviation)
    else:
        decimals = len(mean.partition(".")[2])
        decimals = min(decimals, max(0, 1 - math.floor(math.log10(spread.deviation))))
        text, deviation = f"{spread.mean:,.{decimals}f}", f"{spread.deviation:,.{decimals}f}"
    return el("span", text, el("span", f" \N{PLUS-MINUS SIGN} {deviation}", class_="sd"))


def _metric_cells(tag: str, groups: Sequence[RunGroup]) -> list[Html]:
    """Return a metric's cell for each group, the best one in bold."""
    best = best_group(tag, groups)
    cells = []
    for group in groups:
        spread = group.metric(tag)
        class_ = "num best" if group is best else "num"
        cells.append(el("td", spread_text(spread), class_=class_, data_v="" if spread is None else spread.mean))
    return cells


def _run_cell(tag: str, run: RunSummary) -> Html:
    """Return the cell of a run's metric."""
    value = run.metrics.get(tag)
    if value is None:
        return el("td", "-", class_="num", data_v="")
    return el("td", f"{value:.0f}" if tag == "epochs" else format_number(value), class_="num", data_v=value)


def _table(columns: Sequence[Column], rows: Sequence[Html]) -> Html:
    """Return a table that the page's script can sort by any column."""
    heads = []
    for name, description, numeric in columns:
        button = el("button", name, type="button")
        heads.append(el("th", button, class_="num" if numeric else None, title=description or None, scope="col"))
    table = el("table", el("thead", el("tr", *heads)), el("tbody", *rows), class_="sortable")
    return el("div", table, class_="wide")


def _setting_columns(groups: Sequence[RunGroup]) -> list[Column]:
    return [Column(short_name(key), key) for key in _varying_settings(groups)]


def _metric_columns(tags: Sequence[str], groups: Sequence[RunGroup]) -> list[Column]:
    return [Column(metric_name(tag), describe_metric(tag, groups), numeric=True) for tag in tags]


def _varying_settings(groups: Sequence[RunGroup]) -> list[str]:
    """Return the settings that vary between groups."""
    return list(groups[0].differences) if groups else []


# --- Tables -----------------------------------------------------------------------------------------------------------


def overview_table(groups: Sequence[RunGroup], tags: Sequence[str]) -> Html:
    """Return a table with a row per group: its settings, its number of runs, and the spreads of the metrics."""
    columns = _setting_columns(groups) or [Column("run")]
    columns += [Column("runs", "finished runs, of all runs", numeric=True), *_metric_columns(tags, groups)]
    cells_by_tag = {tag: _metric_cells(tag, groups) for tag in tags}
    rows = []
    for i, group in enumerate(groups):
        texts = list(group.differences.values()) or [group.label]
        cells = [el("th", swatch(group), texts[0] or "-", scope="row")]
        cells += [el("th", text or "-", scope="row") for text in texts[1:]]
        finished, total = len(group.finished), len(group.runs)
        count = str(total) if finished == total else f"{finished} of {total}"
        cells.append(el("td", count, class_="num", data_v=finished))
        cells += [cells_by_tag[tag][i] for tag in tags]
        rows.append(el("tr", *cells, data_group=group.number))
    return _table(columns, rows)


def run_table(groups: Sequence[RunGroup], tags: Sequence[str]) -> Html:
    """Return a table with a row per run and a link to its directory."""
    columns = [Column("run", "link to its directory"), *_setting_columns(groups), Column("seed", numeric=True)]
    columns += [Column("status"), Column("epochs", numeric=True), *_metric_columns(tags, groups)]
    rows = []
    for group in groups:
        for run in group.runs:
            cells = [el("th", swatch(group), run_link(run), scope="row")]
            cells += [el("td", value or "-") for value in group.differences.values()]
            cells.append(el("td", run.seed or "-", class_="num", data_v=run.seed))
            cells.append(el("td", run.status, class_=f"status {run.status}"))
            cells += [_run_cell(tag, run) for tag in ("epochs", *tags)]
            rows.append(el("tr", *cells, data_group=group.number))
    return _table(columns, rows)


def metric_table(groups: Sequence[RunGroup]) -> Html:
    """Return a table with a row per metric and a column per group."""
    tags = sort_metrics(
        (tag for group in groups for run in group.finished for tag in run.metrics if "/" in tag), groups
    )
    columns = [Column("metric"), *(Column(group.label, numeric=True) for group in groups), Column("description")]
    rows = []
    for tag in tags:
        description = el("td", describe_metric(tag, groups), class_="what")
        rows.append(el("tr", el("th", tag, scope="row"), *_metric_cells(tag, groups), description))
    return _table(columns, rows)


def to_csv(groups: Sequence[RunGroup]) -> str:
    """Return a CSV table of all runs: the settings that vary, all metrics, the cause of a failure and the findings."""
    pairs = [(run, group) for group in groups for run in group.runs]
    pairs.sort(key=lambda pair: pair[0].name)
    tags = list(dict.fromkeys(tag for run, _ in pairs for tag in run.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *_varying_settings(groups), "seed", "status", *tags, "cause", "warnings"])
    for run, group in pairs:
        metrics = [run.metrics.get(tag, "") for tag in tags]
        warnings = "; ".join(finding.what for finding in run.findings)
        writer.writerow([run.name, *group.differences.values(), run.seed, run.status, *metrics, run.cause, warnings])
    return text.getvalue()
