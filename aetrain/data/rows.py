"""The row numbers of images: the place of each image in the order of its source."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from aetrain.data.images import Images


def number_rows(splits: Sequence[Images], names: Sequence[Sequence[str]] | None) -> list[Images]:
    """Return the images of the splits of a source with their row numbers, and with their file names if they have any.

    `names` are those of the images of each split. Rows count the sorted names of all splits together. Without names,
    rows that the source has set stay, and the others count the images of each split.
    """
    if names is None:
        rows = [torch.arange(len(images)) if images.rows is None else images.rows for images in splits]
        return [replace(images, rows=split_rows) for images, split_rows in zip(splits, rows, strict=True)]
    if [*map(len, names)] != [*map(len, splits)]:
        raise ValueError("files() does not name the images of read(): files were added or removed at the same time?")
    all_names = [name for split_names in names for name in split_names]
    order = sorted(range(len(all_names)), key=all_names.__getitem__)
    file_names = tuple(all_names[number] for number in order)
    rows = [*torch.tensor(order, dtype=torch.int64).argsort().split([*map(len, splits)])]
    return [
        replace(images, rows=split_rows, file_names=file_names) for images, split_rows in zip(splits, rows, strict=True)
    ]
