"""The Frechet distance between sets of images, in features learnt from the classes of the data set.

Heusel et al. (2017), arXiv:1706.08500, use the features of a network trained on photographs. Here a small classifier of
the data set itself computes them. Nothing is downloaded, and values compare only within one data set.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.data.dataset import fixed_order
from aetrain.data.examples import Splits, in_order
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.feature_classifier import load_or_train_classifier
from aetrain.evaluation.measures.measure import EvalInputs, Measure
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.records import DATA_WORDS
from aetrain.utils.devices import to_float64

BATCH_SIZE = 1000


@final
@dataclass(frozen=True)
class Frechet(Measure):
    """Distances from the test images to their reconstructions and, if there is a prior, to as many decoded samples.

    `frechet_floor` is the distance to as many training images, chosen at random, the same ones in every run; the
    classifier was trained on them. The classifier is trained once per data set and saved in `path`/classifiers. If the
    images are black and white and the likelihood is Bernoulli, generated images are sampled from their pixel
    probabilities, so that they are black and white, too.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "frechet_reconstructions": (
            "Frechet distance between reconstructions and test images, in the features of a classifier of the data set"
        ),
        "frechet_samples": (
            "Frechet distance between decoded prior samples and test images, in the features of a classifier "
            "of the data set"
        ),
        "frechet_floor": (
            "Frechet distance between training images and test images, in the features of a classifier of the "
            "data set: the value of real images"
        ),
    }

    path: str

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError for a model of other data than images, or of images with missing values."""
        if model.kind != "image":
            raise ValueError(
                f"this measure compares images, and the data set has {DATA_WORDS[model.kind]}: leave it out"
            )
        if model.has_missing:
            raise ValueError(
                "this measure compares whole images, but dataset.missing hides values of them: use dataset.missing=0, "
                "or leave it out"
            )

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for images with fewer than two classes."""
        labels = splits.train.labels
        if labels is None or len(labels.unique()) < 2:
            raise ValueError(
                "the features come from a classifier of the images, but these images have no classes: sort the images "
                "of a folder into one folder per class, add labels to an .npz file, or leave this measure out"
            )

    @torch.no_grad()
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `frechet_floor`, `frechet_reconstructions` and, with a prior, `frechet_samples`."""
        model, splits, prepare = inputs.model, inputs.splits, inputs.prepare
        classifier = load_or_train_classifier(splits.train, prepare, Path(self.path).expanduser() / "classifiers")
        generator = torch.Generator(splits.test.values.device).manual_seed(1)
        test = [*in_order(splits.test, BATCH_SIZE, prepare)]
        is_binary = isinstance(model.likelihood, Bernoulli) and all(bool(((x == 0) | (x == 1)).all()) for x in test)

        def generated_features(batches: Iterable[Tensor]) -> Tensor:
            if is_binary:
                batches = (torch.bernoulli(x, generator=generator) for x in batches)
            return torch.cat([*map(classifier.features, batches)])

        test_features = torch.cat([*map(classifier.features, test)])
        chosen = fixed_order(len(splits.train))[: len(splits.test)].to(splits.train.device)
        train = in_order(splits.train[chosen], BATCH_SIZE, prepare)
        features = {
            "frechet_floor": torch.cat([*map(classifier.features, train)]),
            "frechet_reconstructions": generated_features(map(model.reconstruct, test)),
        }
        if model.prior(1, generator) is not None:
            features["frechet_samples"] = generated_features(prior_samples(inputs, map(len, test), generator))
        return {name: frechet_distance(test_features, other) for name, other in features.items()}


def prior_samples(inputs: EvalInputs, counts: Iterable[int], generator: torch.Generator) -> Iterator[Tensor]:
    """Yield decoded samples of the prior, one batch [B, C, H, W] for each count B."""
    for count in counts:
        z = inputs.model.prior(count, generator)
        assert z is not None
        yield inputs.model.decode_pixels(z)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance between normal distributions fitted to two sets of features, [N, F] and [M, F].

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2): Dowson & Landau (1982), eq. 4. Computed in float64. The trace of
    the root is that of (C_a^1/2 C_b C_a^1/2)^1/2, which is symmetric, so its eigenvalues are real and not negative.
    """
    a, b = to_float64(a), to_float64(b)
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = torch.atleast_2d(a.t().cov()), torch.atleast_2d(b.t().cov())
    eigenvalues, eigenvectors = torch.linalg.eigh(cov_a)
    root_a = (eigenvectors * eigenvalues.clamp_min(0).sqrt()) @ eigenvectors.t()
    trace_of_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root)
