"""How far pictures are from real images as a whole: the Frechet distance, in features learnt from the images' classes.

Heusel et al. (2017), arXiv:1706.08500, take the features of a network that was trained on photographs elsewhere. Here
they are those of a small classifier of the data set itself, so nothing is downloaded, and a figure compares with others
of the same data set alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from aetrain.data.batches import in_order
from aetrain.data.dataset import Splits
from aetrain.evaluation.judge import judge_of
from aetrain.evaluation.measures import Measure, Subject
from aetrain.evaluation.ruler import Figures
from aetrain.model.likelihoods import Bernoulli

BATCH = 1000


@final
@dataclass(frozen=True)
class Frechet(Measure):
    """The distance from the test images to their reconstructions, and to as many samples where there is a prior.

    The floor is that of real images to real images: as many of those that the classifier was trained on. The classifier
    is trained once for a data set, and kept below `path`. Where images are black and white and the likelihood is
    Bernoulli, pictures are drawn black and white from the pixels' chances, as the images are.
    """

    path: str

    def check_images(self, splits: Splits) -> None:
        """Only images whose classes are known."""
        labels = splits.train.labels
        if labels is None or len(labels.unique()) < 2:
            raise ValueError(
                "pictures are judged by a classifier of the images, but these have no classes: sort a folder's images "
                "into a folder for each class, give an .npz file labels, or leave this measure out"
            )

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Figures:
        model, splits, prepare = subject.model, subject.splits, subject.prepare
        judge = judge_of(splits.train, prepare, Path(self.path).expanduser() / "judges")
        generator = torch.Generator(splits.test.pixels.device).manual_seed(1)
        real = [*in_order(splits.test, BATCH, prepare)]
        binary = isinstance(model.likelihood, Bernoulli) and all(bool(((x == 0) | (x == 1)).all()) for x in real)

        def shown(pictures: Iterable[Tensor]) -> Iterator[Tensor]:
            return (torch.bernoulli(each, generator=generator) if binary else each for each in pictures)

        def features(pictures: Iterable[Tensor]) -> Tensor:
            return torch.cat([judge.features(each) for each in pictures])

        known = features(real)
        others = {
            "frechet_floor": features(in_order(splits.train[: len(splits.test)], BATCH, prepare)),
            "frechet_reconstructions": features(shown(model.reconstruct(x) for x in real)),
        }
        if model.prior(1, generator) is not None:
            others["frechet_samples"] = features(shown(samples(subject, [len(x) for x in real], generator)))
        return {name: distance(known, found) for name, found in others.items()}


def samples(subject: Subject, counts: Iterable[int], generator: torch.Generator) -> Iterator[Tensor]:
    """What the decoder paints of draws from the prior, in batches."""
    for count in counts:
        z = subject.model.prior(count, generator)
        assert z is not None
        yield subject.model.paint(z)


def distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of two sets of features [N, F], as of two normal distributions.

    Dowson & Landau (1982), eq. 4. In float64; the trace of the root is that of (C_a^1/2 C_b C_a^1/2)^1/2, which is
    symmetric, so its eigenvalues are real and not negative.
    """
    a, b = a.to(torch.float64), b.to(torch.float64)
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), torch.atleast_2d(x.t().cov())) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.t()
    both = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * both)
