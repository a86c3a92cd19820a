"""Train the runs of every experiment, check the claim of its document, and write docs/experiments.md.

    python benchmarks/experiments.py [NAME ...] [--seeds 3] [--outputs DIR] [--restart] [--smoke]

Each file in benchmarks/claims/ belongs to one experiment. It has the CLAIM in a sentence, the LESSON and the RESULT of
its row in the table of lessons, the RUNS (names to overrides), and `check`, which computes the metrics of the trained
runs of one seed and checks the claim. Runs go to outputs/experiments/, and finished runs are not trained again.
`--smoke` trains one epoch on a few images, to test that everything runs; its metrics mean nothing and are not recorded.
"""

import argparse
import importlib.util
import json
import re
import shlex
import shutil
import statistics
import sys
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

Every system of the course notes as a config with the document's own architecture and settings, and a check of the
document's claim on the real data. `aetrain experiment=NAME` runs one experiment, `aetrain -m 'experiment=glob(*)'`
runs all. `python benchmarks/experiments.py NAME --seeds 3` trains the runs of a claim, checks the claim and writes this
page. Metrics are means ± standard deviations over seeds; remarks and pictures are of the first seed. Metrics of a run,
such as SSE and KL, are of all test images. Errors from noisy to clean images and rates of units are of the first 2,000
(`unseen` in `benchmarks/measurements.py`), where a check names no other number. `configs/experiment/` has the settings
of each experiment, `benchmarks/claims/` the exact check.

More results, each page with a command of its own:
"""
PAGES = {
    "anomalies.md": "unusual examples: one digit of MNIST as the usual class, a time series with anomalies",
    "likelihood.md": "-log p(x) of variational models with 1, 5, 50 and 500 draws, beside published results",
    "reproductions.md": "tables that others have published, and the figures of this software by the same protocols",
    "robustness.md": "models trained on one kind of noise, evaluated on all kinds and levels",
    "uses.md": "uses of a code: few labels, probes, search by content",
}
LESSON_ORDER = (  # the order of the course; other experiments follow
    *("linear_is_pca", "deep_sigmoid", "code_2d", "hinton", "hinton_best", "hinton_fast", "hinton_rbm", "stacked"),
    *("pretrain_finetune", "tied", "overcomplete", "denoising_gaussian", "denoising_masking", "denoising_salt"),
    *("sparse_denoising", "sparse_kl", "sparse_kl_crops", "sparse_l1", "sparse_topk", "sparse_wta", "sparse_coding"),
    *("contractive", "conv", "conv_upsample", "conv_unpool", "sequence", "vae", "vae_elu", "vae_fast", "conv_vae"),
    *("beta_vae", "latent_grid", "adversarial", "wae_mmd", "vqvae"),
)
SMOKE = ("epochs=1", "dataset.subset=300", "dataset.test_subset=300")


@dataclass
class Outcome:
    """The result of a check on the runs of one seed."""

    metrics: dict[str, float]  # metrics by their names in the table
    holds: bool
    picture: Path | None = None  # of the page
    note: str = ""


@dataclass
class Experiment:
    """The outcomes of one experiment."""

    name: str
    claim: str
    command: str
    outcomes: list[Outcome] = field(default_factory=list)


def load_claim(name: str) -> ModuleType:
    """Import the claim file of an experiment."""
    return load_module(CLAIMS / f"{name}.py")


def load_module(file: Path) -> ModuleType:
    """Import a file as a module that is named for its folder and itself."""
    name = f"{file.parent.name}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, name  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(overrides: list[str], directory: Path) -> Trained:
    """Train the run of a directory, unless it is finished, and load it."""
    return aetrain.run([f"hydra.run.dir={directory}", *overrides])


def run_claim(name: str, seeds: Iterable[int], outputs: Path, extra: tuple[str, ...] = ()) -> Experiment:
    """Train the runs of a claim with each seed, and check it."""
    claim = load_claim(name)
    first = next(iter(claim.RUNS.values()))
    experiment = Experiment(name, claim.CLAIM, "aetrain " + shlex.join(first))
    for seed in seeds:
        runs = {}
        for run, overrides in claim.RUNS.items():
            runs[run] = train([*overrides, f"seed={seed}", *extra], outputs / name / run / f"seed{seed}")
        experiment.outcomes.append(claim.check(runs))
    return experiment


def spread(values: list[float], form: str = ".4g") -> str:
    """Return `mean ± standard deviation`, or a single value alone. A deviation by rounding alone is 0."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{mean:{form}} ± {deviation if deviation > 1e-7 * abs(mean) else 0:.2g}"


