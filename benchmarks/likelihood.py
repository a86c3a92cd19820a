"""Measure the likelihood of test images under variational models, and write docs/likelihood.md.

    python benchmarks/likelihood.py [NAME ...] [--seeds 3] [--outputs outputs/experiments]

Each system is an experiment with `measures=likelihood`, which is trained unless its run is finished. The results go to
docs/likelihood.json, and the page is made from them.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import DOCS, ROOT, spread, train

DRAWS = (1, 5, 50, 500)
RESULTS = DOCS / "likelihood.json"


@dataclass(frozen=True)
class System:
    """A row of the table."""

    folder: str  # of its runs, below --outputs
    overrides: tuple[str, ...]
    pixels: str
    budget: str
    published: str = ""
    max_seeds: int | None = None


GREY, STATIC, DYNAMIC = "grey: no likelihood", "static, one frozen draw", "dynamic"
TABLES = {
    "784-400-20, the variational autoencoder of `experiment=vae`": {
        "vae": System(
            "likelihood/vae",
            ("experiment=vae", "measures=likelihood"),
            GREY,
            "10 epochs",
            "106.66 at K = 1 after 7 epochs (pytorch/examples)",
        ),
        "vae_static": System(
            "likelihood/vae_static",
            ("experiment=vae", "dataset.binarize=static", "measures=likelihood"),
            STATIC,
            "10 epochs",
            "89.78 ± 0.01 (200 draws; 784-400-40, 50,000 images, 500 epochs; Pythae's reproduction of 89.9)",
        ),
        "vae_dynamic": System(
            "likelihood/vae_dynamic",
            ("experiment=vae", "dataset.binarize=dynamic", "measures=likelihood"),
            DYNAMIC,
            "10 epochs",
        ),
    },
    "784-200-200-50, one stochastic layer of Burda et al. (2016), `experiment=iwae`": {
        "iwae_1": System(
            "iwae/vae",
            ("experiment=iwae", "model.penalties.iwae.samples=1"),
            DYNAMIC,
            "5 epochs, 1 draw",
            "86.76 (5,000 draws; 3,280 epochs)",
            max_seeds=1,
        ),
        "iwae_5": System(
            "iwae/iwae5",
            ("experiment=iwae",),
            DYNAMIC,
            "5 epochs, 5 draws",
            "85.54 (5,000 draws; 3,280 epochs)",
            max_seeds=1,
        ),
        "iwae_50": System(
            "iwae/iwae50",
            ("experiment=iwae", "model.penalties.iwae.samples=50"),
            DYNAMIC,
            "5 epochs, 50 draws",
            "84.78 (5,000 draws; 3,280 epochs)",
            max_seeds=1,
        ),
    },
}
SYSTEMS = {name: system for systems in TABLES.values() for name, system in systems.items()}
HEAD = """# Likelihood

Importance-sampled negative log-likelihood of the 10,000 test images of MNIST, in nats per image (Burda et al. 2016,
[arXiv:1509.00519](https://arxiv.org/abs/1509.00519), eq. 8): an upper bound of -log p(x) that falls with the number K
of draws of the code. K = 1 is the negative ELBO. `python benchmarks/likelihood.py` trains missing runs, measures them
and writes this page; `aetrain mode=eval run=RUN measures=likelihood` measures any run.

The binarisation of the pixels decides the meaning of the number. Independent Bernoulli pixels are a likelihood of black
and white images only. Two results are comparable only with the same binarisation: `dataset.binarize=static` draws
each pixel from its grey value once; `dynamic` draws it at every presentation of a training image (and once for the
test). For grey pixels the number is the same bound of their cross-entropy, which `experiment=vae` trains on. It is not
a likelihood and is comparable only with other results on grey pixels.

Published results come from far longer training; the row gives its length. They show the effect of longer training, not
a target for this budget. The static binarisation is this project's own draw, not Larochelle's file.
"""


def measure(names: list[str], seeds: int, outputs: Path) -> None:
    """Train the missing runs of the systems, and record the likelihoods after every run."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in names:
        system = SYSTEMS[name]
        for seed in range(min(seeds, system.max_seeds or seeds)):
            run = train([*system.overrides, f"seed={seed}"], outputs / system.folder / f"seed{seed}")
            record = results.setdefault(name, {})
            record[str(seed)] = {f"is_nll_{draws}": run.metrics[f"test/is_nll_{draws}"] for draws in DRAWS}
            print(name, seed, record[str(seed)], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """Write docs/likelihood.md from the recorded results."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    text = [HEAD]
    for title, systems in TABLES.items():
        if systems.keys() & results.keys():
            text += table(title, systems, results)
    (DOCS / "likelihood.md").write_text("\n".join(text).rstrip() + "\n")


def table(title: str, systems: dict[str, System], results: dict[str, Any]) -> list[str]:
    """Return the lines of one table."""
    columns = " | ".join(f"K = {draws}" for draws in DRAWS)
    text = [f"## {title}", "", f"| `aetrain ...` | pixels | trained for | seeds | {columns} | published |"]
    text += ["|---|---|---|---:|" + "---:|" * len(DRAWS) + "---|"]
    for name, system in systems.items():
        runs = list(results.get(name, {}).values())
        if not runs:
            continue
        cells = [nll_cell(runs, draws) for draws in DRAWS]
        overrides = " ".join(override for override in system.overrides if override != "measures=likelihood")
        row = [f"`{overrides}`", system.pixels, system.budget, str(len(runs)), *cells, system.published or "-"]
        text.append(f"| {' | '.join(row)} |")
    return [*text, ""]


def nll_cell(runs: list[dict[str, float]], draws: int) -> str:
    """Return the mean over the runs, and the standard deviation, for a number of draws."""
    return spread([run[f"is_nll_{draws}"] for run in runs], ".2f")


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"systems: {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - SYSTEMS.keys()
    if unknown:
        sys.exit(f"there is no system {', '.join(sorted(unknown))}: use {', '.join(SYSTEMS)}")
    measure(arguments.names or list(SYSTEMS), arguments.seeds, arguments.outputs)
    write_document()


if __name__ == "__main__":
    main()
