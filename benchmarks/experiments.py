"""Run every experiment in full, check the claim its document makes, and write docs/experiments.md.

    python benchmarks/experiments.py [NAME ...] [--seeds 3] [--data data] [--smoke]

Each file in benchmarks/claims/ says for one experiment: the CLAIM in a sentence, the RUNS it takes (names to
overrides), and `check`, which turns the trained runs of one seed into figures and says whether the claim holds. Runs go
to outputs/experiments/ and finished ones are not run again. `--smoke` trains one epoch on a few images, to see that
everything runs; its figures mean nothing and are not written down.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import aetrain
from aetrain.api import Trained

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = Path(__file__).resolve().parent / "claims"
DOCS = ROOT / "docs"
RESULTS = DOCS / "experiments"
HEAD = """# Experiments

Every system of the course notes as a config with the document's own architecture and settings, and a check of what the
document says of it, on the real data. `aetrain experiment=NAME` runs one, `aetrain -m 'experiment=glob(*)'` all;
`python benchmarks/experiments.py NAME --seeds 3` trains what a claim compares, checks it and writes this page. Metrics
are on the test images, mean and standard deviation over seeds. What stands behind each name is in
`configs/experiment/`, what exactly is checked in `benchmarks/claims/`.
"""
PAGES = {  # beside this one, with commands of their own
    "likelihood.md": "-log p(x) under variational models at 1, 5, 50 and 500 draws, published figures beside",
    "robustness.md": "models trained on one kind of noise, evaluated on all kinds and levels",
    "uses.md": "what codes are good for: few labels, probes, search by content",
}
SMOKE = ("epochs=1", "dataset.subset=300")


@dataclass
class Outcome:
    """What one seed's runs came to."""

    figures: dict[str, float]  # by the name under which the table shows them
    holds: bool
    picture: Path | None = None  # of the runs, to be shown in the document
    note: str = ""


@dataclass
class Row:
    """One experiment's line in the document."""

    name: str
    claim: str
    command: str
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0


def claim_of(name: str) -> ModuleType:
    """The claim file of an experiment."""
    spec = importlib.util.spec_from_file_location(f"claims.{name}", CLAIMS / f"{name}.py")
    assert spec is not None and spec.loader is not None, name  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(overrides: list[str], directory: Path) -> Trained:
    """The run in that directory, trained now unless it is finished there."""
    return aetrain.run([f"hydra.run.dir={directory}", *overrides])


def run_claim(name: str, seeds: Iterable[int], outputs: Path, extra: tuple[str, ...] = ()) -> Row:
    """Train what a claim needs, once a seed, and check it."""
    claim = claim_of(name)
    first = next(iter(claim.RUNS.values()))
    row = Row(name, claim.CLAIM, "aetrain " + " ".join(first))
    began = time.perf_counter()
    for seed in seeds:
        runs = {
            run: train([*overrides, f"seed={seed}", *extra], outputs / name / run / f"seed{seed}")
            for run, overrides in claim.RUNS.items()
        }
        row.outcomes.append(claim.check(runs))
    row.seconds = time.perf_counter() - began
    return row


def spread(values: list[float], form: str = ".4g") -> str:
    """`mean ± standard deviation`, or the value alone."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):.2g}"


def recorded(name: str) -> dict[str, Any]:
    """What docs/ says of an experiment; empty where it says nothing."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def record(row: Row, before: Mapping[str, Any]) -> None:
    """Write what an experiment came to below docs/, after the seeds that were there `before`, and its picture."""
    picture = row.outcomes[0].picture
    if not before and picture is not None and picture.is_file():
        (DOCS / "figures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, DOCS / "figures" / f"{row.name}.png")
    figures = {name: [outcome.figures[name] for outcome in row.outcomes] for name in row.outcomes[0].figures}
    results = {
        "claim": row.claim,
        "command": row.command,
        "seeds": before.get("seeds", 0) + len(row.outcomes),
        "held": before.get("held", 0) + sum(outcome.holds for outcome in row.outcomes),
        "figures": {name: [*before.get("figures", {}).get(name, ()), *values] for name, values in figures.items()},
        "note": before.get("note", row.outcomes[0].note),  # it tells of the first seed
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{row.name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """Make docs/experiments.md from all that has been recorded: a table, then each experiment with its picture."""
    results = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}
    table = ["| experiment | claim | held | figures | picture |", "|---|---|---|---|---|"]
    sections = []
    for name, one in results.items():
        held = f"{one['held']} of {one['seeds']}"
        figures = {figure: spread(values) for figure, values in one["figures"].items()}
        shown = "; ".join(f"{figure} {value}" for figure, value in list(figures.items())[:3])
        drawn = (DOCS / "figures" / f"{name}.png").is_file()
        picture = f"[picture](figures/{name}.png)" if drawn else ""
        table.append(f"| [`{name}`](#{name}) | {one['claim']} | {held} | {shown} | {picture} |")
        sections += [
            f"## {name}",
            "",
            f"**Claim.** {one['claim']}",
            "",
            f"`{one['command']}`: held for {held} seeds.",
            "",
        ]
        sections += ["| figure | " + ("mean ± sd" if one["seeds"] > 1 else "one seed") + " |", "|---|---|"]
        sections += [*(f"| {figure} | {value} |" for figure, value in figures.items()), ""]
        sections += [one["note"], ""] if one["note"] else []
        sections += [f"![{name}](figures/{name}.png)", ""] if drawn else []
    pages = [f"- [{page}]({page}): {what}." for page, what in PAGES.items() if (DOCS / page).is_file()]
    (DOCS / "experiments.md").write_text("\n".join([HEAD, *pages, "", *table, "", *sections]).rstrip() + "\n")


def main() -> None:
    """Run, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    parser.add_argument("--anew", action="store_true", help="forget the seeds that are recorded")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    sys.modules["experiments"] = sys.modules["__main__"]  # so that claim files find Outcome
    names = given.names or sorted(file.stem for file in CLAIMS.glob("*.py"))
    failed = []
    for name in names:
        before = {} if given.anew or given.smoke else recorded(name)
        seeds = range(1) if given.smoke else range(before.get("seeds", 0), given.seeds)
        if not seeds:
            continue
        row = run_claim(name, seeds, given.outputs, SMOKE if given.smoke else ())
        holds = all(outcome.holds for outcome in row.outcomes)
        print(json.dumps({"name": name, "holds": holds, "figures": [o.figures for o in row.outcomes]}), flush=True)
        failed += [] if holds or given.smoke else [name]
        if not given.smoke:
            record(row, before)
            write_document()
    if failed:
        sys.exit(f"claims that did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
