"""Augmentation: in training an image is varied a little, and the varied image is what is to be reconstructed.

A noise spoils what the encoder sees; this makes other images of the same kind, so that there are more to learn from.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Augment(Protocol):
    """Images [B, C, H, W] in [0, 1] to as many others, drawn from the global generator."""

    blends: bool  # whether it makes grey pixels of black and white ones

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Same:
    """No augmentation: the very tensor."""

    blends: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Affine:
    """Each image turned, scaled, slanted and shifted by draws of its own from normal distributions around nothing.

    Simard, Steinkraus & Platt (2003), "Best practices for convolutional neural networks applied to visual document
    analysis", section 2. The numbers are the standard deviations: degrees, a share of the size, pixels to the side per
    pixel down, and pixels. What lies between pixels is found by cubic convolution; outside of the image it is black.
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
        draws = torch.randn(5, len(x), device=x.device)
        turn, size, slant, right, down = draws[:, :, None, None].unbind()  # [B, 1, 1] each
        angle, size = turn * (self.degrees * math.pi / 180), 1 + size * self.scale
        cos, sin = size * angle.cos(), size * angle.sin()
        height, width = x.shape[2:]
        column, row = _from_middle(width, x.device), _from_middle(height, x.device)[:, None]
        # Where the pixels of the new image lie in the old one, of which each side then goes from -1 to 1.
        across = cos * column + (slant * self.shear - sin) * row + right * self.shift  # [B, H, W]
        along = sin * column + cos * row + down * self.shift
        places = torch.stack([across * (2 / width), along * (2 / height)], 3)
        return F.grid_sample(x, places, mode="bicubic", align_corners=False).clamp(0, 1)


def _from_middle(count: int, device: torch.device) -> Tensor:
    """How many pixels each of a row of pixels lies right of the row's middle."""
    return torch.arange(count, device=device) - (count - 1) / 2
