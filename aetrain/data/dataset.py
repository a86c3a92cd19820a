"""The interface of a data set: images as one uint8 tensor, split once, and the settings common to all data sets.

Shapes: N images, B batch, C channels, H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from aetrain.data.class_selection import ClassSelection
from aetrain.data.images import Images, Prepare, Splits
from aetrain.data.rows import number_rows

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
    `subset` keeps that many training images and at most as many test images. `validation` holds that many training
    images out. `binarize`: `threshold` above one half, `static` one fixed Bernoulli draw of the grey value,
    `dynamic` a new draw at every presentation of a training image (one fixed draw for evaluation). `random_crop` takes
    a square of that many pixels from a random position of each image. `scale` is the range of the network's input and
    output pixels; everywhere else, metrics and figures included, pixels are in [0, 1].
    """

    classes: Sequence[int | str] | None = None
    train_classes: Sequence[int | str] | None = None
    subset: int | None = None
    validation: int = 0
    binarize: Binarize = "none"
    random_crop: int | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self._class_selection()
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"subset={self.subset} is too small: use at least 1 image, or null for all of them")
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
    def read(self) -> tuple[Images, Images]:
        """Return all training images and all test images in their original order."""

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

    def files(self) -> tuple[Sequence[str], Sequence[str]] | None:
        """Return the names of the training and test images in the order of `read`; None where they have no names."""
        return None

    def load(self) -> Splits:
        """Read the images, split them, and binarise them where `binarize` does so once.

        Raise ValueError where classes are selected and the images have none, or not these.
        """
        train, test = number_rows(self.read(), self.files())
        self._class_selection().check_labels(train)
        splits = self.split_images(train, test)
        return Splits(*(self._binarized(images, number) for number, images in enumerate(splits)))

    def split_images(self, train: Images, test: Images) -> tuple[Images, Images, Images]:
        """Return training, validation and test images, after `classes`, `train_classes`, `validation` and `subset`.

        `train` and `test` correspond to the images of `read`. They may have other pixels and no labels, such as row
        numbers to split file names with. Raise ValueError where no training image would be left.
        """
        selection = self._class_selection()
        if selection.is_active:
            labelled = (train, test) if train.labels is not None else self.read()
            train, test = selection.select((train, test), labelled)
        order = fixed_order(len(train))
        if self.validation and self.validation >= len(train):
            raise ValueError(
                f"validation={self.validation} leaves nothing to train on: there are {len(train)} training images"
            )
        validation = train[order[:0]]
        if self.validation:
            validation, train = train[order[: self.validation]], train[order[self.validation :].sort().values]
        if self.subset is not None:
            train, test = (images[fixed_order(len(images))[: self.subset].sort().values] for images in (train, test))
        return train, validation, test

    def _class_selection(self) -> ClassSelection:
        return ClassSelection(self.classes, self.train_classes)

    def _binarized(self, images: Images, split_number: int) -> Images:
        match self.binarize:
            case "threshold":
                return replace(images, pixels=(images.pixels > 127).to(torch.uint8).mul_(255))
            case "static":
                generator = torch.Generator().manual_seed(SPLIT_SEED + split_number)
                drawn = torch.bernoulli(images.pixels.to(torch.float32).div_(255), generator=generator)
                return replace(images, pixels=drawn.to(torch.uint8).mul_(255))
            case _:
                return images
