"""The tables of a report, on the page and as CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from aetrain.evaluation.model_selection import BEST_EPOCH
from aetrain.report.best_epochs import has_best_epochs
from aetrain.report.charts import colour_class
from aetrain.report.groups import RunGroup, Spread, by_test_set
from aetrain.report.html import Html, el, scrollable
from aetrain.report.labels import SHOWN_APART, short_name
from aetrain.report.metrics import describe_metric, metric_name, sort_metrics
from aetrain.report.natural_order import natural_key
from aetrain.report.numbers import format_number
from aetrain.report.ranking import best_groups
from aetrain.report.runs import RunSummary

SETTING = "setting"  # class of the columns that the box "all settings" shows

# --- Cells ------------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a sortable table."""

    name: str
    description: str = ""  # tooltip
    class_: str | None = None  # num for numbers, right-aligned
    group: RunGroup | None = None  # to which the whole column belongs


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


def _metric_cells(tag: str, groups: Sequence[RunGroup], by_column: bool = False) -> list[Html]:
    """Return a metric's cell for each group, the best ones in bold; `by_column` says that a group is a column."""
    best = {group.number for group in best_groups(tag, groups)}
    cells = []
    for group in groups:
        spread = group.metric(tag)
        class_ = "num best" if group.number in best else "num"
        value = "" if spread is None else spread.mean
        number = group.number if by_column else None
        cells.append(el("td", spread_text(spread), class_=class_, data_v=value, data_group=number))
    return cells


def _run_cell(tag: str, run: RunSummary) -> Html:
    """Return the cell of a run's metric."""
    value = run.metrics.get(tag)
    if value is None:
        return el("td", "-", class_="num", data_v="")
    return el(
        "td", f"{value:.0f}" if tag in ("epochs", BEST_EPOCH) else format_number(value), class_="num", data_v=value
    )


def _ranks(texts: Iterable[str]) -> dict[str, int | str]:
    """Return the position of each text in ascending order, by which the page sorts a column; empty stays empty."""
    ranks: dict[str, int | str] = {text: i for i, text in enumerate(sorted(set(texts), key=natural_key))}
    return ranks | {"": ""}


class _SettingColumns:
    """The columns of all settings that vary between groups, which the page hides at first."""

    def __init__(self, groups: Sequence[RunGroup]) -> None:
        keys = _varying_settings(groups)
        self.columns = [Column(short_name(key), key, SETTING) for key in keys if key not in SHOWN_APART]
        self._ranks = {key: _ranks(group.differences[key] for group in groups) for key in keys}

    def cells(self, group: RunGroup) -> list[Html]:
        """Return the cells of a group's row."""
        pairs = [(key, value) for key, value in group.differences.items() if key not in SHOWN_APART]
        return [el("td", value or "-", class_=SETTING, data_v=self._ranks[key][value]) for key, value in pairs]


def setting_choice(groups: Sequence[RunGroup]) -> Html | None:
    """Return a check box that shows the columns of all settings; None if there are none."""
    count = len(_SettingColumns(groups).columns)
    if not count:
        return None
    box = el("input", type="checkbox", data_more="settings")
    return el("p", el("label", box, f" all settings ({count} columns)"), class_="choice")


def _varying_settings(groups: Sequence[RunGroup]) -> list[str]:
    """Return the settings that vary between groups."""
    return list(groups[0].differences) if groups else []


def _metric_columns(tags: Sequence[str], groups: Sequence[RunGroup]) -> list[Column]:
    return [Column(metric_name(tag), describe_metric(tag, groups), "num") for tag in tags]


# --- Tables -----------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[Column], bodies: Sequence[Html]) -> Html:
    """Return a table that the page's script can sort by any column, in a container that scrolls."""
    heads = []
    for name, description, class_, group in columns:
        button = el("button", name, type="button")
        number = group.number if group else None
        heads.append(el("th", button, class_=class_, title=description or None, scope="col", data_group=number))
    table = el("table", el("thead", el("tr", *heads)), *bodies, class_="sortable")
    return scrollable(table, num_rows=table.count("<tr"))


