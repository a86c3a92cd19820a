"""The tables of a report, on the page and as CSV."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from aetrain.evaluation.meaning import MEANING, explained
from aetrain.report.charts import colour, number
from aetrain.report.html import Html, el
from aetrain.report.runs import Entry
from aetrain.report.settings import Group, Spread, short

# What comparisons are about, in this order, of the figures that runs have.
MAIN = (
    "test/sse",
    "test/noisy_sse",
    "test/nll",
    "test/neg_elbo",
    "test/kl",
    "test/active_units",
    "test/perplexity",
    "test/ssim",
    "train/seconds_per_epoch",
)
# What is compared, too, where it was measured: by the names under which figures are explained.
READ = ("probe_linear", "probe_svm", "probe_knn", "probe_kmeans", "probe_nmi", "precision_K", "finetuned_N")
PAINTED = ("is_nll_K", "frechet_reconstructions", "frechet_samples")
SHORTER = {"train/seconds_per_epoch": "s/epoch", "neg_elbo": "-ELBO"}

HIGHER = ("psnr", "ssim", "noisy_psnr", *READ)  # figures of which more is better
LOWER = (
    *("sse", "code_sse", "noisy_sse", "mse", "nll", "neg_elbo", "bce", "bce_excess", "noisy_bce"),
    *("seconds_per_epoch", *PAINTED),
)

TRAINING_ONLY = ("dataset.validation",)  # of the settings that say which images there are


def name_of(tag: str) -> str:
    """A figure's name without its split, which is the test set's where nothing is said."""
    last = tag.rpartition("/")[2]
    return SHORTER.get(tag) or SHORTER.get(last) or last


def meaning_of(tag: str) -> str:
    """A figure in a line."""
    if tag == "train/seconds_per_epoch":
        return "seconds that an epoch of training takes, measuring and drawing left out; the median"
    return MEANING.get(explained(tag), "")


def ordered(tags: Iterable[str]) -> list[str]:
    """Figures in the ruler's order, those it does not know last."""
    order = {name: i for i, name in enumerate(MEANING)}
    return sorted(set(tags), key=lambda tag: (order.get(explained(tag), len(order)), tag))


def main_figures(known: Iterable[str]) -> list[str]:
    """Of the figures that some run has, those that runs are compared by."""
    known = set(known)
    tags = [tag for tag in MAIN if tag in known] + [tag for tag in ordered(known) if explained(tag) in READ + PAINTED]
    return sorted(tags, key=lambda tag: tag.startswith("train/"))  # how long it took comes last


def best(tag: str, groups: Sequence[Group]) -> Group | None:
    """The group whose mean is the best; None where no order is meant, or there is nothing to compare.

    Figures of different images are not compared, nor are those of the same ones in another preparation.
    """
    name = explained(tag)
    if len({images(group) for group in groups}) > 1 and tag != "train/seconds_per_epoch":
        return None
    known = [(spread.mean, group) for group in groups if (spread := group.figure(tag)) is not None]
    if len(known) < 2 or name not in HIGHER + LOWER:
        return None
    return (max if name in HIGHER else min)(known, key=lambda pair: pair[0])[1]


def images(group: Group) -> str:
    """The test images that a group's figures are of."""
    asked = {k: v for k, v in group.runs[0].settings.items() if k.startswith("dataset.") and k not in TRAINING_ONLY}
    return json.dumps(asked, sort_keys=True, default=str)


def spread_text(spread: Spread | None) -> Html:
    """`12.4 ± 1.2`: four digits that count, or as many as the deviation leaves meaning to."""
    if spread is None:
        return el("span", "-", class_="none")
    if spread.count == 1:
        return el("span", number(spread.mean))
    if spread.deviation == 0:
        text, deviation = number(spread.mean).removesuffix(".00").removesuffix(".0"), "0"
    elif abs(spread.mean) >= 1e6 or "e" in number(spread.mean):
        text, deviation = number(spread.mean), number(spread.deviation)
    else:
        there = len(number(spread.mean).partition(".")[2])
        digits = min(there, max(0, 1 - math.floor(math.log10(spread.deviation))))
        text, deviation = f"{spread.mean:,.{digits}f}", f"{spread.deviation:,.{digits}f}"
    return el("span", text, el("span", f" \N{PLUS-MINUS SIGN} {deviation}", class_="sd"))


def head(columns: Sequence[tuple[str, str, bool]]) -> Html:
    """Sortable columns: a name, what it is, whether it holds numbers."""
    cells = [
        el("th", el("button", name, type="button"), class_="num" if numeric else None, title=what or None, scope="col")
        for name, what, numeric in columns
    ]
    return el("thead", el("tr", *cells))


