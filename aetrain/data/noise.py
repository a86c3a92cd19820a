"""Corruptions of the encoder's input: batches [B, C, H, W] in [0, 1] to batches of the same shape and range.

Masking and salt-and-pepper are those of Vincent et al. (2010), "Stacked denoising autoencoders", section 3.3.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """A corruption. Every random number comes from `generator`, or from the global one where it is None."""

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class NoNoise:
    """No noise."""

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the tensor x itself."""
        return x


@dataclass(frozen=True)
class Gaussian:
    """x + std * epsilon with standard normal epsilon, clipped to [0, 1] where `clip`."""

    std: float = 0.3
    clip: bool = True

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std={self.std} is negative: use a standard deviation of 0 or more")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        noisy = torch.empty_like(x).normal_(0, self.std, generator=generator).add_(x)
        return noisy.clamp_(0, 1) if self.clip else noisy


@dataclass(frozen=True)
class Replace:
    """Each pixel, with probability `p`, becomes white with probability `white`, else black.

    Black alone is masking noise, white alone salt, half of each salt-and-pepper.
    """

    p: float
    white: float

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("white", self.white)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is no probability: use a number from 0 to 1")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        # One uniform draw decides both: a pixel below p * white turns white, one from there to p turns black.
        u = torch.empty_like(x).uniform_(generator=generator)
        return x.masked_fill(u < self.p, 0.0).masked_fill_(u < self.p * self.white, 1.0)
