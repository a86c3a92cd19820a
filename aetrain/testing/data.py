"""Contract checks of data sets."""

import json
from dataclasses import replace

import torch

from aetrain.data.dataset import Dataset
from aetrain.data.digests import digest_values
from aetrain.data.examples import Examples
from aetrain.testing.common import expect


def check_dataset(dataset: Dataset) -> None:
    """Check a data set: stored shape and type, labels, splits, repeatability, and the range of prepared pixels.

    Of vectors, check also that missing values are announced, and that a data set that is restored from `fitted_state`
    is the same.
    """
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
        expect(
            digest_values(first.values) == digest_values(second.values), f"{split} of {name} differs between two loads"
        )
        if first.labels is not None:
            expect(bool((first.labels >= 0).all()), f"a label of {name} is negative after load()")
            expect(torch.equal(first.labels, second.labels), f"labels of {name} differ between two loads")
    x = dataset.prepare(splits.train.values[:4], torch.Generator().manual_seed(0))
    shape = dataset.image_shape
    expect(tuple(x.shape[1:]) == shape, f"{name} prepares {list(x.shape[1:])}, and image_shape is {list(shape)}")
    expect(x.dtype == torch.float32, f"{name} prepares {x.dtype}, not float32")
    if dataset.kind == "image":
        known = x[~x.isnan()]
        expect(bool(((known >= 0) & (known <= 1)).all()), f"the prepared pixels of {name} leave [0, 1]")
    expect(dataset.has_missing or not x.isnan().any(), f"{name} has missing values, and has_missing is False")
    if state := dataset.fitted_state():
        restored = replace(dataset)
        restored.restore(json.loads(json.dumps(state)))
        expect(restored.image_shape == shape, f"{name} has another image_shape after restore(fitted_state())")
        expect(
            digest_values(restored.load().test.values) == digest_values(splits.test.values),
            f"{name} differs after restore()",
        )


def _check_images(name: str, images: Examples, stored_shape: tuple[int, int, int]) -> None:
    pixels, labels = images.values, images.labels
    expect(len(images) > 0, f"{name} is empty")
    if images.kind == "image":
        expect(pixels.dtype == torch.uint8, f"{name} stores {pixels.dtype}, not uint8")
    else:
        count, features = len(images.feature_names), pixels.shape[-1]
        expect(pixels.dtype.is_floating_point, f"{name} stores {pixels.dtype}, not floats")
        expect(count in (0, features), f"{name} has {count} feature_names for {features} features")
    expect(
        tuple(pixels.shape[1:]) == stored_shape, f"{name} is {list(pixels.shape)}, stored_shape {list(stored_shape)}"
    )
    if labels is not None:
        expect(labels.dtype == torch.int64, f"the labels of {name} are {labels.dtype}, not int64")
        expect(tuple(labels.shape) == (len(images),), f"the labels of {name} are {list(labels.shape)}, not [N]")
        known = len(images.class_names)
        expect(not known or int(labels.min()) >= 0, f"a label of {name} is negative, and the classes have names")
        expect(not known or int(labels.max()) < known, f"{name} has label {int(labels.max())} and {known} class names")
