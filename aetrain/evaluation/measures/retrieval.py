"""Retrieval: the share of the nearest training images that have the class of the query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Splits
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.baselines import BASELINE_DESCRIPTIONS, feature_sets, nearest_rows
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure, check_enough_images
from aetrain.utils.devices import to_float64


@final
@dataclass(frozen=True)
class Retrieval(LabelledMeasure):
    """Precision at k: of the k training images nearest to a test image, those of its class, in %.

    Images are compared by Euclidean distance in the code (Krizhevsky & Hinton 2011, "Using very deep autoencoders for
    content-based image retrieval"), in raw pixels, and in PCA with as many components as the code has units. All
    training images are searched. The value is the mean over the same `queries` test images in every run (null for all).
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "precision_K": "training images of the query's class among the K whose codes are nearest, %",
        **BASELINE_DESCRIPTIONS,
    }

    at: Sequence[int] = (10, 100)
    queries: int | None = 2000

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"at={list(self.at)} finds nothing: use one or more numbers, each 1 or more")
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries={self.queries} is too small: use 1 or more, or null for all test images")

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
        for features in feature_sets(inputs, train, test):
            retrieved = train.classes[nearest_rows(features.test, features.train, max(ks))]
            for k in ks:
                metrics[f"precision_{k}{features.suffix}"] = 100 * precision_at_k(retrieved, test.classes, k)
        return metrics


def precision_at_k(retrieved: Tensor, relevant: Tensor, k: int) -> float:
    """Return the share of the first k retrieved classes [M, K] that equal the query's class [M], mean over queries."""
    return float(to_float64(retrieved[:, :k] == relevant[:, None]).mean())
