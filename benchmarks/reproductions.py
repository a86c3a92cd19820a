"""Train the runs of published tables, compare their figures with the published ones, and write docs/reproductions.md.

    python benchmarks/reproductions.py [NAME ...] [--seeds 3] [--outputs DIR] [--page]

Each file in benchmarks/published/ is one row of the table. It has the PROTOCOL, the SOURCE of the published figures,
the RUNS (names to overrides), the FIGURES with their tolerances, and CHOICES, which tells how settings were chosen. A
row may have DIFFERENCES from the published protocol, and REMARKS on its results. SHORT are the overrides of its short
form, which tests/test_reproductions.py trains; SHORT_RUNS are the runs of the short form, all by default.

Runs go to outputs/reproductions/. A run that was killed is resumed by the same command, and a finished one is not
trained again. Its metrics are recorded in docs/reproductions/NAME.json, from which the page is made; `--page` only
writes the page.
"""

import argparse
import json
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import DOCS, ROOT, load_module, spread, train

from aetrain.api import Trained
from aetrain.storage.run_directory import RunDirectory

ROWS = Path(__file__).resolve().parent / "published"
RECORDS = DOCS / "reproductions"
HEAD = """# Published tables, reproduced

Figures that others have published, by their protocol, beside those of this software. Each row has a tolerance that was
set before its runs; a row outside of it stays in the table as missed. `python benchmarks/reproductions.py NAME --seeds
3` trains the runs of a row, resumes those that were killed, and writes this page; [reproductions/](reproductions) has
the metrics of every run. Figures are means ± standard deviations over seeds, of the test images where the protocol
names no others. Each section tells in what the protocol differs from the published one, and how settings were chosen:
not by test images, but for one that `overlay` tells of. Rows that missed their tolerance at first (`ae_kmeans`,
`ksparse`, `rbm`, `vae_static`) were run again with settings that validation images or the published program favour;
their remarks tell of the first run. Epochs are those of the whole network, without pretraining and fine-tuning. Minutes
are those of the processor for a whole run, with pretraining and measures. Where these were not recorded, as for a
resumed run, they are those of the epochs by the clock, if there are any.
"""

Metrics = Mapping[str, float]  # the metrics of a run, by name
Runs = Mapping[str, Metrics]  # the metrics of the runs of one seed, by the name of the run


@dataclass(frozen=True)
class Figure:
    """A published figure and its tolerance. Bounds are inclusive; None is no bound. Without any there is no verdict."""

    name: str
    published: str
    compute: Callable[[Runs], float]
    low: float | None = None
    high: float | None = None
    short_low: float | None = None  # bounds of the short form, which a broken implementation misses
    short_high: float | None = None

    @property
    def tolerance(self) -> str:
        """The bounds in words; `-` without any."""
        if self.low is None and self.high is None:
            return "-"
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"

    def is_within(self, value: float) -> bool:
        """Tell whether a value is within the tolerance."""
        return is_between(value, self.low, self.high)

    def is_within_short(self, value: float) -> bool:
        """Tell whether a value of the short form is within its bounds."""
        return is_between(value, self.short_low, self.short_high)


def is_between(value: float, low: float | None, high: float | None) -> bool:
    """Tell whether a value is within inclusive bounds; None is no bound."""
    return (low is None or value >= low) and (high is None or value <= high)


def metric(run: str, name: str, factor: float = 1.0, offset: float = 0.0) -> Callable[[Runs], float]:
    """Return the function that reads `offset + factor * metric` of a run."""
    return lambda runs: offset + factor * runs[run][name]


def fine_tuned(
    run: str, ending: str = "", labels: Callable[[Iterable[int]], int] = max, factor: float = 1.0, offset: float = 0.0
) -> Callable[[Runs], float]:
    """Return the function that reads `offset + factor * accuracy` after fine-tuning on the most labels, or the fewest.

    `labels` is max or min: the short form of a row has other numbers of labels. `ending` is that of the metric's name.
    """
    pattern = re.compile(rf"test/finetuned_(\d+){ending}")

    def read(runs: Runs) -> float:
        counts = [int(match[1]) for name in runs[run] if (match := pattern.fullmatch(name))]
        return offset + factor * runs[run][f"test/finetuned_{labels(counts)}{ending}"]

    return read


def row_names() -> list[str]:
    """Return the names of all rows."""
    return sorted(file.stem for file in ROWS.glob("*.py"))


def load_row(name: str) -> ModuleType:
    """Import the file of a row."""
    return load_module(ROWS / f"{name}.py")


