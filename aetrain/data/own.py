"""What a user's own images have in common, whether a folder of files or arrays: the test share, and what is amiss."""

import os
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def check_fraction(test_fraction: float) -> None:
    """Refuse a test set that is none or all of the images."""
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"test_fraction={test_fraction} leaves nothing to train on or to test with: use a number between 0 and 1"
        )


def share(total: int, fraction: float) -> int:
    """How many of `total` >= 2 images are for the test: the fraction, but at least one, and not all."""
    return min(max(round(total * fraction), 1), total - 1)


def instead(path: Path) -> str:
    """What is found at a path that is not what it should be."""
    if os.path.isdir(path):
        return "is a folder"
    return "is a file" if os.path.exists(path) else f"does not exist (looked for {path.absolute()})"
