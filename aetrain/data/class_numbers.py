"""The numbers of classes: any labels become 0..K-1, and their values become the names of the classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from aetrain.data.examples import Examples
from aetrain.data.user_files import Array


def number_labels(parts: Sequence[Array]) -> tuple[list[Array], tuple[str, ...]]:
    """Return the labels of each part, [N] each, numbered 0..K-1 in the order of their values, and the values as names.

    Labels are integers, bools, texts or floats that are whole numbers. The names are () where the values are 0..K-1
    already. Raise ValueError for a float that is no whole number.
    """
    labels = np.concatenate(parts)
    if labels.dtype.kind == "f":
        is_whole = np.isfinite(labels) & (labels == np.rint(labels))
        if not is_whole.all():
            raise ValueError(f"label {labels[~is_whole][0]:g} is no whole number: use integers or texts as labels")
    values, numbers = np.unique(labels, return_inverse=True)
    sizes = np.cumsum([len(part) for part in parts])[:-1]
    numbered = np.split(numbers.reshape(-1).astype(np.int64), sizes)
    if values.dtype.kind in "iuf":
        if np.array_equal(values, np.arange(len(values))):
            return numbered, ()
        return numbered, tuple(str(int(value)) for value in values)
    return numbered, tuple(str(value) for value in values)


def number_classes(splits: Sequence[Examples]) -> list[Examples]:
    """Return images whose labels are 0..K-1 in all splits; images without labels, or with class names, are unchanged.

    The values of the labels become the names of the classes, unless they are 0..K-1 already.
    """
    if any(images.labels is None or images.class_names for images in splits):
        return [*splits]
    parts, names = number_labels([images.classes.numpy() for images in splits])
    return [
        replace(images, labels=torch.from_numpy(labels), class_names=names)
        for images, labels in zip(splits, parts, strict=True)
    ]


def classes_without_training_images(splits: Sequence[Examples]) -> list[str]:
    """Return the names of the classes that images of other splits have, but those of the first split have not."""
    train, *others = splits
    if any(images.labels is None for images in splits):
        return []
    known = set(train.classes.unique().tolist())
    numbers = {number for images in others for number in images.classes.unique().tolist()} - known
    return [train.class_names[number] if train.class_names else str(number) for number in sorted(numbers)]
