"""Feature sets: the code, and its baselines: raw pixels or other values of the input, and as many principal components.

Shapes: N and M examples, D features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.data.examples import Examples, Prepare, fill_missing, in_order
from aetrain.data.user_files import Array
from aetrain.evaluation.evaluator import known_sse
from aetrain.evaluation.measures.measure import EvalInputs, encode_all
from aetrain.model.pca import PCA

BATCH_SIZE = 1000
NUM_TREES = 100  # of the isolation forest

# The descriptions of the metrics of the baselines, for measures that compute all feature sets.
BASELINE_DESCRIPTIONS: Mapping[str, str] = {
    "MEASURE_pixels": "baseline of MEASURE: computed from raw pixels instead of the code",
    "MEASURE_input": "baseline of MEASURE: computed from the input, such as the weights of words, instead of the code",
    "MEASURE_pca": "baseline of MEASURE: computed from as many principal components as the code has units",
}


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Training and test images as rows of features."""

    suffix: str  # of the names of metrics: empty for the code, _pixels, _input or _pca for a baseline
    train: Tensor  # [N, D]
    test: Tensor  # [M, D]


def feature_sets(inputs: EvalInputs, train: Examples, test: Examples) -> Iterator[FeatureSet]:
    """Yield the features of examples in the code, in raw pixels or the input, and in PCA with as many components.

    A generator, so that one feature set at a time is in memory. PCA is left out if the examples are too large for it,
    or all equal. A missing value is 0.
    """
    model, prepare, pca = inputs.model, inputs.prepare, inputs.pca
    yield FeatureSet("", encode_all(model, train, prepare), encode_all(model, test, prepare))
    yield FeatureSet(
        "_pixels" if train.kind == "image" else "_input", flatten_pixels(train, prepare), flatten_pixels(test, prepare)
    )
    if pca is not None and len(pca.components):
        yield FeatureSet("_pca", encode_pca(pca, train, prepare), encode_pca(pca, test, prepare))


def encode_pca(pca: PCA, examples: Examples, prepare: Prepare) -> Tensor:
    """Return the coordinates [N, K] of all examples in order; a missing value is the mean."""
    return torch.cat([pca.encode(fill_missing(x, pca.mean)) for x in in_order(examples, BATCH_SIZE, prepare)])


@torch.no_grad()
def anomaly_scores(inputs: EvalInputs) -> dict[str, Array]:
    """Return scores [N] of the test examples that need no model, higher for unusual ones.

    `pca` is the squared error of PCA with as many components as the code has units, where it was fitted. `forest` is
    the score of an isolation forest (Liu et al. 2008) of scikit-learn. Both are fitted to the training examples.
    """
    from sklearn.ensemble import IsolationForest

    scores: dict[str, Array] = {}
    splits, prepare = inputs.splits, inputs.prepare
    if (pca := inputs.pca) is not None:
        batches = in_order(splits.test, BATCH_SIZE, prepare)
        errors = [known_sse(pca.reconstruct(fill_missing(x, pca.mean)), x) for x in batches]
        scores["pca"] = torch.cat(errors).cpu().numpy()
    forest = IsolationForest(n_estimators=NUM_TREES, random_state=0)
    forest.fit(flatten_pixels(splits.train, prepare).cpu().numpy())
    scores["forest"] = -forest.score_samples(flatten_pixels(splits.test, prepare).cpu().numpy())
    return scores


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


def nearest_by_cosine(queries: Tensor, rows: Tensor, count: int, batch_size: int = 500) -> Tensor:
    """Return the indices [M, count] of the rows [N, D] of the largest cosine with each query [M, D], largest first.

    The cosine with a vector of length 0 is 0.
    """
    units = F.normalize(rows).t()
    return torch.cat([(F.normalize(batch) @ units).topk(count).indices for batch in queries.split(batch_size)])


def nearest_by_bits(queries: Tensor, rows: Tensor, count: int, batch_size: int = 500) -> Tensor:
    """Return the indices [M, count] of the rows [N, D] that differ from each query [M, D] in the fewest bits.

    Both are bool. Rows at the same Hamming distance are in their order.
    """
    signs = rows.to(torch.float32).mul_(2).sub_(1)
    order = torch.arange(len(rows), device=rows.device) / len(rows)  # below 1, the least difference of distances
    nearest = []
    for batch in queries.to(torch.float32).mul_(2).sub_(1).split(batch_size):
        distances = (signs.shape[1] - batch @ signs.t()) / 2  # whole numbers, exact in float32
        nearest.append((distances.to(torch.float64) + order).topk(count, largest=False).indices)
    return torch.cat(nearest)
