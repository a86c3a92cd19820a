"""Measure how likely the test images are under variational models, and write docs/likelihood.md.

    python benchmarks/likelihood.py [NAME ...] [--seeds 3] [--outputs outputs/experiments]

Each system is an experiment with `measures=likelihood`, trained unless its run is finished. Metrics go to
docs/likelihood.json, from which the page is made.
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
    """A line of the table."""

    folder: str  # of its runs, below the outputs
    overrides: tuple[str, ...]
    pixels: str
    budget: str
    published: str = ""
    seeds: int | None = None  # no more than these


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
        f"iwae_{samples}": System(
            f"iwae/{'vae' if samples == 1 else f'iwae{samples}'}",
            ("experiment=iwae", *([] if samples == 5 else [f"model.penalties.iwae.samples={samples}"])),
            DYNAMIC,
            f"5 epochs, {samples} draw{'s' if samples > 1 else ''}",
            f"{published} (5,000 draws; 3,280 epochs)",
            seeds=1,
        )
        for samples, published in ((1, "86.76"), (5, "85.54"), (50, "84.78"))
    },
}
SYSTEMS = {name: system for table in TABLES.values() for name, system in table.items()}
HEAD = """# Likelihood

Importance-sampled negative log-likelihood of the 10,000 test images of MNIST, in nats per image (Burda et al. 2016,
[arXiv:1509.00519](https://arxiv.org/abs/1509.00519), eq. 8): an upper bound of -log p(x) that falls with the number K
of draws of the code. K = 1 is the negative ELBO. `python benchmarks/likelihood.py` trains what is missing, measures it
and writes this page; any run is measured with `aetrain mode=eval run=RUN measures=likelihood`.

What pixels are decides what the figure is. Under independent Bernoulli pixels it is a likelihood of black and white
images alone, and figures compare only where they were made black and white the same way: `dataset.binarize=static`
draws each pixel from its grey value once, `dynamic` anew at every presentation of a training image (and once for the
test). Of grey pixels it is the same bound of their cross-entropy, which is what `experiment=vae` trains on and no
likelihood: it can be compared with other grey figures, and with nothing else.

Published figures are after far longer training than ours, and the row says how much: they show where longer training
leads, not what this budget should reach. The static draw of the pixels is our own, not Larochelle's file.
"""


def measure(names: list[str], seeds: int, outputs: Path) -> None:
    """Train what is missing, and record what it came to, after every run."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in names:
        system = SYSTEMS[name]
        for seed in range(min(seeds, system.seeds or seeds)):
            run = train([*system.overrides, f"seed={seed}"], outputs / system.folder / f"seed{seed}")
            found = results.setdefault(name, {})
            found[str(seed)] = {f"is_nll_{draws}": run.metrics[f"test/is_nll_{draws}"] for draws in DRAWS}
            print(name, seed, found[str(seed)], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """docs/likelihood.md from what is recorded."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    text = [HEAD]
    for title, systems in TABLES.items():
        if not systems.keys() & results.keys():
            continue
        text += [f"## {title}", "", f"| `aetrain ...` | pixels | trained for | seeds | {_heads()} | published |"]
        text += ["|---|---|---|---:|" + "---:|" * len(DRAWS) + "---|"]
        for name, system in systems.items():
            runs = list(results.get(name, {}).values())
            if not runs:
                continue
            cells = [spread([run[f"is_nll_{draws}"] for run in runs], ".2f") for draws in DRAWS]
            words = " ".join(word for word in system.overrides if word != "measures=likelihood")
            row = [f"`{words}`", system.pixels, system.budget, str(len(runs)), *cells, system.published or "-"]
            text.append(f"| {' | '.join(row)} |")
        text.append("")
    (DOCS / "likelihood.md").write_text("\n".join(text).rstrip() + "\n")


def _heads() -> str:
    return " | ".join(f"K = {draws}" for draws in DRAWS)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    given = parser.parse_args()
    if unknown := set(given.names) - SYSTEMS.keys():
        sys.exit(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    measure(given.names or list(SYSTEMS), given.seeds, given.outputs)
    write_document()


if __name__ == "__main__":
    main()
