"""Principal component analysis: the best linear autoencoder, the baseline of every other."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PCA:
    """The mean image and the principal directions of flattened pixels in [0, 1], directions by falling variance."""

    mean: Tensor  # [P]
    components: Tensor  # [K, P] orthonormal rows
    variances: Tensor  # [K]

    @staticmethod
    def fit(batches: Iterable[Tensor], k: int) -> "PCA":
        """Return the first k principal components of batches of pixels [B, C, H, W], which are read once.

        There are at most as many directions as pixels. They are the eigenvectors of the covariance. Moments are taken
        about the first batch's mean and summed in float64, so that no precision is lost to cancellation.
        """
        remaining = (x.flatten(1) for x in batches)  # [B, P]
        first = next(remaining)
        shift, count = first.mean(0), 0
        total = torch.zeros_like(shift, dtype=torch.float64)
        scatter = torch.zeros(len(shift), len(shift), dtype=torch.float64, device=shift.device)
        for flat in itertools.chain([first], remaining):
            centred = flat - shift
            count += len(centred)
            total += centred.sum(0, dtype=torch.float64)
            scatter += (centred.t() @ centred).to(torch.float64)
        mean = total / count
        variances, vectors = torch.linalg.eigh(scatter / count - torch.outer(mean, mean))
        order = torch.arange(len(mean) - 1, max(len(mean) - k, 0) - 1, -1, device=mean.device)
        components = vectors.t()[order].to(torch.float32).contiguous()
        return PCA(shift + mean.to(torch.float32), components, variances[order].to(torch.float32))

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates [B, K] of pixels x [B, C, H, W]."""
        return (x.flatten(1) - self.mean) @ self.components.t()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the projection of pixels x [B, C, H, W] on the K directions, in the same shape, not clipped."""
        return (self.encode(x) @ self.components + self.mean).view_as(x)

    def angle_to(self, other: "PCA") -> float:
        """Return the largest principal angle between the spans of both sets of directions, 0 to 90 degrees."""
        cosines = torch.linalg.svdvals(self.components.to(torch.float64) @ other.components.to(torch.float64).t())
        return math.degrees(math.acos(min(1.0, float(cosines.min()))))
