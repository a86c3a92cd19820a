"""Compare settings of experiment=one_class on training images of MNIST alone.

    python benchmarks/one_class_settings.py model.code_dim=16 epochs=10 [--digits 2 5 8]

For each digit a model is trained on all but its first 1,000 training images. These and 2,500 training images of the
other digits are scored. The mean areas under the ROC curve of all digits are printed. No test image is read.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np

import aetrain
from aetrain.data.mnist import Mnist
from aetrain.data.user_files import Array

NUM_USUAL, NUM_OTHERS = 1000, 2500  # training images that are scored
AREAS = ("roc_auc", "roc_auc_code_distance", "roc_auc_pca", "roc_auc_forest")
SETTINGS = ("model=conv", "model.code_dim=32", "epochs=30", "views=none", "measures=anomaly")


def main() -> None:
    """Train a model for each digit and print the mean areas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--digits", nargs="+", type=int, default=[2, 5, 8])
    arguments = parser.parse_args()
    images, _ = Mnist(path=os.environ.get("AETRAIN_DATA", "data")).read()
    pixels, labels = images.pixels.numpy(), images.classes.numpy()
    generator = np.random.default_rng(0)
    areas = [measure(pixels, labels, digit, arguments.overrides, generator) for digit in arguments.digits]
    print(json.dumps({name: round(mean(area[name] for area in areas), 3) for name in AREAS}))


def measure(
    pixels: Array, labels: Array, digit: int, overrides: list[str], generator: np.random.Generator
) -> dict[str, float]:
    """Return the areas for one digit as the usual class."""
    own = np.flatnonzero(labels == digit)
    others = generator.choice(np.flatnonzero(labels != digit), NUM_OTHERS, replace=False)
    rows = {"train": own[NUM_USUAL:], "test": np.concatenate([own[:NUM_USUAL], others])}
    with tempfile.TemporaryDirectory() as folder:
        run = aetrain.run(
            [*SETTINGS, *overrides],
            data={split: pixels[part] for split, part in rows.items()},
            labels={split: labels[part] for split, part in rows.items()},
            directory=Path(folder) / "run",
        )
        return {name: run.metrics[f"test/{name}"] for name in AREAS}


if __name__ == "__main__":
    main()
