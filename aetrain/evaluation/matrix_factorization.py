"""Matrix factorisation of ratings: rating [row, column] is the product of a factor of each, fitted by least squares.

Shapes: n known entries, R rows, D columns, K factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ITERATIONS = 15
INITIAL_STD = 0.1
MAX_ENTRIES = 20_000  # whose outer products [K, K] are in memory at a time


@dataclass(frozen=True, eq=False)
class Entries:
    """The known entries of a matrix."""

    rows: Tensor  # [n] int64
    columns: Tensor  # [n] int64
    values: Tensor  # [n] float64

    def __getitem__(self, index: Tensor) -> "Entries":
        return Entries(self.rows[index], self.columns[index], self.values[index])

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class MatrixFactorization:
    """The factors of the rows and of the columns of a matrix."""

    rows: Tensor  # [R, K] float64
    columns: Tensor  # [D, K] float64

    @staticmethod
    def fit(entries: Entries, shape: tuple[int, int], k: int, l2: float) -> "MatrixFactorization":
        """Minimise sum (value - u.v)^2 + l2 (sum_r n_r |u_r|^2 + sum_c n_c |v_c|^2), n the entries of a row or column.

        Alternating least squares, Zhou et al. (2008), "Large-scale parallel collaborative filtering for the Netflix
        prize", eq. 4. The columns start as small normal draws, which are the same in every call.
        """
        generator = torch.Generator().manual_seed(0)
        columns = INITIAL_STD * torch.randn(shape[1], k, generator=generator, dtype=torch.float64)
        rows = torch.zeros(shape[0], k, dtype=torch.float64)
        for _ in range(ITERATIONS):
            rows = solve(entries.rows, columns[entries.columns], entries.values, shape[0], l2)
            columns = solve(entries.columns, rows[entries.rows], entries.values, shape[1], l2)
        return MatrixFactorization(rows, columns)

    def predict(self, entries: Entries) -> Tensor:
        """Return the products [n] at the places of entries."""
        return (self.rows[entries.rows] * self.columns[entries.columns]).sum(1)

    def rmse(self, entries: Entries) -> float:
        """Return the root of the mean squared error of the values of entries."""
        return float((self.predict(entries) - entries.values).square().mean().sqrt())


def solve(places: Tensor, factors: Tensor, values: Tensor, count: int, l2: float) -> Tensor:
    """Return the ridge solutions [count, K] of values [n] by the factors [n, K] of each place [n]; 0 without any."""
    k = factors.shape[1]
    products = torch.zeros(count, k, k, dtype=torch.float64)
    for chunk in torch.arange(len(values)).split(MAX_ENTRIES):
        part = factors[chunk]
        products.index_add_(0, places[chunk], part[:, :, None] * part[:, None, :])
    targets = torch.zeros(count, k, dtype=torch.float64).index_add_(0, places, factors * values[:, None])
    numbers = places.bincount(minlength=count).clamp_min(1).double()  # a place without entries has the solution 0
    products += l2 * numbers[:, None, None] * torch.eye(k, dtype=torch.float64)
    solutions: Tensor = torch.linalg.solve(products, targets)
    return solutions
