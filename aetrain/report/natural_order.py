"""The order of texts with numbers in them: `code_dim=8` before `code_dim=32`, `1e-3` before `0.01`."""

import re

NUMBER = re.compile(r"((?<!\w)-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+\.?\d*(?:[eE][-+]?\d+)?)")

Key = tuple[tuple[int, float, str], ...]


def natural_key(text: str) -> Key:
    """Return a sort key in which numbers are compared by value: 2, 8, 32, [64], [512,256], true; an empty text is last.

    A number comes before a letter at the same place.
    """
    parts: list[tuple[int, float, str]] = []
    for i, part in enumerate(NUMBER.split(text)):
        if i % 2:
            parts.append((0, float(part), ""))
        elif part:
            parts.append((1, 0.0, part.casefold().replace("]", "\0")))  # a list comes before its continuations
    return (*(parts or [(2, 0.0, "")]), (-1, 0.0, text))


def without_numbers(text: str) -> str:
    """Return a text without its numbers, which is equal for texts that differ in their numbers alone."""
    return "".join(NUMBER.split(text)[::2])
