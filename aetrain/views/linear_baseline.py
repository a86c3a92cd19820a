"""The linear code of the same size beside that of a model: PCA of vectors and ratings, LSA of counts.

Shapes: N examples, D features, K components.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare
from aetrain.model.pca import PCA
from aetrain.model.records import Kind
from aetrain.utils.devices import with_float64

MAX_VALUES = 8_000_000  # of the training examples to which the baseline is fitted
OVERSAMPLING = 10  # directions beside those asked for, which make the approximation exact in practice
POWER_ITERATIONS = 4
MIN_PLANE = 2  # components, for the scatter plot beside that of the codes
MIN_LENGTH = 1e-12  # of a document that is divided by its length
SEED = 1  # of the random directions


@dataclass(frozen=True)
class LinearBaseline:
    """PCA with a missing value as the mean of its feature; of counts LSA, the truncated SVD of log(1 + count).

    LSA is latent semantic analysis (Deerwester et al. 1990), with the logarithm as the weight of a count and documents
    of length 1, so that long documents do not decide.
    """

    pca: PCA
    is_lsa: bool

    @property
    def name(self) -> str:
        """`LSA` or `PCA`."""
        return "LSA" if self.is_lsa else "PCA"

    @staticmethod
    def fit(x: Tensor, num_components: int, kind: Kind) -> "LinearBaseline":
        """Return the baseline of examples x [N, 1, 1, D]; it has two components at least, for a plane."""
        is_lsa = kind == "counts"
        rows, _ = to_rows(x, is_lsa)
        mean = torch.zeros_like(rows[0]) if is_lsa else rows.nanmean(0).nan_to_num(0.0)
        components, variances = principal_components((rows - mean).nan_to_num(0.0), max(MIN_PLANE, num_components))
        return LinearBaseline(PCA(mean, components, variances), is_lsa)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coordinates [N, K] of examples x [N, 1, 1, D], the largest component first."""
        return (to_rows(x, self.is_lsa)[0] - self.pca.mean).nan_to_num(0.0) @ self.pca.components.t()

    def reconstruct(self, x: Tensor, num_components: int) -> Tensor:
        """Return the projections of examples x [N, 1, 1, D] on the first components, in the same shape."""
        rows = self.encode(x)[:, :num_components] @ self.pca.components[:num_components] + self.pca.mean
        return ((rows * to_rows(x, True)[1]).expm1() if self.is_lsa else rows).view_as(x)


def to_rows(x: Tensor, is_lsa: bool) -> tuple[Tensor, Tensor]:
    """Return examples x [N, 1, 1, D] as rows [N, D] and their lengths [N, 1]; log(1 + counts) as rows of length 1."""
    rows = x.flatten(1)
    if not is_lsa:
        return rows, torch.ones_like(rows[:, :1])
    rows = rows.nan_to_num(0.0).clamp_min(0).log1p()
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.clamp_min(MIN_LENGTH), lengths


def principal_components(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` right singular vectors of x [N, D] as rows [K, D], and the variances along them [K].

    They come from a randomised range finder with power iterations (Halko, Martinsson & Tropp 2011, algorithms 4.4 and
    5.1), which for D = 2,000 takes a tenth of the time of the full decomposition. The largest entry of each direction
    is positive, because singular vectors have no sign of their own.
    """
    device, x = x.device, with_float64(x)  # a device without float64 may lack the decompositions, too
    num_rows, num_features = x.shape
    size = count + OVERSAMPLING
    if size >= min(x.shape):
        _, values, vectors = torch.linalg.svd(x, full_matrices=False)
    else:
        generator = torch.Generator(x.device).manual_seed(SEED)
        basis = x @ torch.randn(num_features, size, generator=generator, device=x.device)
        for _ in range(POWER_ITERATIONS):
            basis = x @ (x.t() @ torch.linalg.qr(basis).Q)
        _, values, vectors = torch.linalg.svd(torch.linalg.qr(basis).Q.t() @ x, full_matrices=False)
    vectors = vectors[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    return vectors.to(device), (values[:count].square() / num_rows).to(device)


def spread_index(num_examples: int, count: int) -> Tensor:
    """Return `count` evenly spaced indices of examples, or all of them where there are fewer."""
    if num_examples <= count:
        return torch.arange(num_examples)
    return torch.arange(count) * num_examples // count


def baseline_of(examples: Examples, prepare: Prepare, num_components: int) -> Callable[[], LinearBaseline]:
    """Return a function that fits the baseline to examples at its first call: at most `MAX_VALUES`, evenly spaced."""

    @cache
    def fit() -> LinearBaseline:
        num_rows = max(MIN_PLANE, min(len(examples), MAX_VALUES // examples.values.shape[-1]))
        index = spread_index(len(examples), num_rows).to(examples.device)
        return LinearBaseline.fit(prepare(examples.values[index]), num_components, examples.kind)

    return fit
