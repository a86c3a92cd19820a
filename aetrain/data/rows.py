"""The row numbers of images: the place of each image in the order of its data set."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from aetrain.data.examples import Examples, Values
from aetrain.data.mapped_rows import MappedRows, join_mapped
from aetrain.data.sparse_rows import SparseRows, join_sparse


def number_rows(splits: Sequence[Examples], names: Sequence[Sequence[str]] | None) -> list[Examples]:
    """Return the images of all splits of a source with their row numbers, and with their file names if they have any.

    `names` are those of the images of each split, and rows are the places of the sorted names. Without names, rows
    that the source has set stay, and the images of each other split are counted after those of the splits before.
    """
    counts = [len(images) for images in splits]
    if names is None:
        numbers = torch.arange(sum(counts)).split(counts)
        rows = [other if images.rows is None else images.rows for images, other in zip(splits, numbers, strict=True)]
        return [replace(images, rows=split_rows) for images, split_rows in zip(splits, rows, strict=True)]
    if [len(split_names) for split_names in names] != counts:
        raise ValueError("files() does not name the images of read(): were files added or removed meanwhile?")
    all_names = [name for split_names in names for name in split_names]
    order = sorted(range(len(all_names)), key=all_names.__getitem__)
    file_names = tuple(all_names[number] for number in order)
    places = torch.tensor(order).argsort().split(counts)
    return [
        replace(images, rows=split_rows, file_names=file_names)
        for images, split_rows in zip(splits, places, strict=True)
    ]


def join_splits(splits: Sequence[Examples]) -> Examples:
    """Return the images of all splits in the order of their rows."""
    first = splits[0]
    joined = replace(
        first,
        values=concatenate([images.values for images in splits]),
        labels=None if first.labels is None else torch.cat([images.classes for images in splits]),
        factors=None if first.factors is None else torch.cat([_factors(images) for images in splits]),
        rows=torch.cat([_rows(images) for images in splits]),
    )
    return joined[_rows(joined).argsort(stable=True)]


def concatenate(parts: Sequence[Values]) -> Values:
    """Return the rows of all parts, which are stored in the same way, one after another."""
    if isinstance(parts[0], SparseRows):
        return join_sparse([part for part in parts if isinstance(part, SparseRows)])
    if isinstance(parts[0], MappedRows):
        return join_mapped([part for part in parts if isinstance(part, MappedRows)])
    return torch.cat([part for part in parts if isinstance(part, torch.Tensor)])


def _rows(images: Examples) -> torch.Tensor:
    assert images.rows is not None
    return images.rows


def _factors(images: Examples) -> torch.Tensor:
    assert images.factors is not None
    return images.factors
