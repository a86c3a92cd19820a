"""Train a model on each kind of noise, evaluate it on all kinds and levels, and write docs/robustness.md.

    python benchmarks/robustness.py [--seeds 1] [--outputs outputs/experiments]

The results go to docs/robustness.json, and the page and its picture are made from them.
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
COMMAND = "model=deep model.activation=relu model.init=default epochs=5 measures=robustness"
RESULTS = DOCS / "robustness.json"
HEAD = """# Robustness

Models that are trained on one kind of noise and evaluated on all kinds. The numbers are squared errors between the
reconstructions of noisy test images of MNIST and the clean images, summed over an image's pixels. `python
benchmarks/robustness.py --seeds 3` trains
`aetrain {command}` with each kind of noise and writes this page. The level is the
standard deviation of gaussian noise (pixels stay in [0, 1]); for the other kinds it is the fraction of corrupted
pixels. The level in training is 0.5. The last line of each table is the baseline: the error of the noisy images
themselves. A model above it makes noisy images worse. The error of the mean image is 52.9 under any noise.

![The map](figures/robustness.png)

"""


def measure(seeds: int, outputs: Path) -> None:
    """Train the missing runs, and record the errors after every run."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, noise in TRAINED.items():
        for seed in range(seeds):
            overrides = [*COMMAND.split(), *noise.split(), f"seed={seed}"]
            run = train(overrides, outputs / "robustness" / name / f"seed{seed}")
            errors = {key.partition("/")[2]: value for key, value in run.metrics.items() if "_sse_" in key}
            results.setdefault(name, {})[str(seed)] = errors
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write_document() -> None:
    """Write docs/robustness.md and its picture from the recorded results."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    kinds = [name for name in TRAINED if name != "none"]
    columns = [(kind, level) for kind in kinds for level in LEVELS]
    rows = {}
    for name, runs in results.items():
        rows[f"trained with {name}"] = [mean(runs, f"noisy_sse_{kind}_{level}") for kind, level in columns]
    rows["the noisy image itself"] = [mean(results["none"], f"input_sse_{kind}_{level}") for kind, level in columns]
    draw(rows, columns)
    seeds = len(results["none"])
    text = [HEAD.format(command=COMMAND) + ("One seed." if seeds == 1 else f"Means over {seeds} seeds."), ""]
    for number, kind in enumerate(kinds):
        text += [f"| {kind} | " + " | ".join(f"{level:g}" for level in LEVELS) + " |"]
        text += ["|---|" + "---:|" * len(LEVELS)]
        for name, row in rows.items():
            cells = [f"{value:.1f}" for value in row[number * len(LEVELS) : (number + 1) * len(LEVELS)]]
            text.append(f"| {name} | " + " | ".join(cells) + " |")
        text += [""]
    (DOCS / "robustness.md").write_text("\n".join(text).rstrip() + "\n")


def mean(runs: dict[str, Any], metric: str) -> float:
    """Return the mean of a metric over the seeds."""
    return statistics.mean(run[metric] for run in runs.values())


def draw(rows: dict[str, list[float]], columns: list[tuple[str, float]]) -> None:
    """Draw the errors of models (rows) on noise (columns) on a logarithmic colour scale; write the picture."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import colors, pyplot

    values = np.array([*rows.values()])
    figure, axes = pyplot.subplots(figsize=(13, 3.9), layout="constrained")
    axes.imshow(values, cmap="magma_r", norm=colors.LogNorm(values.min(), values.max()), aspect="auto")
    threshold = np.sqrt(values.min() * values.max())
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value > threshold else "black"
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
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "experiments")
    arguments = parser.parse_args()
    measure(arguments.seeds, arguments.outputs)
    write_document()


if __name__ == "__main__":
    main()
