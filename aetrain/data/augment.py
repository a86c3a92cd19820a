"""Augmentation: in training an image is varied a little, and the model reconstructs the varied image.

Noise corrupts the encoder's input only. Augmentation produces other images of the same kind, and thus more training
data.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Augment(Protocol):
    """A map from images [B, C, H, W] in [0, 1] to as many others, with random numbers of the global generator."""

    blends: bool  # True where it mixes pixels: black and white ones become grey, missing ones spread

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class NoAugmentation:
    """No augmentation."""

    blends: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the tensor x itself."""
        return x


@dataclass(frozen=True)
class Affine:
    """Rotate, scale, shear and shift each image by its own draws from normal distributions around the identity.

    Simard, Steinkraus & Platt (2003), "Best practices for convolutional neural networks applied to visual document
    analysis", section 2. The numbers are the standard deviations: degrees, a share of the size, pixels to the side per
    pixel down, and pixels. Values between pixels are interpolated bicubically; pixels outside of the image are black.
    """

    blends: ClassVar[bool] = True

    degrees: float = 3.0
    scale: float = 0.02
    shear: float = 0.05
    shift: float = 0.35

    def __post_init__(self) -> None:
        for name in ("degrees", "scale", "shear", "shift"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}={value} is negative: use a standard deviation of 0 or more")

    def __call__(self, x: Tensor) -> Tensor:
        """Return the transformed images [B, C, H, W]."""
        draws = torch.randn(5, len(x), device=x.device)
        turn, size, slant, right, down = draws[:, :, None, None].unbind()  # [B, 1, 1] each
        angle, size = turn * (self.degrees * math.pi / 180), 1 + size * self.scale
        cos, sin = size * angle.cos(), size * angle.sin()
        height, width = x.shape[2:]
        column, row = _offsets_from_middle(width, x.device), _offsets_from_middle(height, x.device)[:, None]
        # Positions in the old image of the new image's pixels, in pixels from the middle.
        source_column = cos * column + (slant * self.shear - sin) * row + right * self.shift  # [B, H, W]
        source_row = sin * column + cos * row + down * self.shift
        # grid_sample expects each side of the old image to span -1 to 1.
        grid = torch.stack([source_column * (2 / width), source_row * (2 / height)], 3)
        return F.grid_sample(x, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def _offsets_from_middle(count: int, device: torch.device) -> Tensor:
    """Return the distance [count] of each of `count` adjacent pixels from their middle, in pixels."""
    return torch.arange(count, device=device) - (count - 1) / 2
