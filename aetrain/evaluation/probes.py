"""Probes: what can be read from a code by simple means, beside the same from raw pixels and from PCA."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.data.dataset import Images, fixed_order
from aetrain.evaluation.linear import cross_entropy, linear_accuracy, squared_hinge
from aetrain.evaluation.measures import MeasureOfClasses, Subject, digest
from aetrain.evaluation.ruler import Figures
from aetrain.evaluation.spaces import Space, nearest, spaces

Method = Literal["linear", "svm", "knn", "kmeans"]

# What has been read from pixels and PCA, which the runs of one process on the same data have in common.
_KNOWN: dict[Any, Figures] = {}


@final
@dataclass(frozen=True)
class Probes(MeasureOfClasses):
    """Classes read from the code by `methods`, right for so many % of the test images; the same of pixels and of PCA.

    `linear` is logistic regression and `svm` a linear support vector machine, as `evaluation.linear` says; `knn` is
    the vote of the `neighbours` nearest; `kmeans` makes as many clusters as there are classes, the best of
    `restarts`, matched one to one with the test images' classes as fits best (Kuhn 1955), and `nmi` is its normalised
    mutual information with them. All learn from `images` training images, the same ones every time (null for all).
    """

    methods: Sequence[Method] = ("linear", "svm", "knn", "kmeans")
    images: int | None = 10000
    neighbours: int = 5
    restarts: int = 4

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 10:
            raise ValueError(f"images={self.images} teach nothing: use 10 or more, or null for all training images")
        for name in ("neighbours", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is too small: use 1 or more")

    def __call__(self, subject: Subject) -> Figures:
        """`probe_linear`, `probe_linear_pixels`, `probe_linear_pca` and so on."""
        train, test = subject.splits.train, subject.splits.test
        train = train[fixed_order(len(train))[: self.images].to(train.pixels.device)]
        figures = {}
        for space in spaces(subject, train, test):
            for name, value in self.of(space, train, test).items():
                figures[f"probe_{name}{space.name}"] = value
        return figures

    def of(self, space: Space, train: Images, test: Images) -> Figures:
        """What the methods read from one space, by method."""
        key = (str(self), digest(space.train, train.classes, space.test, test.classes)) if space.name else None
        if key in _KNOWN:
            return _KNOWN[key]
        figures: Figures = {}
        for method in self.methods:
            match method:
                case "linear" | "svm":
                    loss = cross_entropy if method == "linear" else squared_hinge
                    share = linear_accuracy(space.train, train.classes, space.test, test.classes, loss)
                case "knn":
                    found = train.classes[nearest(space.test, space.train, min(self.neighbours, len(train)))]
                    share = float((vote(found) == test.classes).to(torch.float64).mean())
                case "kmeans":
                    clusters = self.clusters(space, int(train.classes.max()) + 1)
                    share = matched(clusters, test.classes)
                    figures["nmi"] = mutual_information(clusters, test.classes)
            figures[method] = 100 * share
        if key is not None:
            _KNOWN[key] = figures
        return figures

    def clusters(self, space: Space, count: int) -> Tensor:
        """Which of `count` clusters, found among the training rows, each test row lies in, [M]."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        kmeans = KMeans(min(count, len(space.train)), n_init=self.restarts, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters, where codes are equal
            found = kmeans.fit(space.train.cpu().numpy())
        return torch.from_numpy(found.predict(space.test.cpu().numpy())).to(torch.int64)


def vote(found: Tensor) -> Tensor:
    """The class [M] that most of the neighbours' classes [M, K] are; of equals the first in the classes' order."""
    return F.one_hot(found).sum(1).argmax(1)


def matched(clusters: Tensor, labels: Tensor) -> float:
    """Share of images whose cluster stands for their class, under the best matching of clusters with classes.

    The Hungarian method (Kuhn 1955), as clustering accuracy is reported since Xie et al. (2016), eq. 10.
    """
    from scipy.optimize import linear_sum_assignment  # which scikit-learn brings

    size = int(torch.cat([clusters, labels.cpu()]).max()) + 1
    together = torch.zeros(size, size, dtype=torch.int64)  # [clusters, classes]
    together.index_put_((clusters, labels.cpu()), torch.ones_like(clusters), accumulate=True)
    return float(together[linear_sum_assignment(together.numpy(), maximize=True)].sum()) / len(clusters)


def mutual_information(clusters: Tensor, labels: Tensor) -> float:
    """Of clusters and classes, divided by the mean of their entropies: 0 where independent, 1 where the same."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels.cpu().numpy(), clusters.numpy()))
