"""Latent semantic analysis: the singular vectors of the counts of words, the baseline of codes of documents."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, in_order
from aetrain.data.sparse_rows import SparseRows

BATCH_SIZE = 1000


@dataclass(frozen=True, eq=False)
class LSA:
    """The first K right singular vectors of training examples, which are not centred, by falling singular value.

    Deerwester et al. (1990), "Indexing by latent semantic analysis".
    """

    components: Tensor  # [K, D] orthonormal rows

    @classmethod
    def fit(cls, train: Examples, k: int, prepare: Prepare) -> "LSA":
        """Return the LSA of training examples; of fewer than k components where they have fewer dimensions."""
        from scipy.sparse import csr_array
        from sklearn.decomposition import TruncatedSVD

        rows: Any = train.values.matrix if isinstance(train.values, SparseRows) else csr_array(dense(train, prepare))
        rows = rows.astype(np.float64)
        rows.data = np.nan_to_num(rows.data)
        k = min(k, min(rows.shape) - 1)  # the limit of the method
        if k < 1:
            return cls(torch.zeros(0, rows.shape[1]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of the explained variance, where all rows are equal
            svd = TruncatedSVD(k, algorithm="arpack", random_state=0).fit(rows)
        return cls(torch.from_numpy(svd.components_.astype(np.float32)))

    def first(self, k: int) -> "LSA":
        """Return the LSA of k components."""
        return LSA(self.components[:k])

    def encode(self, examples: Examples, prepare: Prepare) -> Tensor:
        """Return the coordinates [N, K] of all examples in order; a missing value is 0."""
        components = self.components.t().to(examples.device)
        return torch.cat([x.flatten(1).nan_to_num(0.0) @ components for x in in_order(examples, BATCH_SIZE, prepare)])


def dense(examples: Examples, prepare: Prepare) -> Any:
    """Return the input [N, D] as an array."""
    return torch.cat([x.flatten(1) for x in in_order(examples, BATCH_SIZE, prepare)]).cpu().numpy()
