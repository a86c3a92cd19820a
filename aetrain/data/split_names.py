"""The names of folders and arrays that state a split: train, test or validation."""

import re
from itertools import pairwise

SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation"),
}

# Words in a name that suggest a split. A name of other words, such as a class "trainers", does not.
SUGGESTIVE_WORDS = {
    *(spelling for spellings in SPELLINGS.values() for spelling in spellings),
    *("trains", "trainset", "tests", "testset", "vals", "valset", "eval", "evaluation", "dev", "holdout", "heldout"),
    *("hold_out", "held_out"),
}


def split_of(name: str) -> str | None:
    """Return `train`, `test` or `validation` for a known spelling of it, in any case; None for another name."""
    return next((split for split, spellings in SPELLINGS.items() if name.lower() in spellings), None)


def resembles_split(name: str) -> bool:
    """Tell whether a name suggests a split, such as `test2`, `x_dev` or `holdout`."""
    words = [word.lower() for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name)]
    pairs = [f"{first}_{second}" for first, second in pairwise(words)]
    return not SUGGESTIVE_WORDS.isdisjoint([*words, *pairs])
