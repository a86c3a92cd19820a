"""Train a model on each kind of noise, evaluate each under all kinds and levels, and write docs/robustness.md.

    python benchmarks/robustness.py [--seeds 1] [--outputs outputs/experiments]

Metrics go to docs/robustness.json, from which page and picture are made.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from experiments import DOCS, ROOT, train

TRAINED = {
    "none": "noise=none",
    "gaussian": "noise=gaussian noise.std=0.5",
    "masking": "noise=masking noise.p=0.5",
    "salt": "noise=salt noise.p=0.5",
    "salt_and_pepper": "noise=salt_and_pepper noise.p=0.5",
}
LEVELS = (0.1, 0.3, 0.5, 0.7)
COMMAND = "model=deep epochs=5 measures=robustness"
RESULTS = DOCS / "robustness.json"
HEAD = """# Robustness

Trained on one kind of noise, evaluated on all: the squared error from noisy test images of MNIST to the clean ones,
summed over an image's pixels. `python benchmarks/robustness.py --seeds 3` trains
`aetrain {command}` with each kind of noise and writes this page. The level is the
standard deviation of gaussian noise (pixels stay in [0, 1]), the share of pixels hit of the others; the level in
training is 0.5. The last line is the error of the noisy images themselves, the control: a model above it would do
better to leave them as they are. The mean image errs by 52.9 under any noise.

![The map](figures/robustness.png)

"""


def measure(seeds: int, outputs: Path) -> None:
    """Train what is missing, and record what it came to."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, noise in TRAINED.items():
        for seed in range(seeds):
            words = [*COMMAND.split(), *noise.split(), f"seed={seed}"]
            run = train(words, outputs / "robustness" / name / f"seed{seed}")
            kept = {key.partition("/")[2]: v for key, v in run.metrics.items() if "_sse_" in key}
            results.setdefault(name, {})[str(seed)] = kept
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """The map as a picture, then as a table."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    kinds = [name for name in TRAINED if name != "none"]
    columns = [(kind, level) for kind in kinds for level in LEVELS]
    rows = {
        f"trained with {name}": [mean(runs, f"noisy_sse_{kind}_{level}") for kind, level in columns]
        for name, runs in results.items()
    }
    rows["the noisy image itself"] = [mean(results["none"], f"input_sse_{kind}_{level}") for kind, level in columns]
    draw(rows, columns)
    seeds = len(results["none"])
    text = [HEAD.format(command=COMMAND) + f"{'One seed' if seeds == 1 else f'Means over {seeds} seeds'}.", ""]
    for kind in kinds:
        places = [place for place, (own, _) in enumerate(columns) if own == kind]
        text += [f"| {kind} | " + " | ".join(f"{LEVELS[i]:g}" for i in range(len(places))) + " |"]
        text += ["|---|" + "---:|" * len(places)]
        text += [f"| {name} | " + " | ".join(f"{row[i]:.1f}" for i in places) + " |" for name, row in rows.items()]
        text += [""]
    (DOCS / "robustness.md").write_text("\n".join(text).rstrip() + "\n")


def mean(runs: dict[str, Any], figure: str) -> float:
    """A figure's mean over the seeds."""
    return statistics.mean(run[figure] for run in runs.values())


def draw(rows: dict[str, list[float]], columns: list[tuple[str, float]]) -> None:
    """Lines of models, columns of noise: the errors, on a logarithmic scale of colours."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import colors, pyplot

    values = np.array([*rows.values()])
    figure, axes = pyplot.subplots(figsize=(13, 3.9), layout="constrained")
    axes.imshow(values, cmap="magma_r", norm=colors.LogNorm(values.min(), values.max()), aspect="auto")
    middle = np.sqrt(values.min() * values.max())
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value > middle else "black"
        axes.text(column, row, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_yticks(range(len(rows)), [*rows])
    axes.set_xticks(range(len(columns)), [f"{level:g}" for _, level in columns])
    kinds = [*dict.fromkeys(kind for kind, _ in columns)]
    across = len(columns) // len(kinds)
    top = axes.secondary_xaxis("top")
    top.set_xticks([across * i + (across - 1) / 2 for i in range(len(kinds))], kinds)
    top.tick_params(length=0)
    for edge in range(1, len(kinds)):
        axes.axvline(across * edge - 0.5, color="white", linewidth=4)
    axes.axhline(len(rows) - 1.5, color="white", linewidth=4)
    axes.set_xlabel("level of the noise in the test")
    figure.savefig(DOCS / "figures" / "robustness.png", dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    given = parser.parse_args()
    measure(given.seeds, given.outputs)
    write_document()


if __name__ == "__main__":
    main()