def overview_table(groups: Sequence[RunGroup], tags: Sequence[str]) -> Html:
    """Return a table with a row per group: its label, its number of runs, the spreads of the metrics, its settings.

    The rows of each set of test images follow a row with its name, if there are several sets.
    """
    settings = _SettingColumns(groups)
    columns = [Column("run"), Column("runs", "finished runs, of all runs", "num")]
    columns += [*_metric_columns(tags, groups), *settings.columns]
    cells_by_tag = {tag: _metric_cells(tag, groups) for tag in tags}
    labels = _ranks(group.label for group in groups)
    rows: dict[str, list[Html]] = {}
    for i, group in enumerate(groups):
        title = group.description or None
        cells = [el("th", swatch(group), group.short_label, scope="row", title=title, data_v=labels[group.label])]
        finished, total = len(group.finished), len(group.runs)
        count = str(total) if finished == total else f"{finished} of {total}"
        cells.append(el("td", count, class_="num", data_v=finished))
        cells += [cells_by_tag[tag][i] for tag in tags]
        attributes = {"data_group": group.number, "data_dataset": group.dataset, "data_model": group.model}
        row = el("tr", *cells, *settings.cells(group), **attributes)
        rows.setdefault(group.test_set, []).append(row)
    bodies = [el("tbody", *body) for body in rows.values()]
    if len(rows) > 1:
        bodies = [_titled_body(title, body, len(columns)) for title, body in rows.items()]
    return _table(columns, bodies)


def _titled_body(title: str, rows: Sequence[Html], num_columns: int) -> Html:
    """Return rows below a row with their title."""
    head = el("tr", el("th", el("span", title), colspan=num_columns, scope="rowgroup"), class_="title")
    return el("tbody", head, *rows, data_block=True)


def run_table(groups: Sequence[RunGroup], tags: Sequence[str]) -> Html:
    """Return a table with a row per run and a link to its directory."""
    settings = _SettingColumns(groups)
    counts = ["epochs", BEST_EPOCH] if has_best_epochs(groups) else ["epochs"]
    epoch_columns = [Column(name.replace("_", " "), class_="num") for name in counts]
    columns = [Column("run", "link to its directory")]
    columns += [Column(name) for name in SHOWN_APART if name in _varying_settings(groups)]
    columns += [Column("seed", class_="num"), Column("status"), *epoch_columns]
    columns += [*_metric_columns(tags, groups), *settings.columns]
    names = _ranks(run.name for group in groups for run in group.runs)
    rows = []
    for group in groups:
        for run in group.runs:
            cells = [el("th", swatch(group), run_link(run), scope="row", data_v=names[run.name])]
            cells += [el("td", group.differences[name]) for name in SHOWN_APART if name in group.differences]
            cells.append(el("td", run.seed or "-", class_="num", data_v=run.seed))
            cells.append(el("td", run.status, class_=f"status {run.status}"))
            cells += [_run_cell(tag, run) for tag in (*counts, *tags)]
            rows.append(el("tr", *cells, *settings.cells(group), data_group=group.number))
    return _table(columns, [el("tbody", *rows)])


def metric_tables(groups: Sequence[RunGroup]) -> list[Html]:
    """Return a table for each set of test images, with a row per metric and a column per group."""
    return [_metric_table(title, members) for title, members in by_test_set(groups).items()]


def _metric_table(title: str, groups: Sequence[RunGroup]) -> Html:
    tags = sort_metrics(
        (tag for group in groups for run in group.finished for tag in run.metrics if "/" in tag), groups
    )
    columns = [Column(f"metric ({title})" if title else "metric")]
    columns += [Column(group.short_label, group.description, "num", group) for group in groups]
    columns.append(Column("description"))
    rows = []
    for tag in tags:
        description = el("td", describe_metric(tag, groups), class_="what")
        rows.append(el("tr", el("th", tag, scope="row"), *_metric_cells(tag, groups, by_column=True), description))
    return el("div", _table(columns, [el("tbody", *rows)]), data_block=True)


def to_csv(groups: Sequence[RunGroup]) -> str:
    """Return a CSV table of all runs: the settings that vary, all metrics, the cause of a failure and the findings.

    Runs are sorted by name, numbers in it by value.
    """
    pairs = [(run, group) for group in groups for run in group.runs]
    pairs.sort(key=lambda pair: natural_key(pair[0].name))
    tags = sort_metrics((tag for run, _ in pairs for tag in run.metrics), groups)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *_varying_settings(groups), "seed", "status", *tags, "cause", "warnings"])
    for run, group in pairs:
        metrics = [run.metrics.get(tag, "") for tag in tags]
        warnings = "; ".join(finding.what for finding in run.findings)
        writer.writerow([run.name, *group.differences.values(), run.seed, run.status, *metrics, run.cause, warnings])
    return text.getvalue()
