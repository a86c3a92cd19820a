"""The report: one page that is its own, with no script, font or picture from elsewhere, and a table beside it."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from aetrain.directory import shown, write
from aetrain.report import sections
from aetrain.report.html import Html, el, join
from aetrain.report.runs import Entry, entries
from aetrain.report.settings import Group, grouped
from aetrain.report.tables import as_csv

NAME = "report"


def write_report(place: Path, out: Path) -> tuple[Path, int]:
    """Write report.html and report.csv into `out`, about the runs in and below `place`: the page, and their number.

    Nothing is written where there are no runs. OSError where nothing can be.
    """
    file = out / f"{NAME}.html"
    runs = entries(place, out)
    if runs:
        groups = grouped(runs)
        write(file.with_suffix(".csv"), as_csv(groups))
        write_page(file, shown(place), groups, f"{NAME}.csv")
    return file, len(runs)


def write_page(file: Path, title: str, groups: Sequence[Group], table: str) -> None:
    """Write the page about groups of runs; `table` is the name of the CSV beside it."""
    write(file, page(title, groups, table))


def page(title: str, groups: Sequence[Group], table: str) -> str:
    """The page about groups of runs; `table` is the name of the CSV beside it."""
    runs = [run for group in groups for run in group.runs]
    parts = {
        "glance": sections.glance(groups),
        "failures": sections.failures(groups),
        "doctor": sections.doctor(groups),
        "images": sections.side_by_side(groups),
        "curves": sections.learning(groups),
        "rates": sections.rates(groups),
        "units": sections.units(groups),
        "speed": sections.speed(groups),
        "details": sections.details(groups, runs, table),
    }
    names = {"glance": "figures", "images": "images", "curves": "curves", "rates": "rate", "units": "units"}
    names |= {"failures": "failures", "doctor": "doctor", "speed": "speed", "details": "details"}
    there = {name: part for name, part in parts.items() if part is not None}
    links = [el("a", names[name], href=f"#{name}") for name in there]
    header = el(
        "header",
        el("h1", title),
        el("p", summary(groups, runs), class_="summary"),
        sections.in_short(groups, runs),
        el("nav", *links),
    )
    return document(title, join(header, el("main", *there.values())))


def summary(groups: Sequence[Group], runs: Sequence[Entry]) -> str:
    """`12 runs: 4 settings x 3 seeds, fashion, 5 epochs`."""
    many = {len(group.runs) for group in groups}
    said = [f"{len(runs)} run{'s' * (len(runs) != 1)}"]
    if len(groups) > 1:
        said.append(
            f"{len(groups)} settings"
            + (f" \N{MULTIPLICATION SIGN} {many.pop()} seeds" if len(many) == 1 and max(many) > 1 else "")
        )
    if len(groups) == 1:
        chosen = {key: value for key, value in runs[0].said.items() if key not in ("seed", "dataset", "epochs")}
        said += [f"{key}={value}" for key, value in chosen.items()]
    for key, unit in (("dataset", ""), ("epochs", " epochs")):
        values = {_said(run, key) for run in runs}
        if len(values) == 1 and (value := values.pop()):
            said.append(f"{value}{unit}")
    return " · ".join(said)


def _said(run: Entry, key: str) -> str:
    known = run.settings.get(f"{key}._target_", run.settings.get(key, ""))
    return run.said.get(key) or str(known).rpartition(".")[2].lower()


def document(title: str, body: Html) -> str:
    """A whole HTML file. Its policy lets it show nothing from elsewhere and run no script but its own."""
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
