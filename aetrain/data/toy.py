"""Points near a plane in three dimensions: the smallest data set with a structure that a code can represent."""

from dataclasses import dataclass
from typing import final

import torch

from aetrain.data.dataset import SPLIT_SEED
from aetrain.data.examples import Examples
from aetrain.data.image_dataset import ImageDataset


@final
@dataclass(kw_only=True)
class Toy(ImageDataset):
    """Points on a tilted plane through the middle of the unit cube, as images of three pixels.

    Normal with deviations 0.15 and 0.08 along the plane and `off_plane` across it, so that its first two principal
    directions are the plane's. 4000 to train on, 1000 to test with, the same ones in every run.
    """

    off_plane: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.off_plane < 0:
            raise ValueError(f"off_plane={self.off_plane} is negative: use a standard deviation of 0 or more")

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, 3)."""
        return 1, 1, 3

    def read(self) -> tuple[Examples, Examples]:
        """Return the training and test points, rounded to 8 bits."""
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        axes = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])
        axes = axes / axes.norm(dim=1, keepdim=True)  # [3, 3] orthonormal; the last one is across the plane
        deviations = torch.tensor([0.15, 0.08, self.off_plane])
        points = 0.5 + (torch.randn(5000, 3, generator=generator) * deviations) @ axes
        pixels = points.clamp(0, 1).mul(255).round().to(torch.uint8).view(-1, 1, 1, 3)
        return Examples(pixels[:4000]), Examples(pixels[4000:])
