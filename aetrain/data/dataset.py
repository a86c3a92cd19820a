"""The interface of a data set: images as one uint8 tensor, split once, and the settings common to all data sets.

Shapes: N images, B batch, C channels, H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from aetrain.data.class_numbers import classes_without_training_images, number_classes
from aetrain.data.class_selection import ClassSelection
from aetrain.data.examples import Examples, Prepare, Splits
from aetrain.data.pixel_values import MAX_DARK
from aetrain.data.rows import join_splits, number_rows
from aetrain.data.user_files import abbreviate

Binarize = Literal["none", "threshold", "static", "dynamic"]

# Seeds all that must be equal in every run: the images held out, the static binarisation.
SPLIT_SEED = 20061107


def fixed_order(count: int) -> Tensor:
    """Return the same shuffled indices [count] in every run, because files are often sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


@dataclass(kw_only=True)
class Dataset(ABC):
    """A source of images. A subclass reads them; the settings below are those of every data set.

    `classes` keeps the images of these classes and numbers the classes 0..K-1 in this order; `train_classes` keeps
    these classes in training alone. A class is given by its name or by its number in the data set.
    `subset` keeps that many training images, `test_subset` that many test images. `validation` holds that many training
    images out, unless the source has validation images of its own. `binarize`: `threshold` above one half, `static` one
    fixed Bernoulli draw of the grey value, `dynamic` a new draw at every presentation of a training image (one fixed
    draw for evaluation). `random_crop` takes a square of that many pixels from a random position of each image. `scale`
    is the range of the network's input and output pixels; everywhere else, metrics and figures included, pixels are in
    [0, 1].

    After `load`, `conversions` has sentences about the conversions of the images, and `warnings` about likely mistakes.
    """

    classes: Sequence[int | str] | None = None
    train_classes: Sequence[int | str] | None = None
    subset: int | None = None
    test_subset: int | None = None
    validation: int = 0
    binarize: Binarize = "none"
    random_crop: int | None = None
    scale: tuple[float, float] = (0.0, 1.0)
    conversions: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    warnings: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._class_selection()
        for name, count in (("subset", self.subset), ("test_subset", self.test_subset)):
            if count is not None and count < 1:
                raise ValueError(f"{name}={count} is too small: use at least 1 image, or null for all of them")
        if self.validation < 0:
            raise ValueError(f"validation={self.validation} is negative: use the number of images to hold out, or 0")
        if self.random_crop is not None and self.random_crop < 2:
            raise ValueError(
                f"random_crop={self.random_crop} is too small: use at least 2 pixels, or null for whole images"
            )
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale=[{low}, {high}] is empty: the first number must be below the second")

    @property
    @abstractmethod
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a stored image, known without reading the images."""

    @abstractmethod
    def read(self) -> tuple[Examples, ...]:
        """Return all training and all test images in their original order; third, validation images of the source.

        Labels may be any integers; those of a source without class names are numbered 0..K-1 by `load`.
        """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a model's input; a ValueError where the crop is larger than the stored images."""
        channels, height, width = self.stored_shape
        if self.random_crop is None:
            return channels, height, width
        if self.random_crop > min(height, width):
            raise ValueError(
                f"random_crop={self.random_crop} is larger than the images ({height}x{width}): use a smaller one"
            )
        return channels, self.random_crop, self.random_crop

    @property
    def prepare(self) -> Prepare:
        """The conversion of stored pixels to a batch."""
        return Prepare(self.random_crop, dynamic=self.binarize == "dynamic")

    def files(self) -> tuple[Sequence[str], ...] | None:
        """Return the names of the images of each split in the order of `read`; None where they have no names."""
        return None

    def load(self) -> Splits:
        """Read the images, number their classes, split them, and binarise them where `binarize` does so once.

        Raise ValueError where classes are selected and the images have none, or not these.
        """
        self.conversions.clear()
        self.warnings.clear()
        images = number_rows(self._read_numbered(), self.files())
        if len(images[0]) and (missing := classes_without_training_images(images)):
            self.add_warning(f"test images are of classes without training images: {abbreviate(missing)}")
        self._class_selection().check_labels(images[0])
        splits = self.split_images(*images)
        return Splits(*(self._binarized(images, number) for number, images in enumerate(splits)))

    def load_all(self) -> Examples:
        """Return all images in the order of their rows, without a split.

        `classes` selects among them, `subset` keeps that many, and they are binarised. Raise ValueError as `load`.
        """
        self.conversions.clear()
        self.warnings.clear()
        images = join_splits(number_rows(self._read_numbered(), self.files()))
        selection = ClassSelection(self.classes)
        selection.check_labels(images)
        if selection.is_active:
            (images,) = selection.select([images])
        return self._binarized(self._cut(images, self.subset, "", "subset"), 0)

    def describe_dark(self, largest: int) -> str:
        """Return the message about training images that are nearly black, of which the largest byte is `largest`."""
        return f"the largest pixel is {largest} of 255: the images are nearly black; scale them to 0..255 in read()"

    def split_images(
        self, train: Examples, test: Examples, validation: Examples | None = None
    ) -> tuple[Examples, Examples, Examples]:
        """Return training, validation and test images, after the settings that select classes and numbers of images.

        The arguments are the images of `read`. Raise ValueError where no training image would be left.
        """
        images = [train, test] if validation is None else [train, test, validation]
        selection = self._class_selection()
        if selection.is_active:
            images = selection.select(images)
        train, test = images[:2]
        if validation is not None:
            validation = images[2]
        else:
            train, validation = self._hold_out(train)
        train = self._cut(train, self.subset, "training ", "subset")
        return train, validation, self._cut(test, self.test_subset, "test ", "test_subset")

    def check_own_validation(self, source: str) -> None:
        """Raise ValueError where `validation` is set although the source, a folder or array, has validation images."""
        if self.validation:
            raise ValueError(
                f"validation={self.validation} holds training images out, but {source} has the validation images: use 0"
            )

    def _read_numbered(self) -> list[Examples]:
        """Return the images of `read` with classes 0..K-1, and warn if they are nearly black."""
        images = number_classes(self.read())
        if len(images[0]) and (largest := int(images[0].values.max())) <= MAX_DARK:
            self.add_warning(self.describe_dark(largest))
        return images

    def _hold_out(self, train: Examples) -> tuple[Examples, Examples]:
        """Return the training images that are left after `validation`, and the validation images."""
        if self.validation and self.validation >= len(train):
            raise ValueError(
                f"validation={self.validation} leaves nothing to train on: there are {len(train)} training images"
            )
        order = fixed_order(len(train))
        if not self.validation:
            return train, train[order[:0]]
        return train[order[self.validation :].sort().values], train[order[: self.validation]]

    def _cut(self, images: Examples, count: int | None, split: str, setting: str) -> Examples:
        """Return at most `count` images, the same ones in every run."""
        if count is None or count >= len(images):
            return images
        self.add_conversion(f"dataset.{setting} keeps {count:,} of {len(images):,} {split}images")
        return images[fixed_order(len(images))[:count].sort().values]

    def add_conversion(self, text: str) -> None:
        """Add a sentence about a conversion of the images, or about images that were left out."""
        if text not in self.conversions:
            self.conversions.append(text)

    def add_warning(self, text: str) -> None:
        """Add a sentence about a likely mistake in the images."""
        if text not in self.warnings:
            self.warnings.append(text)

    def _class_selection(self) -> ClassSelection:
        return ClassSelection(self.classes, self.train_classes)

    def _binarized(self, images: Examples, split_number: int) -> Examples:
        match self.binarize:
            case "threshold":
                return replace(images, values=(images.values > 127).to(torch.uint8).mul_(255))
            case "static":
                generator = torch.Generator().manual_seed(SPLIT_SEED + split_number)
                drawn = torch.bernoulli(images.values.to(torch.float32).div_(255), generator=generator)
                return replace(images, values=drawn.to(torch.uint8).mul_(255))
            case _:
                return images