def metrics_of(run: Trained) -> dict[str, float]:
    """Return the numbers of a finished run: of its last epoch, of the kept weights, and `seconds` of its epochs."""
    history = list(RunDirectory(run.directory).history())
    seconds = sum(line.get("seconds", 0.0) for line in history)
    values = {**history[-1], **run.metrics, "seconds": seconds}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def run_row(name: str, seeds: Sequence[int], outputs: Path) -> None:
    """Train the missing runs of a row, and record each as soon as it is finished."""
    row = load_row(name)
    for seed in seeds:
        for run, overrides in row.RUNS.items():
            record = read_record(name)
            if str(seed) in record.get(run, {}):
                continue
            directory = outputs / name / run / f"seed{seed}"
            is_new, start = not directory.exists(), time.process_time()
            trained = train([*overrides, f"seed={seed}", "views=none"], directory)
            times = {"processor_seconds": time.process_time() - start} if is_new else {}
            record.setdefault(run, {})[str(seed)] = {**metrics_of(trained), **times}
            RECORDS.mkdir(parents=True, exist_ok=True)
            (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
            write_document()


def read_record(name: str) -> dict[str, dict[str, Metrics]]:
    """Return the recorded metrics of a row, by run and seed; empty if there are none."""
    file = RECORDS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def figures_of(name: str) -> dict[str, list[float]]:
    """Return the values of each figure of a row, one for each seed all of whose runs are recorded."""
    row, record = load_row(name), read_record(name)
    seeds = sorted(set.intersection(*(set(record.get(run, {})) for run in row.RUNS)), key=int)
    complete = [{run: record[run][seed] for run in row.RUNS} for seed in seeds]
    return {figure.name: [figure.compute(runs) for runs in complete] for figure in row.FIGURES}


def verdict(figure: Figure, values: Sequence[float]) -> str:
    """Return the verdict on the mean over seeds."""
    if not values:
        return "not run"
    if figure.tolerance == "-":
        return "-"
    return "within" if figure.is_within(sum(values) / len(values)) else "**missed**"


def write_document() -> None:
    """Write docs/reproductions.md from the recorded metrics: a table, then a section for each row."""
    text = [
        HEAD,
        "| row | figure | published | here | seeds | tolerance | verdict |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for name in row_names():
        values = figures_of(name)
        for number, figure in enumerate(load_row(name).FIGURES):
            here = spread(values[figure.name]) if values[figure.name] else "-"
            label = f"[`{name}`](#{name})" if number == 0 else ""
            cells = [label, figure.name, figure.published, here, str(len(values[figure.name])), figure.tolerance]
            text.append(f"| {' | '.join([*cells, verdict(figure, values[figure.name])])} |")
    for name in row_names():
        text += ["", *section(name)]
    (DOCS / "reproductions.md").write_text("\n".join(text).rstrip() + "\n")


def section(name: str) -> list[str]:
    """Return the lines of a row's section: protocol, source, choices, and the command, epochs and time of each run."""
    row, record = load_row(name), read_record(name)
    parts = {"": row.PROTOCOL, "Published: ": row.SOURCE, "Settings: ": row.CHOICES}
    parts |= {f"{title}: ": getattr(row, title.upper(), "") for title in ("Differences", "Remarks")}
    text = [f"## {name}", ""]
    for title, part in parts.items():
        if part:
            text += [textwrap.fill(title + part, 120, break_long_words=False, break_on_hyphens=False), ""]
    text += ["| run | command | epochs | minutes |", "|---|---|---:|---:|"]
    for run, overrides in row.RUNS.items():
        runs = list(record.get(run, {}).values())
        epochs = spread([one["epoch"] for one in runs]) if runs else "-"
        times = [one.get("processor_seconds", one["seconds"]) / 60 for one in runs]
        minutes = spread(known, ".3g") if (known := [time for time in times if time > 0]) else "-"
        text.append(f"| {run} | `aetrain {shlex.join(overrides)}` | {epochs} | {minutes} |")
    return text


def main() -> None:
    """Train, record and write; exit with an error if a figure of a row is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"rows: {', '.join(row_names())}; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "reproductions")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(row_names())
    if unknown:
        sys.exit(f"there is no row {', '.join(sorted(unknown))}: use {', '.join(row_names())}")
    if not arguments.page:
        for name in arguments.names or row_names():
            run_row(name, range(arguments.seeds), arguments.outputs)
    write_document()
    missed = [name for name in arguments.names or row_names() if is_missed(name)]
    if missed:
        sys.exit(f"rows outside of their tolerance: {', '.join(missed)}")


def is_missed(name: str) -> bool:
    """Tell whether a figure of a row is outside of its tolerance."""
    values: dict[str, Any] = figures_of(name)
    return any(verdict(figure, values[figure.name]) == "**missed**" for figure in load_row(name).FIGURES)


if __name__ == "__main__":
    sys.modules["reproductions"] = sys.modules["__main__"]  # files of rows import Figure from it
    main()
