"""Corruptions of examples with missing values (NaN): [B, C, H, W] to [B, C, H, W]. A missing value stays missing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

MIN_WEIGHT = 1e-6  # of the known pixels below a blur, to divide by

AnyNoise = Callable[[Tensor, torch.Generator | None], Tensor]


@dataclass(frozen=True)
class Hide:
    """Masking noise of data with missing values: each value, with probability `p`, is missing (NaN), too.

    The encoder sees 0 there, or, where it reads which values are observed, that this one is not.
    """

    handles_missing: ClassVar[bool] = True

    p: float

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the examples [B, C, H, W] with more values missing."""
        known = torch.empty_like(x).uniform_(generator=generator).ge(self.p).to(x.dtype)  # 0 where it is hidden
        return known / known * x  # 0 / 0 is NaN; masked_fill takes 4 times as long for random masks on a CPU

    def at_level(self, level: float, image_shape: tuple[int, int, int]) -> "Hide":
        """Return the noise that hides the share `level` of the values."""
        return replace(self, p=level)


@dataclass(frozen=True)
class NoiseOfKnown:
    """A noise of the known values alone; a missing one is 0 while it is computed."""

    handles_missing: ClassVar[bool] = True

    noise: Any  # a Noise

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy examples [B, C, H, W]."""
        missing = x.isnan()
        return self.noise(x.masked_fill(missing, 0.0), generator).masked_fill(missing, torch.nan)

    def at_level(self, level: float, image_shape: tuple[int, int, int]) -> "NoiseOfKnown":
        """Return the noise at another level."""
        return replace(self, noise=self.noise.at_level(level, image_shape))


@dataclass(frozen=True)
class BlurOfKnown(NoiseOfKnown):
    """A blur whose weights are those of the known pixels alone.

    Normalised convolution: Knutsson & Westin (1993), "Normalized and differential convolution", eq. 7.
    """

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the blurred images [B, C, H, W]."""
        missing = x.isnan()
        weights = self.noise((~missing).to(x), generator).clamp_min(MIN_WEIGHT)
        return (self.noise(x.masked_fill(missing, 0.0), generator) / weights).masked_fill(missing, torch.nan)