def read_record(name: str) -> dict[str, Any]:
    """Return the recorded results of an experiment; empty if there are none."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def write_record(experiment: Experiment, before: Mapping[str, Any]) -> None:
    """Write an experiment's outcomes below docs/, after the results `before`, and the picture of a new experiment."""
    first = experiment.outcomes[0]
    if not before and first.picture is not None and first.picture.is_file():
        (DOCS / "figures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(first.picture, DOCS / "figures" / f"{experiment.name}.png")
    metrics = {}
    for name in first.metrics:
        values = [outcome.metrics[name] for outcome in experiment.outcomes]
        metrics[name] = [*before.get("figures", {}).get(name, ()), *values]
    results = {
        "claim": experiment.claim,
        "command": experiment.command,
        "seeds": before.get("seeds", 0) + len(experiment.outcomes),
        "held": before.get("held", 0) + sum(outcome.holds for outcome in experiment.outcomes),
        "figures": metrics,
        "note": before.get("note", first.note),  # of the first seed
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{experiment.name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """Write docs/experiments.md from all recorded results: the table of lessons, then a section per experiment."""
    results = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}
    text = [HEAD, *(f"- [{page}]({page}): {subject}." for page, subject in PAGES.items()), ""]
    text += lessons(results)
    for name, record in results.items():
        text += section(name, record)
    (DOCS / "experiments.md").write_text("\n".join(text).rstrip() + "\n")


def lessons(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table of lessons."""
    text = ["## Lessons", "", "| experiment | lesson | result | seeds that confirm it |", "|---|---|---|---|"]
    for name in [*LESSON_ORDER, *(name for name in results if name not in LESSON_ORDER)]:
        if name in results:
            claim, record = load_claim(name), results[name]
            result = fill_in(claim.RESULT, record["figures"])
            seeds = f"{record['held']} of {record['seeds']}"
            text.append(f"| [`{name}`](#{name}) | {claim.LESSON} | {result} | {seeds} |")
    return [*text, ""]


def fill_in(template: str, metrics: Mapping[str, list[float]]) -> str:
    """Replace each name of a metric in braces by its mean and standard deviation."""
    return re.sub(r"\{([^}]*)\}", lambda match: spread(metrics[match[1]]), template)


def section(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return the lines of one experiment: claim, command, metrics, note, picture."""
    column = "mean ± sd" if record["seeds"] > 1 else "one seed"
    confirmed = f"confirmed for {record['held']} of {record['seeds']} seeds"
    text = [f"## {name}", "", f"**Claim.** {record['claim']}", "", f"`{record['command']}`: {confirmed}.", ""]
    text += [f"| metric | {column} |", "|---|---|"]
    text += [f"| {metric} | {spread(values)} |" for metric, values in record["figures"].items()]
    text += [""]
    if record["note"]:
        text += [record["note"], ""]
    if (DOCS / "figures" / f"{name}.png").is_file():
        text += [f"![{name}](figures/{name}.png)", ""]
    return text


def main() -> None:
    """Train, check and write; exit with an error if a claim is not confirmed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    parser.add_argument("--restart", action="store_true", help="forget the recorded seeds")
    parser.add_argument("--smoke", action="store_true", help="one epoch on a few images, recorded nowhere")
    arguments = parser.parse_args()
    failed = []
    for name in arguments.names or sorted(file.stem for file in CLAIMS.glob("*.py")):
        before = {} if arguments.restart or arguments.smoke else read_record(name)
        seeds = range(1) if arguments.smoke else range(before.get("seeds", 0), arguments.seeds)
        if not seeds:
            continue
        experiment = run_claim(name, seeds, arguments.outputs, SMOKE if arguments.smoke else ())
        holds = all(outcome.holds for outcome in experiment.outcomes)
        metrics = [outcome.metrics for outcome in experiment.outcomes]
        print(json.dumps({"name": name, "holds": holds, "figures": metrics}), flush=True)
        if arguments.smoke:
            continue
        failed += [] if holds else [name]
        write_record(experiment, before)
        write_document()
    if failed:
        sys.exit(f"claims that were not confirmed: {', '.join(failed)}")


if __name__ == "__main__":
    sys.modules["experiments"] = sys.modules["__main__"]  # claim files import Outcome from it
    main()
