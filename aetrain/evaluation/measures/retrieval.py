"""Retrieval: the share of the nearest training examples that have the class of the query."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor

from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Examples, Splits
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.baselines import (
    BASELINE_DESCRIPTIONS,
    FeatureSet,
    feature_sets,
    nearest_by_bits,
    nearest_by_cosine,
    nearest_rows,
)
from aetrain.evaluation.measures.lsa import LSA
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure, check_enough_images
from aetrain.model.records import Kind
from aetrain.utils.devices import to_float64

Distance = Literal["euclidean", "cosine"]


@final
@dataclass(frozen=True)
class Retrieval(LabelledMeasure):
    """Precision at k: of the k training examples nearest to a test example, those of its class, in %.

    Examples are compared by `distance` in the code (Krizhevsky & Hinton 2011, "Using very deep autoencoders for
    content-based image retrieval"), in raw pixels, and in PCA with as many components as the code has units. None is
    the cosine for counts, as in Hinton & Salakhutdinov (2006), and the Euclidean distance for other data. Counts are
    also compared in latent semantic analysis, with as many components as the code and with the numbers in `lsa`.
    `binary` compares codes as bits, by the Hamming distance (Salakhutdinov & Hinton 2009, "Semantic hashing"): a bit
    tells whether a unit is above its mean over the training examples. All training examples are searched. The value is
    the mean over the same `queries` test examples in every run (null for all).
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "precision_K": "training examples of the query's class among the K whose codes are nearest, %",
        "precision_K_binary": (
            "training examples of the query's class among the K whose codes differ from its own in the fewest bits, %"
        ),
        **BASELINE_DESCRIPTIONS,
        "MEASURE_lsa": (
            "baseline of MEASURE: computed from latent semantic analysis with as many components as the code has units"
        ),
        "MEASURE_lsa_N": "baseline of MEASURE: computed from latent semantic analysis with N components",
    }

    at: Sequence[int] = (10, 100)
    queries: int | None = 2000
    distance: Distance | None = None
    lsa: Sequence[int] = (128,)
    binary: bool = False

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"at={list(self.at)} finds nothing: use one or more numbers, each 1 or more")
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries={self.queries} is too small: use 1 or more, or null for all test images")
        if self.lsa and min(self.lsa) < 1:
            raise ValueError(f"lsa={list(self.lsa)} has no components: use numbers of 1 or more, or [] for none")

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for images without classes, or fewer training images than the smallest k."""
        super().check_images(splits)
        check_enough_images("at", self.at, splits)

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `precision_10`, `precision_10_pixels`, `precision_10_pca` and so on."""
        train, test = inputs.splits.train, inputs.splits.test
        test = test[fixed_order(len(test))[: self.queries].to(test.values.device)]
        metrics = {}
        ks = [k for k in self.at if k <= len(train)]
        for suffix, nearest in self._searches(inputs, train, test, max(ks)):
            retrieved = train.classes[nearest]
            for k in ks:
                metrics[f"precision_{k}{suffix}"] = 100 * precision_at_k(retrieved, test.classes, k)
        return metrics

    def _searches(
        self, inputs: EvalInputs, train: Examples, test: Examples, count: int
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the suffix of each feature set and the indices [M, count] of its nearest training examples."""
        distance = self.distance or default_distance(train.kind)
        for features in feature_sets(inputs, train, test):
            yield features.suffix, find_nearest(features.test, features.train, count, distance)
            if self.binary and not features.suffix:
                threshold = features.train.mean(0)
                yield "_binary", nearest_by_bits(features.test > threshold, features.train > threshold, count)
        if train.kind == "counts":
            for features in self._lsa_features(inputs, train, test):
                yield features.suffix, find_nearest(features.test, features.train, count, distance)

    def _lsa_features(self, inputs: EvalInputs, train: Examples, test: Examples) -> Iterator[FeatureSet]:
        sizes = {"_lsa": inputs.model.code_dim} | {f"_lsa_{size}": size for size in self.lsa}
        full = LSA.fit(train, max(sizes.values()), inputs.prepare)
        if len(full.components):
            for suffix, size in sizes.items():
                lsa = full.first(size)
                yield FeatureSet(suffix, lsa.encode(train, inputs.prepare), lsa.encode(test, inputs.prepare))


def default_distance(kind: Kind) -> Distance:
    """Return the distance in which examples of a kind are compared: documents of any length by the cosine."""
    return "cosine" if kind == "counts" else "euclidean"


def find_nearest(queries: Tensor, rows: Tensor, count: int, distance: Distance) -> Tensor:
    """Return the indices [M, count] of the rows [N, D] nearest to each query [M, D], nearest first."""
    return (nearest_by_cosine if distance == "cosine" else nearest_rows)(queries, rows, count)


def precision_at_k(retrieved: Tensor, relevant: Tensor, k: int) -> float:
    """Return the share of the first k retrieved classes [M, K] that equal the query's class [M], mean over queries."""
    return float(to_float64(retrieved[:, :k] == relevant[:, None]).mean())
