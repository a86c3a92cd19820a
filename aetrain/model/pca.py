"""Principal component analysis: the best linear autoencoder, as the yardstick beside every other."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PCA:
    """Mean image and principal directions of flattened pixels in [0, 1], directions by falling variance."""

    mean: Tensor  # [P]
    components: Tensor  # [K, P] orthonormal rows
    variances: Tensor  # [K]

    @staticmethod
    def fit(batches: Iterable[Tensor], k: int) -> "PCA":
        """Of batches of pixels [B, C, H, W], gone through once; at most as many directions as there are pixels.

        The eigenvectors of the covariance. Moments are taken about the first batch's mean and added up in float64,
        so that nothing is lost to cancellation.
        """
        rest = (x.flatten(1) for x in batches)  # [B, P]
        first = next(rest)
        shift, count = first.mean(0), 0
        total = torch.zeros_like(shift, dtype=torch.float64)
        scatter = torch.zeros(len(shift), len(shift), dtype=torch.float64, device=shift.device)
        for flat in itertools.chain([first], rest):
            about = flat - shift
            count += len(about)
            total += about.sum(0, dtype=torch.float64)
            scatter += (about.t() @ about).to(torch.float64)
        mean = total / count
        variances, vectors = torch.linalg.eigh(scatter / count - torch.outer(mean, mean))
        order = torch.arange(len(mean) - 1, max(len(mean) - k, 0) - 1, -1, device=mean.device)
        components = vectors.t()[order].to(torch.float32).contiguous()
        return PCA(shift + mean.to(torch.float32), components, variances[order].to(torch.float32))

    def encode(self, x: Tensor) -> Tensor:
        """Pixels [B, C, H, W] to coordinates [B, K]."""
        return (x.flatten(1) - self.mean) @ self.components.t()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixels [B, C, H, W] through K coordinates and back, not clipped to [0, 1]."""
        return (self.encode(x) @ self.components + self.mean).view_as(x)

    def angle_to(self, other: "PCA") -> float:
        """The largest principal angle between the spans of both sets of directions, in degrees, 0 to 90."""
        cosines = torch.linalg.svdvals(self.components.to(torch.float64) @ other.components.to(torch.float64).t())
        return math.degrees(math.acos(min(1.0, float(cosines.min()))))
