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
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import aetrain
from aetrain.library import Trained

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = Path(__file__).resolve().parent / "claims"
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


def run_claim(name: str, seeds: int, outputs: Path, extra: tuple[str, ...] = ()) -> Row:
    """Train what a claim needs, once a seed, and check it."""
    claim = claim_of(name)
    first = next(iter(claim.RUNS.values()))
    row = Row(name, claim.CLAIM, "aetrain " + " ".join(first))
    began = time.perf_counter()
    for seed in range(seeds):
        runs = {
            run: train([*overrides, f"seed={seed}", *extra], outputs / name / run / f"seed{seed}")
            for run, overrides in claim.RUNS.items()
        }
        row.outcomes.append(claim.check(runs))
    row.seconds = time.perf_counter() - began
    return row


def spread(values: list[float]) -> str:
    """`mean ± standard deviation`, or the value alone."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{statistics.mean(values):.4g} ± {statistics.stdev(values):.2g}"


def line(row: Row) -> str:
    """The experiment's section of the document."""
    held = sum(o.holds for o in row.outcomes)
    figures = {name: [o.figures[name] for o in row.outcomes] for name in row.outcomes[0].figures}
    parts = [
        f"## `{row.name}`",
        "",
        f"**Claim.** {row.claim}",
        "",
        f"`{row.command}`: the claim held for {held} of {len(row.outcomes)} seeds.",
        "",
        "| figure | " + ("mean ± sd" if len(row.outcomes) > 1 else "value") + " |",
        "|---|---|",
        *(f"| {name} | {spread(values)} |" for name, values in figures.items()),
        "",
    ]
    if row.outcomes[0].note:
        parts += [row.outcomes[0].note, ""]
    picture = row.outcomes[0].picture
    if picture is not None and picture.is_file():
        target = ROOT / "docs" / "figures" / f"{row.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
        parts += [f"![{row.name}](figures/{row.name}.png)", ""]
    return "\n".join(parts)


def main() -> None:
    """Run, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    sys.modules["experiments"] = sys.modules["__main__"]  # so that claim files find Outcome
    names = given.names or sorted(file.stem for file in CLAIMS.glob("*.py"))
    sections = ROOT / "docs" / "experiments"
    failed = []
    for name in names:
        row = run_claim(name, 1 if given.smoke else given.seeds, given.outputs, SMOKE if given.smoke else ())
        holds = all(outcome.holds for outcome in row.outcomes)
        print(json.dumps({"name": name, "holds": holds, "figures": [o.figures for o in row.outcomes]}), flush=True)
        failed += [] if holds or given.smoke else [name]
        if not given.smoke:
            sections.mkdir(parents=True, exist_ok=True)
            (sections / f"{name}.md").write_text(line(row).replace("(figures/", "(../figures/"))
    if failed:
        sys.exit(f"claims that did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
