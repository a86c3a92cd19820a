"""The report: a self-contained HTML page without scripts, fonts or pictures from elsewhere, and a CSV table."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from aetrain.report import picture_sections, sections, unit_words
from aetrain.report.comparison import Comparisons, comparison_section
from aetrain.report.groups import RunGroup, group_runs
from aetrain.report.html import Html, el, join
from aetrain.report.learning_curves import learning_curves
from aetrain.report.natural_order import natural_key
from aetrain.report.run_folders import read_runs
from aetrain.report.runs import RunSummary
from aetrain.report.search import search_section
from aetrain.report.search_figures import write_search_figures
from aetrain.report.sweep_figure import figure_names, write_figures
from aetrain.report.sweep_plots import SweepPlot, make_sweep_plots
from aetrain.report.sweep_section import sweep_section
from aetrain.report.tables import to_csv
from aetrain.storage import atomic
from aetrain.storage.run_directory import display_path
from aetrain.storage.search_file import read_search

MAX_LAID_OUT = 100  # runs of a page that the browser lays out as a whole; of a longer one, the part in its window
FILE_STEM = "report"  # of report.html and report.csv

Sections = list[tuple[str, str, Html | None]]  # id, label in the navigation, section


def write_report(folder: Path, out: Path) -> tuple[Path, int]:
    """Write report.html and report.csv about the runs in and below `folder` into `out`.

    Return the path of the page and the number of runs. If there are no runs, nothing is written. Raise OSError if a
    file cannot be written.
    """
    page = out / f"{FILE_STEM}.html"
    runs = read_runs(folder, out)
    if runs:
        groups = group_runs(runs)
        table = page.with_suffix(".csv")
        atomic.replace_text(table, to_csv(groups))
        write_page(page, display_path(folder), groups, table.name, folder)
    return page, len(runs)


def write_page(
    file: Path,
    title: str,
    groups: Sequence[RunGroup],
    csv_name: str,
    folder: Path | None = None,
    comparisons: Comparisons | None = None,
) -> None:
    """Write the page about groups of runs, and the plots of a numeric setting beside it.

    `csv_name` is the file name of the table beside it; the plots have the same stem. Where `folder`, which holds the
    runs, is that of a search, the page has a section about it, and its pictures are written into figures/.
    """
    plots = make_sweep_plots(groups)
    write_figures(plots, file.parent, Path(csv_name).stem)
    search = None if folder is None else read_search(folder)
    figures = {} if search is None else write_search_figures(search, file.parent / "figures")
    section = search_section(search, figures)
    atomic.replace_text(file, page_text(title, groups, csv_name, plots, section, comparisons))


def page_text(
    title: str,
    groups: Sequence[RunGroup],
    csv_name: str,
    plots: Sequence[SweepPlot],
    search: Html | None,
    comparisons: Comparisons | None,
) -> str:
    """Return the page about groups of runs as HTML, with the section about their search where they have one.

    `csv_name` is the file name of the table beside it.
    """
    runs = [run for group in groups for run in group.runs]
    plot_names = figure_names(plots, Path(csv_name).stem)
    parts: Sections = [
        ("search", "search", search),
        ("glance", "metrics", sections.overview(groups)),
        ("differences", "differences", comparison_section(comparisons)),
        ("sweep", "plots", sweep_section(plots, groups, plot_names)),
        ("images", "images", picture_sections.reconstructions(groups)),
        ("curves", "curves", learning_curves(groups)),
        ("rates", "rate", sections.rates(groups)),
        ("words", "words", unit_words.unit_words(groups)),
        ("units", "units", picture_sections.unit_pictures(groups)),
        ("failures", "failures", sections.failures(groups)),
        ("diagnostics", "diagnostics", sections.diagnostics(groups)),
        ("speed", "speed", sections.speed(groups)),
        ("details", "details", sections.details(groups, runs, csv_name)),
    ]
    links = [el("a", label, href=f"#{name}") for name, label, part in parts if part is not None]
    header = el(
        "header",
        el("h1", title),
        el("p", summary_line(groups, runs), class_="summary"),
        sections.headlines(groups, runs),
    )
    bar = el("div", el("nav", *links), filters(groups), class_="bar-above")
    main = el("main", *(part for _, _, part in parts), class_="many" if len(runs) > MAX_LAID_OUT else None)
    tip = el("div", id="tip", role="status", hidden=True)
    return document(title, join(header, bar, main, tip))


def filters(groups: Sequence[RunGroup]) -> Html | None:
    """Return menus that choose a data set and a model, and the grouping of the table; None if there is no choice."""
    menus = []
    for name, title in (("dataset", "data set"), ("model", "model")):
        values = sorted({getattr(group, name) for group in groups} - {""}, key=natural_key)
        if len(values) > 1:
            options = [el("option", "all", value=""), *(el("option", value, value=value) for value in values)]
            menus.append(el("label", f"{title} ", el("select", *options, data_filter=name)))
    if not menus:
        return None
    groupings = {"": "test set", "dataset": "data set", "model": "model", "none": "nothing"}
    options = [el("option", text, value=value) for value, text in groupings.items()]
    menus.append(el("label", "group the table by ", el("select", *options, data_grouping=True)))
    return el("div", *menus, el("span", role="status", class_="count"), class_="filters")


def summary_line(groups: Sequence[RunGroup], runs: Sequence[RunSummary]) -> str:
    """Return numbers of runs and main settings: `12 runs · 4 settings x 3 seeds · fashion · 5 epochs`."""
    parts = [f"{len(runs)} runs" if len(runs) > 1 else "1 run"]
    if len(groups) > 1:
        sizes = {len(group.runs) for group in groups}
        seeds = max(sizes) if len(sizes) == 1 else 1
        times = f" \N{MULTIPLICATION SIGN} {seeds} seeds" if seeds > 1 else ""
        parts.append(f"{len(groups)} settings{times}")
    else:
        overrides = runs[0].overrides.items()
        parts += [f"{key}={value}" for key, value in overrides if key not in ("seed", "dataset", "epochs")]
    datasets = sorted({group.dataset for group in groups} - {""}, key=natural_key)
    parts += [", ".join(datasets)] if datasets else []
    epochs = {str(run.settings.get("epochs", "")) for run in runs}
    parts += [f"{text} epochs" for text in epochs if text and len(epochs) == 1]
    return " · ".join(parts)


def document(title: str, body: Html) -> str:
    """Return a complete HTML file. Its content security policy allows only its own script and data: images."""
    style, script = (files("aetrain.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title} - aetrain"),
        el("style", Html(style)),
    )
    return "<!doctype html>\n" + el("html", head, el("body", body, el("script", Html(script))), lang="en") + "\n"
