"""Measurements for claims about generative models: generated images against digits, codes against the prior."""

from dataclasses import dataclass
from functools import cache

import torch
from measurements import dataset_of, pixels
from torch import Tensor

from aetrain.api import Trained, compose_config
from aetrain.data.examples import Splits
from aetrain.objective.adversaries import MMD

NEIGHBOURS = 10


@cache
def mnist() -> Splits:
    """Return MNIST with the settings of the experiments."""
    config, _, _ = compose_config(["dataset=mnist"])
    return dataset_of(config).load()


@dataclass(frozen=True)
class DigitVotes:
    """The votes of the nearest training images on the class of N images."""

    agreement: (
        Tensor  # [N] fraction of the nearest with the majority class: 1 for a clear digit, less for a blend of two
    )
    distance: Tensor  # [N] squared error to the nearest one
    digit: Tensor  # [N] the majority class

    @property
    def classes(self) -> int:
        """The number of different digits."""
        return len(self.digit.unique())

    @property
    def perplexity(self) -> float:
        """The exponential of the entropy of the digits' frequencies: 10 if all are equally frequent."""
        return float(torch.distributions.Categorical(probs=self.digit.bincount()).entropy().exp())


@torch.no_grad()
def vote_digits(images: Tensor, neighbours: int = NEIGHBOURS) -> DigitVotes:
    """Classify images [N, 1, 28, 28] by the majority of their nearest training images."""
    train = mnist().train
    assert train.labels is not None
    x = pixels(train).flatten(1)  # [60000, 784]
    norms = x.square().sum(1)
    distances, votes = [], []
    for part in images.flatten(1).split(500):
        square = norms + part.square().sum(1)[:, None] - 2 * part @ x.t()  # [B, 60000]
        nearest = square.topk(neighbours, largest=False)
        distances.append(nearest.values[:, 0])
        votes.append(torch.nn.functional.one_hot(train.labels[nearest.indices], 10).sum(1))  # [B, 10]
    majority = torch.cat(votes).max(1)
    return DigitVotes(majority.values / neighbours, torch.cat(distances), majority.indices)


def decoded_samples(run: Trained, count: int = 500) -> Tensor:
    """Return decoded draws from the prior, [count, 1, 28, 28]; the same draws at every call."""
    z = run.model.prior(count, torch.Generator().manual_seed(0))
    assert z is not None
    return run.decode(z)


def codes_of_test(run: Trained) -> Tensor:
    """Return the codes [10000, D] of the test images."""
    return run.encode(pixels(mnist().test))


def moments(z: Tensor) -> tuple[float, float, float]:
    """Return three statistics of codes z [N, D].

    They are the largest absolute mean of a unit, and the smallest and the largest variance in any direction.
    """
    variances = torch.linalg.eigvalsh(z.t().cov())
    return float(z.mean(0).abs().max()), float(variances[0]), float(variances[-1])


def mmd_to_normal(z: Tensor, count: int = 2000) -> float:
    """Return the unbiased squared MMD of codes z [N, D] to draws from N(0, I), with a kernel of one scale."""
    codes = z[torch.arange(count) * len(z) // count]  # the two halves of the test images have different writers
    samples = torch.randn(count, z.shape[1], generator=torch.Generator().manual_seed(0))
    return float(MMD(scales=[1.0]).estimate(codes, samples))
