"""Noise of whole rows of pixels."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Set each row of pixels to black with probability `p`."""

    p: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p={self.p} is no probability: use a number from 0 to 1")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the corrupted images [B, C, H, W]."""
        u = torch.empty_like(x[:, :1, :, :1]).uniform_(generator=generator)
        return x.masked_fill(u < self.p, 0.0)

    def at_level(self, level: float, image_shape: tuple[int, int, int]) -> "Rows":
        """Return the noise at a level from 0 (none) to 1."""
        return replace(self, p=level)
