"""Helpers of the data sets made of a user's own files: the size of the test set, descriptions of names and files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]  # of any shape and type

MAX_NAMES = 5  # names that a sentence lists


def check_fraction(test_fraction: float) -> None:
    """Raise ValueError where the test set would contain none or all of the images."""
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"test_fraction={test_fraction} leaves nothing to train on or to test with: use a number between 0 and 1"
        )


def test_count(total: int, fraction: float) -> int:
    """Return the number of test images: the fraction of `total`, but at least 1 and at most total - 1; all of 1."""
    if total == 1:
        return 1
    return min(max(round(total * fraction), 1), total - 1)


def describe_path(path: Path) -> str:
    """Return a description of a path that is of the wrong kind, for an error message: "is a folder", and so on."""
    if os.path.isdir(path):
        return "is a folder"
    return "is a file" if os.path.exists(path) else f"does not exist (looked for {path.absolute()})"


def describe_error(error: Exception) -> str:
    """Return the message of an exception on one line, or its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def quote_names(names: Sequence[str]) -> str:
    """Return names in quotes and in alphabetical order; of many the first ones and the number of the others."""
    quoted = [repr(name) for name in sorted(names)]
    if len(quoted) > MAX_NAMES:
        return f"{', '.join(quoted[:MAX_NAMES])} and {len(quoted) - MAX_NAMES} more"
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}" if len(quoted) > 1 else quoted[0]


def abbreviate(names: Sequence[str]) -> str:
    """Return names in their order, separated by commas; of many the first ones and the last one."""
    return ", ".join(names) if len(names) <= MAX_NAMES else f"{', '.join(names[:2])}, ..., {names[-1]}"
