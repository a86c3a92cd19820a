"""Vectors most of whose entries are zero or missing: sparse in memory, dense one batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # the import takes 0.1 s
    from scipy.sparse import csr_array

# Rows that are dense at no more than this size are stored so on a GPU: 8 GiB, a tenth of the memory of a large one.
MAX_DENSE_BYTES = 8 * 2**30


@dataclass(frozen=True, eq=False)
class SparseRows:
    """N vectors of D features, float32, the rows of a SciPy matrix, with a part of the interface of a tensor.

    An entry that the matrix does not store is `absent`: 0, or NaN for a missing value. Stored zeros are values.
    """

    matrix: "csr_array"  # [N, D] float32
    absent: float = 0.0
    # Of the dense batches; the matrix stays in the memory of the CPU.
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def shape(self) -> torch.Size:
        """[N, 1, 1, D]."""
        return torch.Size((self.matrix.shape[0], 1, 1, self.matrix.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the dense entries."""
        return torch.float32

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, index: Tensor | slice) -> "SparseRows":
        """Return the rows of an index [M] or of a slice."""
        rows = index.cpu().numpy() if isinstance(index, Tensor) else index
        return replace(self, matrix=self.matrix[rows])

    def index_select(self, dim: int, index: Tensor) -> "SparseRows":
        """Return the rows `index` [M]; `dim` is 0."""
        assert dim == 0, dim
        return self[index]

    def split(self, size: int) -> Iterator["SparseRows"]:
        """Yield the rows in order, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: torch.device) -> "SparseRows | Tensor":
        """Return dense rows [N, 1, 1, D] on a GPU where these are small enough, else rows whose batches are there."""
        if device.type != "cpu" and self.shape.numel() * 4 <= MAX_DENSE_BYTES:
            return replace(self, device=device).dense()
        return replace(self, device=device)

    def dense(self) -> Tensor:
        """Return all rows as a dense tensor [N, 1, 1, D] on the device."""
        if self.absent == 0:
            rows = self.matrix.toarray()
        else:
            rows = np.full(self.matrix.shape, self.absent, dtype=np.float32)
            rows[np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr)), self.matrix.indices] = self.matrix.data
        return torch.from_numpy(rows)[:, None, None].to(self.device)

    def arrays(self) -> tuple[Any, ...]:
        """Return the arrays that hold the content, such as for a digest."""
        return self.matrix.indptr, self.matrix.indices, self.matrix.data


def join_sparse(parts: Sequence[SparseRows]) -> SparseRows:
    """Return the rows of all parts, one after another."""
    from scipy.sparse import csr_array, vstack

    return replace(parts[0], matrix=csr_array(vstack([part.matrix for part in parts])))
