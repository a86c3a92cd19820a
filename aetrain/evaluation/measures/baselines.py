"""Feature sets: the code, and its baselines, which are raw pixels and as many principal components."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, fill_missing, in_order
from aetrain.evaluation.measures.measure import EvalInputs, encode_all
from aetrain.model.pca import PCA

BATCH_SIZE = 1000

# The descriptions of the metrics of the baselines, for measures that compute all feature sets.
BASELINE_DESCRIPTIONS: Mapping[str, str] = {
    "MEASURE_pixels": "baseline of MEASURE: computed from raw pixels, or the features of vectors, instead of the code",
    "MEASURE_pca": "baseline of MEASURE: computed from as many principal components as the code has units",
}


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Training and test images as rows of features."""

    suffix: str  # of the names of metrics: empty for the code, _pixels or _pca for a baseline
    train: Tensor  # [N, D]
    test: Tensor  # [M, D]


def feature_sets(inputs: EvalInputs, train: Examples, test: Examples) -> Iterator[FeatureSet]:
    """Yield the features of images in the code, in raw pixels and in PCA with as many components.

    A generator, so that one feature set at a time is in memory. PCA is left out if the images are too large for it,
    or all equal.
    """
    model, prepare, pca = inputs.model, inputs.prepare, inputs.pca
    yield FeatureSet("", encode_all(model, train, prepare), encode_all(model, test, prepare))
    yield FeatureSet("_pixels", flatten_pixels(train, prepare), flatten_pixels(test, prepare))
    if pca is not None and len(pca.components):
        yield FeatureSet("_pca", encode_by_pca(pca, train, prepare), encode_by_pca(pca, test, prepare))


def encode_by_pca(pca: PCA, images: Examples, prepare: Prepare) -> Tensor:
    """Return the principal components of all examples in order, [N, K]; a missing value is the mean."""
    return torch.cat([pca.encode(fill_missing(x, pca.mean)) for x in in_order(images, BATCH_SIZE, prepare)])


def flatten_pixels(images: Examples, prepare: Prepare) -> Tensor:
    """Return the prepared values of all examples in order, [N, C * H * W]; a missing one is 0, as for an encoder."""
    return torch.cat([x.flatten(1).nan_to_num(0.0) for x in in_order(images, BATCH_SIZE, prepare)])


def nearest_rows(queries: Tensor, rows: Tensor, count: int, batch_size: int = 500) -> Tensor:
    """Return the indices [M, count] of the rows [N, D] nearest to each query [M, D] (Euclidean), nearest first."""
    center = rows.mean(0)  # distances from the centre lose less to cancellation
    queries, rows = queries - center, rows - center
    squared_norms = rows.square().sum(1)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b. The norm |a| of a query does not change the order of its rows.
    nearest = []
    for batch in queries.split(batch_size):
        distances = torch.addmm(squared_norms, batch, rows.t(), alpha=-2)
        nearest.append(distances.topk(count, largest=False).indices)
    return torch.cat(nearest)