def setting_columns(groups: Sequence[Group]) -> list[str]:
    """The settings that vary between groups."""
    return list(groups[0].cells) if groups else []


def at_a_glance(groups: Sequence[Group], tags: Sequence[str]) -> Html:
    """A row for each group: its settings, how many runs, means and spreads; the best of each column in bold."""
    keys = setting_columns(groups)
    columns = [(short(key), key, False) for key in keys] or [("run", "", False)]
    columns += [("runs", "finished, of those begun", True), *((name_of(tag), meaning_of(tag), True) for tag in tags)]
    leaders = {tag: best(tag, groups) for tag in tags}
    rows = []
    for group in groups:
        said = [group.cells[key] for key in keys] or [group.label]
        mark = el("i", class_=f"swatch {colour(group.number)}")
        cells = [el("th", mark if i == 0 else None, text or "-", scope="row") for i, text in enumerate(said)]
        done, begun = len(group.finished), len(group.runs)
        cells.append(el("td", str(done) if done == begun else f"{done} of {begun}", class_="num", data_v=done))
        for tag in tags:
            spread = group.figure(tag)
            led = "num best" if leaders[tag] is group else "num"
            cells.append(el("td", spread_text(spread), class_=led, data_v="" if spread is None else spread.mean))
        rows.append(el("tr", *cells, data_group=group.number))
    return _table(columns, rows)


def every_run(groups: Sequence[Group], tags: Sequence[str]) -> Html:
    """A row for each run, with the way to its directory."""
    keys = setting_columns(groups)
    columns = [("run", "its directory", False), *((short(key), key, False) for key in keys), ("seed", "", True)]
    columns += [("status", "", False), ("epochs", "", True), *((name_of(tag), meaning_of(tag), True) for tag in tags)]
    rows = []
    for group in groups:
        for run in group.runs:
            mark = el("i", class_=f"swatch {colour(group.number)}")
            cells = [el("th", mark, linked(run), scope="row")]
            cells += [el("td", group.cells[key] or "-") for key in keys]
            cells += [el("td", run.seed or "-", class_="num", data_v=run.seed)]
            cells += [el("td", run.status, class_=f"status {run.status}")]
            for tag in ("epochs", *tags):
                value = run.figures.get(tag)
                text = "-" if value is None else f"{value:.0f}" if tag == "epochs" else number(value)
                cells.append(el("td", text, class_="num", data_v="" if value is None else value))
            rows.append(el("tr", *cells, data_group=group.number))
    return _table(columns, rows)


def linked(run: Entry, name: str = "") -> Html:
    """A run's name, leading to its directory from a page that lies in the folder reported on."""
    return el("a", name or run.name, href=f"{quote(run.link, errors='replace')}/")


def every_figure(groups: Sequence[Group]) -> Html:
    """A row for each figure that any run has, a column for each group."""
    tags = ordered(tag for group in groups for run in group.finished for tag in run.figures if "/" in tag)
    columns = [("figure", "", False), *((group.label, "", True) for group in groups), ("what it is", "", False)]
    rows = []
    for tag in tags:
        leader = best(tag, groups)
        cells = [el("th", tag, scope="row")]
        for group in groups:
            spread = group.figure(tag)
            led = "num best" if leader is group else "num"
            cells.append(el("td", spread_text(spread), class_=led, data_v="" if spread is None else spread.mean))
        rows.append(el("tr", *cells, el("td", meaning_of(tag), class_="what")))
    return _table(columns, rows)


def _table(columns: Sequence[tuple[str, str, bool]], rows: Sequence[Html]) -> Html:
    return el("div", el("table", head(columns), el("tbody", *rows), class_="sortable"), class_="wide")


def as_csv(groups: Sequence[Group]) -> str:
    """Every run with the settings that vary, all figures and the cause of its failure, if it failed."""
    runs = sorted(((run, group) for group in groups for run in group.runs), key=lambda pair: pair[0].name)
    keys = setting_columns(groups)
    tags = list(dict.fromkeys(tag for run, _ in runs for tag in run.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *keys, "seed", "status", *tags, "cause", "warnings"])
    for run, group in runs:
        figures = [run.figures.get(tag, "") for tag in tags]
        warnings = "; ".join(finding.what for finding in run.findings)
        writer.writerow([run.name, *group.cells.values(), run.seed, run.status, *figures, run.cause, warnings])
    return text.getvalue()
