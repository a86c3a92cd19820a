"""Probes: simple classifiers and clusterings of a code, with the same of raw pixels and of PCA as baselines."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Examples
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.baselines import BASELINE_DESCRIPTIONS, FeatureSet, feature_sets, nearest_rows
from aetrain.evaluation.measures.linear_classifier import cross_entropy, linear_accuracy, squared_hinge
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure
from aetrain.storage.hashing import digest
from aetrain.utils.devices import to_float64

Method = Literal["linear", "svm", "knn", "kmeans"]

MIN_IMAGES = 10

# Metrics of pixels and PCA, which runs on the same data in one process share. The key is settings and a data digest.
_BASELINE_METRICS: dict[Any, Metrics] = {}


@final
@dataclass(frozen=True)
class Probes(LabelledMeasure):
    """Accuracy of `methods` on the code in % of the test images, and on pixels and PCA as baselines.

    `linear` is logistic regression and `svm` a linear support vector machine (see `linear_classifier`). `knn` is the
    majority vote of the `neighbours` nearest training images. `kmeans` makes as many clusters as there are classes,
    the best of `restarts`, and matches each cluster with one class (Kuhn 1955); `nmi` is the normalised mutual
    information of these clusters and the classes. All methods learn from the same `images` training images in every
    run (null for all).
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "probe_linear": "test images that logistic regression on the code classifies correctly, %",
        "probe_svm": "test images that a linear support vector machine on the code classifies correctly, %",
        "probe_knn": "test images that a vote of the nearest training codes classifies correctly, %",
        "probe_kmeans": (
            "test images that k-means on the codes classifies correctly, each cluster matched with one class, %"
        ),
        "probe_nmi": "normalised mutual information of the k-means clusters of codes and the classes, 0 to 1",
        **BASELINE_DESCRIPTIONS,
    }

    methods: Sequence[Method] = ("linear", "svm", "knn", "kmeans")
    images: int | None = 10000
    neighbours: int = 5
    restarts: int = 4

    def __post_init__(self) -> None:
        if self.images is not None and self.images < MIN_IMAGES:
            raise ValueError(f"images={self.images} are too few: use {MIN_IMAGES} or more, or null for all")
        for name in ("neighbours", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is too small: use 1 or more")

    @property
    def reads_training_classes(self) -> bool:
        """Tell whether a method needs the classes of training images: all but clustering do."""
        return any(method != "kmeans" for method in self.methods)

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `probe_linear`, `probe_linear_pixels`, `probe_linear_pca` and so on."""
        train, test = inputs.splits.train, inputs.splits.test
        train = train[fixed_order(len(train))[: self.images].to(train.values.device)]
        metrics = {}
        for features in feature_sets(inputs, train, test):
            for name, value in self.evaluate(features, train, test).items():
                metrics[f"probe_{name}{features.suffix}"] = value
        return metrics

    def evaluate(self, features: FeatureSet, train: Examples, test: Examples) -> Metrics:
        """Return the metrics of one feature set by method; those of a baseline are computed once per process."""
        if not features.suffix:
            return self._evaluate(features, train, test)
        key = (str(self), digest(features.train, train.classes, features.test, test.classes))
        if key not in _BASELINE_METRICS:
            _BASELINE_METRICS[key] = self._evaluate(features, train, test)
        return _BASELINE_METRICS[key]

    def _evaluate(self, features: FeatureSet, train: Examples, test: Examples) -> Metrics:
        metrics: Metrics = {}
        for method in self.methods:
            match method:
                case "linear" | "svm":
                    loss = cross_entropy if method == "linear" else squared_hinge
                    accuracy = linear_accuracy(features.train, train.classes, features.test, test.classes, loss)
                case "knn":
                    nearest = nearest_rows(features.test, features.train, min(self.neighbours, len(train)))
                    predicted = majority_vote(train.classes[nearest])
                    accuracy = float(to_float64(predicted == test.classes).mean())
                case "kmeans":
                    clusters = self.cluster(features, len(train.classes.unique()))
                    accuracy = clustering_accuracy(clusters, test.classes)
                    metrics["nmi"] = mutual_information(clusters, test.classes)
            metrics[method] = 100 * accuracy
        return metrics

    def cluster(self, features: FeatureSet, num_clusters: int) -> Tensor:
        """Return the cluster of each test row, int64 [M], by k-means of the training rows."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        kmeans = KMeans(min(num_clusters, len(features.train)), n_init=self.restarts, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal codes make fewer clusters
            kmeans.fit(features.train.cpu().numpy())
        return torch.from_numpy(kmeans.predict(features.test.cpu().numpy())).to(torch.int64)


def majority_vote(labels: Tensor) -> Tensor:
    """Return the most frequent class [M] of the neighbours' classes [M, K]; the smallest class in a tie."""
    return F.one_hot(labels).sum(1).argmax(1)


def clustering_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Return the share of images [N] whose cluster is matched with their class, under the best one-to-one matching.

    The matching is that of the Hungarian method (Kuhn 1955). The metric is eq. 10 of Xie et al. (2016), "Unsupervised
    deep embedding for clustering analysis".
    """
    from scipy.optimize import linear_sum_assignment

    size = int(torch.cat([clusters, labels.cpu()]).max()) + 1
    counts = torch.zeros(size, size, dtype=torch.int64)  # [clusters, classes]
    counts.index_put_((clusters, labels.cpu()), torch.ones_like(clusters), accumulate=True)
    return float(counts[linear_sum_assignment(counts.numpy(), maximize=True)].sum()) / len(clusters)


def mutual_information(clusters: Tensor, labels: Tensor) -> float:
    """Return the mutual information of clusters and classes over their mean entropy: 0 if independent, 1 if equal."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels.cpu().numpy(), clusters.numpy()))
