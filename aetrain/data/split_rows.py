"""Divide the rows of one table or array into splits: as it states, or at random."""

import numpy as np
import torch

from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Examples
from aetrain.data.user_files import Array, test_count


def split_rows(examples: Examples, splits: Array | None, test_fraction: float) -> tuple[Examples, ...]:
    """Return the training, the test and, where `splits` has them, the validation examples.

    `splits` has the words train, test and validation, [N]; None for a random split. Without test examples
    `test_fraction` of the training examples are for testing, the same ones in every run. Raise ValueError where there
    are no training examples.
    """
    rows = {"train": torch.arange(len(examples))}
    if splits is not None:
        names = ("train", "test", "validation")
        rows = {name: torch.from_numpy(np.flatnonzero(splits == name)) for name in names if name in splits}
    if "train" not in rows:
        raise ValueError("there are no training rows: no row is for train")
    if "test" not in rows:
        train = rows["train"]
        order, count = fixed_order(len(train)), test_count(len(train), test_fraction)
        rows |= {"train": train[order[count:].sort().values], "test": train[order[:count].sort().values]}
    used = [rows["train"], rows["test"], *([rows["validation"]] if "validation" in rows else [])]
    return tuple(examples[part] for part in used)
