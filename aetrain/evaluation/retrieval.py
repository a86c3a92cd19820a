"""Search by content: how many of the nearest training images are of the query's class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.data.dataset import Splits, fixed_order
from aetrain.evaluation.measures import MeasureOfClasses, Subject, enough_images
from aetrain.evaluation.ruler import Figures
from aetrain.evaluation.spaces import nearest, spaces


@final
@dataclass(frozen=True)
class Retrieval(MeasureOfClasses):
    """Precision at k: the share, in %, of the k training images nearest to a test image that are of its class.

    Nearest in the code (Krizhevsky & Hinton 2011, "Using very deep autoencoders for content-based image retrieval"),
    in raw pixels, and in PCA of the code's size, by Euclidean distance among all training images; the mean over
    `queries` test images, the same ones every time (null for all of them).
    """

    at: Sequence[int] = (10, 100)
    queries: int | None = 2000

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"at={list(self.at)} finds nothing: use one or more numbers from 1 up")
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries={self.queries} asks nothing: use 1 or more, or null for all test images")

    def check_images(self, splits: Splits) -> None:
        """Enough images for the smallest number that is to be found."""
        super().check_images(splits)
        enough_images("at", self.at, splits)

    def __call__(self, subject: Subject) -> Figures:
        """`precision_10`, `precision_10_pixels`, `precision_10_pca` and so on."""
        train, test = subject.splits.train, subject.splits.test
        test = test[fixed_order(len(test))[: self.queries].to(test.pixels.device)]
        figures = {}
        counts = [count for count in self.at if count <= len(train)]
        for space in spaces(subject, train, test):
            found = train.classes[nearest(space.test, space.train, max(counts))]
            for count in counts:
                figures[f"precision_{count}{space.name}"] = 100 * precision(found, test.classes, count)
        return figures


def precision(found: Tensor, wanted: Tensor, count: int) -> float:
    """Share of the first `count` of found classes [M, K] that are the wanted ones [M], mean over the queries."""
    return float((found[:, :count] == wanted[:, None]).to(torch.float64).mean())
