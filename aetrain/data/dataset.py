"""What a data set is: images as one uint8 tensor, split once, and the settings every data set shares.

Shapes: N images, B batch, C channels, H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Binarize = Literal["none", "threshold", "static", "dynamic"]

# The generators of everything that must be equal in every run: which images are held out, the frozen binarisation.
SPLIT_SEED = 20061107


@dataclass(frozen=True)
class Images:
    """Images as they are stored, and their classes where there are any."""

    pixels: Tensor  # [N, C, H, W] uint8
    labels: Tensor | None = None  # [N] int64
    names: tuple[str, ...] = ()  # of the classes 0, 1, ...; none where they are just numbers

    @property
    def classes(self) -> Tensor:
        """The labels [N] of images that are known to have them."""
        assert self.labels is not None
        return self.labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        return replace(self, pixels=self.pixels[index], labels=None if self.labels is None else self.labels[index])

    def to(self, device: torch.device) -> "Images":
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)


@dataclass(frozen=True)
class Splits:
    """Disjoint sets: `train` teaches, `validation` (possibly empty) chooses, `test` judges."""

    train: Images
    validation: Images
    test: Images

    @property
    def held_out(self) -> tuple[str, Images]:
        """The set that is watched while training: validation where there is one, else test."""
        return ("validation", self.validation) if len(self.validation) else ("test", self.test)

    def to(self, device: torch.device) -> "Splits":
        return Splits(self.train.to(device), self.validation.to(device), self.test.to(device))


@dataclass(frozen=True)
class Prepare:
    """Stored images to what a model is shown: pixels in [0, 1], cropped and binarised as the data set says.

    `binarize=dynamic` draws every pixel anew from its grey value at each call (Salakhutdinov & Murray 2008).
    """

    crop: int | None = None
    dynamic: bool = False

    @property
    def random(self) -> bool:
        """Whether it draws random numbers."""
        return self.crop is not None or self.dynamic

    def __call__(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`pixels` uint8 [B, C, H, W] to floats [B, C, h, w]; the global generator where none is given."""
        if self.crop is not None:
            pixels = random_crops(pixels, self.crop, generator)
        x = pixels.to(torch.float32).div_(255)
        return torch.bernoulli(x, generator=generator) if self.dynamic else x


def fixed_order(count: int) -> Tensor:
    """The same shuffled indices [count] in every run, because files often come sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


def random_crops(images: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """One square of `size` pixels from a random place of each image: [B, C, H, W] to [B, C, size, size]."""
    count, _, height, width = images.shape
    top = torch.randint(height - size + 1, (count, 1, 1), generator=generator, device=images.device)
    left = torch.randint(width - size + 1, (count, 1, 1), generator=generator, device=images.device)
    span = torch.arange(size, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    return images[index, :, top + span[None, :, None], left + span[None, None, :]].permute(0, 3, 1, 2)


@dataclass(kw_only=True)
class Dataset(ABC):
    """Where images come from. A subclass says how to read them; the settings below are every data set's.

    `subset` keeps that many training images and at most as many test images. `validation` holds that many training
    images out. `binarize`: `threshold` above one half, `static` one frozen Bernoulli draw of the grey value,
    `dynamic` a new draw at every presentation of a training image (one frozen draw for evaluation). `crop` shows
    random squares of that many pixels. `scale` is the range in which the network sees and paints its pixels;
    everything outside of it, figures and pictures included, stays in [0, 1].
    """

    subset: int | None = None
    validation: int = 0
    binarize: Binarize = "none"
    crop: int | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"subset={self.subset} is too small: use at least 1 image, or null for all of them")
        if self.validation < 0:
            raise ValueError(f"validation={self.validation} is negative: use the number of images to hold out, or 0")
        if self.crop is not None and self.crop < 2:
            raise ValueError(f"crop={self.crop} is too small: use at least 2 pixels, or null for whole images")
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale=[{low}, {high}] is empty: the first number must be below the second")

    @property
    @abstractmethod
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a stored image, known without reading the images."""

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """The training and the test images, whole and in their original order."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a model is shown."""
        channels, height, width = self.stored_shape
        if self.crop is None:
            return channels, height, width
        if self.crop > min(height, width):
            raise ValueError(f"crop={self.crop} is larger than the images ({height}x{width}): use a smaller one")
        return channels, self.crop, self.crop

    @property
    def prepare(self) -> Prepare:
        """What turns stored pixels into a batch."""
        return Prepare(self.crop, dynamic=self.binarize == "dynamic")

    def files(self) -> tuple[Sequence[str], Sequence[str]] | None:
        """The names of the images that `read` returns, where each has one."""
        return None

    def load(self) -> Splits:
        """Read, take the subset, hold out validation images, binarise what is binarised once."""
        chosen = self.split(*self.read())
        return Splits(*(self._binarized(images, part) for part, images in enumerate(chosen)))

    def split(self, train: Images, test: Images) -> tuple[Images, Images, Images]:
        """Training, validation and test images: the subset is taken, validation images are held out."""
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

    def _binarized(self, images: Images, part: int) -> Images:
        match self.binarize:
            case "threshold":
                return replace(images, pixels=(images.pixels > 127).to(torch.uint8).mul_(255))
            case "static":
                generator = torch.Generator().manual_seed(SPLIT_SEED + part)
                drawn = torch.bernoulli(images.pixels.to(torch.float32).div_(255), generator=generator)
                return replace(images, pixels=drawn.to(torch.uint8).mul_(255))
            case _:
                return images
