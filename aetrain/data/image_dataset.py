"""The interface of the data sets of images: images as uint8, and the settings common to all of them.

Shapes: N images, B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from aetrain.data.dataset import SPLIT_SEED, Dataset
from aetrain.data.examples import Examples, Prepare
from aetrain.data.mapped_rows import MappedRows, largest_value
from aetrain.data.pixel_values import MAX_DARK
from aetrain.data.sparse_rows import SparseRows
from aetrain.model.records import Kind

Binarize = Literal["none", "threshold", "static", "dynamic"]


@dataclass(kw_only=True)
class ImageDataset(Dataset):
    """A source of images [C, H, W] in bytes. A subclass reads them; these settings are beside those of `Dataset`.

    `binarize`: `threshold` above one half, `static` one fixed Bernoulli draw of the grey value, `dynamic` a new draw at
    every presentation of a training image (one fixed draw for evaluation). `random_crop` takes a square of that many
    pixels from a random position of each image. `scale` is the range of the network's input and output pixels;
    everywhere else, metrics and figures included, pixels are in [0, 1].
    """

    kind: ClassVar[Kind] = "image"

    binarize: Binarize = "none"
    random_crop: int | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_crop is not None and self.random_crop < 2:
            raise ValueError(
                f"random_crop={self.random_crop} is too small: use at least 2 pixels, or null for whole images"
            )
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale=[{low}, {high}] is empty: the first number must be below the second")
        if self.missing and self.prepare.random:
            raise ValueError(
                f"missing={self.missing} hides the same pixels at each presentation: use random_crop=null and "
                "binarize=none, threshold or static"
            )

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

    def check_examples(self, examples: Sequence[Examples]) -> None:
        """Warn if the images are nearly black."""
        values = examples[0].values
        assert not isinstance(values, SparseRows)
        if len(values) and (largest := largest_value(values, enough=MAX_DARK)) <= MAX_DARK:
            self.add_warning(self.describe_dark(largest))

    def describe_dark(self, largest: int) -> str:
        """Return the message about training images that are nearly black, of which the largest byte is `largest`."""
        return f"the largest pixel is {largest} of 255: the images are nearly black; scale them to 0..255 in read()"

    def convert(self, examples: Examples, split_number: int) -> Examples:
        """Return the images of a split, binarised where `binarize` does so once."""
        match self.binarize:
            case "threshold" if isinstance(examples.values, MappedRows):
                return replace(examples, values=replace(examples.values, threshold=127))
            case "threshold":
                return replace(examples, values=(examples.pixels > 127).to(torch.uint8).mul_(255))
            case "static":
                generator = torch.Generator().manual_seed(SPLIT_SEED + split_number)
                drawn = torch.bernoulli(examples.pixels.to(torch.float32).div_(255), generator=generator)
                return replace(examples, values=drawn.to(torch.uint8).mul_(255))
            case _:
                return examples
