"""Iterative PCA: principal components of examples with missing values, which it fills in.

Kiers (1997), "Weighted least squares fitting using ordinary least squares algorithms"; Josse & Husson (2012), "Handling
missing values in exploratory multivariate data analysis methods", section 2. Shapes: N examples, D values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_ITERATIONS = 300
TOLERANCE = 1e-5  # relative change of the filled values at which the iteration ends


@dataclass(frozen=True, eq=False)
class IterativePCA:
    """The mean and the directions that minimise the squared error of the known values of training examples."""

    mean: Tensor  # [D] float64
    components: Tensor  # [K, D] orthonormal rows, float64

    @staticmethod
    def fit(x: Tensor, k: int) -> "IterativePCA":
        """Return k components of examples x [N, D], NaN where a value is missing, and at most min(N, D) - 1 of them.

        More would span all examples, so that a missing value would stay the mean of its column.

        Missing values begin as the means of their columns. In turn, the components of the filled examples are computed,
        and missing values become their projections on them; no step increases the error of the known values.
        """
        known = ~x.isnan()
        x = x.to(torch.float64).nan_to_num(0.0)
        mean = x.sum(0) / known.sum(0).clamp_min(1)
        filled = torch.where(known, x, mean)
        k = max(min(k, min(x.shape) - 1), 0)
        components = x.new_zeros(k, x.shape[1])
        for _ in range(MAX_ITERATIONS):
            mean = filled.mean(0)
            centred = filled - mean
            components = torch.linalg.eigh(centred.t() @ centred).eigenvectors.t().flip(0)[:k]
            before, filled = filled, torch.where(known, x, mean + centred @ components.t() @ components)
            if (filled - before).norm() <= TOLERANCE * filled.norm():
                break
        return IterativePCA(mean, components)

    def fill(self, x: Tensor) -> Tensor:
        """Return examples x [N, D], float64, their missing values filled in from the known ones."""
        known = ~x.isnan()
        x = x.to(torch.float64).nan_to_num(0.0)
        filled = torch.where(known, x, self.mean)
        for _ in range(MAX_ITERATIONS):
            projected = self.mean + (filled - self.mean) @ self.components.t() @ self.components
            before, filled = filled, torch.where(known, x, projected)
            if (filled - before).norm() <= TOLERANCE * filled.norm():
                break
        return filled
