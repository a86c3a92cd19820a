"""The section of a report about a search: its best trials, the command that repeats the best one, its pictures."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from aetrain.report.embedded_images import MAX_LARGE_WIDTH, image_url
from aetrain.report.html import Html, el, scrollable, section
from aetrain.report.labels import short_name
from aetrain.report.numbers import format_number
from aetrain.report.search_figures import TITLES
from aetrain.report.search_values import MIN_TRIALS_FOR_IMPORTANCE
from aetrain.storage.search_file import SearchRecord, TrialRecord

MAX_BEST_TRIALS = 10

NOTES = {
    "best_so_far": "Values beyond the frame are drawn at its edge, as are trials without a value.",
    "slices": "A point is a finished trial, the ring is the best one. Values beyond the frame are drawn at its edge.",
    "importance": (
        "A random forest predicts the rank of trials that it was not fitted to. A bar is the loss of explained "
        "variance where the values of a setting are shuffled; around 0, the trials show no effect of the setting."
    ),
    "parallel": "A line is a finished trial, the thick one is the best.",
    "objectives": "No trial is better than one of the Pareto front in all metrics.",
}


def repeat_command(record: SearchRecord, trial: TrialRecord) -> str:
    """Return the shell command that repeats the run of a trial."""
    return shlex.join(["aetrain", *record.overrides_of(trial)])


def count_trials(record: SearchRecord) -> str:
    """Return `30 trials: 12 finished, 17 pruned, 1 failed`."""
    states = ("finished", "pruned", "failed", "running")
    counts = {state: sum(trial.status == state for trial in record.trials) for state in states}
    parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(record.trials)} trials: {parts}"


def search_section(record: SearchRecord | None, figures: Mapping[str, Path]) -> Html | None:
    """Return the section; `figures` are the PNG files of its pictures by name. None where there is no search."""
    if record is None or not record.trials:
        return None
    names = ", ".join(record.objective)
    summary = f"{count_trials(record)}. Sweeper: {record.sweeper}. Objective: {names}."
    best = record.best()
    parts: list[Html | None] = [el("p", summary)]
    if best:
        title = "Best trials" if len(record.objective) == 1 else "Trials that none is better than (Pareto front)"
        command = el("pre", repeat_command(record, best[0]))
        parts += [el("h3", title), _best_table(record), el("p", "This command repeats the first one:"), command]
    for name, file in figures.items():
        if (url := image_url(file, MAX_LARGE_WIDTH)) is not None:
            picture = el("img", src=url, alt=TITLES[name], style="max-width:100%")
            parts.append(el("figure", el("figcaption", el("b", TITLES[name]), f" {NOTES[name]}"), picture))
    if best and "importance" not in figures:
        needed = f"needs {MIN_TRIALS_FOR_IMPORTANCE} finished trials, and settings that explain their ranks"
        parts.append(el("p", f"The importance of settings {needed}."))
    return section("Search", "search", *parts)


def _best_table(record: SearchRecord) -> Html:
    keys = list(record.space)
    rows = []
    for trial in record.best()[:MAX_BEST_TRIALS]:
        link = el("a", str(trial.number), href=f"{quote(trial.run, errors='replace')}/") if trial.run else trial.number
        values = [el("td", format_number(value), class_="num") for value in trial.values or ()]
        settings = [el("td", trial.settings.get(key, "-")) for key in keys]
        rows.append(el("tr", el("td", link), *values, *settings, el("td", trial.epochs, class_="num")))
    numbers = [el("th", name, class_="num") for name in record.objective]
    names = [el("th", short_name(key), title=key) for key in keys]
    head = el("thead", el("tr", el("th", "trial"), *numbers, *names, el("th", "epochs", class_="num")))
    return scrollable(el("table", head, el("tbody", *rows)))
