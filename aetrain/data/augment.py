"""Augmentation: in training an image is varied a little, and the varied image is what is to be reconstructed.

A noise spoils what the encoder sees; this makes other images of the same kind, so that there are more to learn from.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Augment(Protocol):
    """Images [B, C, H, W] in [0, 1] to as many others, drawn from the global generator."""

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Same:
    """No augmentation: the very tensor."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Affine:
    """Each image turned, scaled, slanted and shifted by draws of its own from normal distributions around nothing.

    Simard, Steinkraus & Platt (2003), "Best practices for convolutional neural networks applied to visual document
    analysis", section 2. The numbers are the standard deviations: degrees, a share of the size, pixels to the side per
    pixel down, and pixels. What lies between pixels is found by cubic convolution; outside of the image it is black.
    """

    degrees: float = 3.0
    scale: float = 0.02
    shear: float = 0.05
    shift: float = 0.35

    def __post_init__(self) -> None:
        for name in ("degrees", "scale", "shear", "shift"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name}={value} is negative: use a standard deviation of 0 or more")

    def __call__(self, x: Tensor) -> Tensor:
        turn, size, slant, right, down = torch.randn(5, len(x), device=x.device).unbind()  # [B] each
        angle, size = turn * (self.degrees * math.pi / 180), 1 + size * self.scale
        cos, sin = size * angle.cos(), size * angle.sin()
        height, width = x.shape[2:]
        # Where the pixels of the new image lie in the old one, of which each side goes from -1 to 1.
        across = torch.stack([cos, slant * self.shear - sin, right * (2 * self.shift / width)], 1)
        along = torch.stack([sin, cos, down * (2 * self.shift / height)], 1)
        places = F.affine_grid(torch.stack([across, along], 1), list(x.shape), align_corners=False)
        return F.grid_sample(x, places, mode="bicubic", align_corners=False).clamp(0, 1)
