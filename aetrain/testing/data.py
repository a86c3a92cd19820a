"""Contract checks of data sets."""

from dataclasses import replace

import torch

from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples
from aetrain.testing.common import expect


def check_dataset(dataset: Dataset) -> None:
    """Check a data set: stored shape and type, labels, splits, repeatability, and the range of prepared pixels."""
    name = type(dataset).__name__
    try:
        replace(dataset, subset=-1)
    except ValueError:
        pass
    else:
        expect(False, f"{name} accepts subset=-1: begin its __post_init__ with super().__post_init__()")
    read = dataset.read()
    for split, images in zip(("train", "test", "validation"), read, strict=False):
        _check_images(f"{split} of {name}", images, dataset.stored_shape)
    files = dataset.files()
    if files is not None:
        counts, numbers = tuple(map(len, files)), tuple(map(len, read))
        expect(counts == numbers, f"files() of {name} names {counts} of {numbers} images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        splits = dataset.load()
        torch.manual_seed(2)
        again = dataset.load()
    for split in ("train", "validation", "test"):
        first, second = getattr(splits, split), getattr(again, split)
        expect(torch.equal(first.values, second.values), f"{split} of {name} differs between two loads")
        if first.labels is not None:
            expect(bool((first.labels >= 0).all()), f"a label of {name} is negative after load()")
            expect(torch.equal(first.labels, second.labels), f"labels of {name} differ between two loads")
    x = dataset.prepare(splits.train.values[:4], torch.Generator().manual_seed(0))
    shape = dataset.image_shape
    expect(tuple(x.shape[1:]) == shape, f"{name} prepares {list(x.shape[1:])}, and image_shape is {list(shape)}")
    expect(x.dtype == torch.float32, f"{name} prepares {x.dtype}, not float32")
    expect(bool(((x >= 0) & (x <= 1)).all()), f"the prepared pixels of {name} leave [0, 1]")


def _check_images(name: str, images: Examples, stored_shape: tuple[int, int, int]) -> None:
    pixels, labels = images.values, images.labels
    expect(len(images) > 0, f"{name} is empty")
    expect(pixels.dtype == torch.uint8, f"{name} stores {pixels.dtype}, not uint8")
    expect(
        tuple(pixels.shape[1:]) == stored_shape, f"{name} is {list(pixels.shape)}, stored_shape {list(stored_shape)}"
    )
    if labels is not None:
        expect(labels.dtype == torch.int64, f"the labels of {name} are {labels.dtype}, not int64")
        expect(tuple(labels.shape) == (len(images),), f"the labels of {name} are {list(labels.shape)}, not [N]")
        known = len(images.class_names)
        expect(not known or int(labels.min()) >= 0, f"a label of {name} is negative, and the classes have names")
        expect(not known or int(labels.max()) < known, f"{name} has label {int(labels.max())} and {known} class names")
