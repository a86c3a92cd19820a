"""Principal component analysis: the best linear autoencoder, the baseline of every other."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.utils.devices import to_float64, with_float64

# Directions of less variance are rounding: below this share of the largest, or below this many squared pixel values.
MIN_VARIANCE_SHARE = 1e-6  # products in float32 leave up to 2e-7
MIN_VARIANCE = 1e-12


@dataclass(frozen=True)
class PCA:
    """The mean image and the principal directions of flattened pixels in [0, 1], directions by falling variance."""

    mean: Tensor  # [P]
    components: Tensor  # [K, P] orthonormal rows
    variances: Tensor  # [K]

    @staticmethod
    def fit(batches: Iterable[Tensor], k: int) -> "PCA":
        """Return the first k principal components of batches of pixels [B, C, H, W], which are read once.

        They are the eigenvectors of the covariance. There are fewer than k where the images vary in fewer directions:
        at most as many as pixels, and fewer than images. Moments are taken about the first batch's mean and summed in
        float64, so that no precision is lost to cancellation.
        """
        remaining = (x.flatten(1) for x in batches)  # [B, P]
        first = next(remaining)
        shift, count = first.mean(0), 0
        total = to_float64(torch.zeros_like(shift))
        scatter = to_float64(shift.new_zeros(len(shift), len(shift)))
        for flat in itertools.chain([first], remaining):
            centred = flat - shift
            count += len(centred)
            total += with_float64(centred).sum(0, dtype=torch.float64)
            scatter += to_float64(centred.t() @ centred)
        mean = total / count
        ascending, vectors = torch.linalg.eigh(scatter / count - torch.outer(mean, mean))
        variances = ascending.flip(0)
        # The eigenvectors of no variance are any basis of the rest of the space, no property of the images.
        is_real = variances > max(MIN_VARIANCE_SHARE * float(variances[0]), MIN_VARIANCE)
        rank = min(k, int(is_real.sum()))
        components = vectors.t().flip(0)[:rank].to(shift).contiguous()
        return PCA(shift + mean.to(shift), components, variances[:rank].to(shift))

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates [B, K] of pixels x [B, C, H, W]."""
        return (x.flatten(1) - self.mean) @ self.components.t()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the projection of pixels x [B, C, H, W] on the K directions, in the same shape, not clipped."""
        return (self.encode(x) @ self.components + self.mean).view_as(x)

    def angle_to(self, other: "PCA") -> float:
        """Return the largest angle between a direction in this span and the span of `other`, 0 to 90 degrees.

        It is the largest principal angle of the two spans, if they have the same dimension.
        """
        if len(other.components) < len(self.components):
            return 90.0
        if not len(self.components):
            return 0.0
        cosines = torch.linalg.svdvals(to_float64(self.components) @ to_float64(other.components).t())
        return math.degrees(math.acos(min(1.0, float(cosines.min()))))
