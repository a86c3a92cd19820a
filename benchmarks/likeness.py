"""What claims about generative models share: how far pictures are like digits, and codes like draws of a prior."""

from dataclasses import dataclass
from functools import cache

import torch
from evidence import dataset_of, pixels
from torch import Tensor

from aetrain.api import Trained, composed
from aetrain.data.images import Splits
from aetrain.objective.adversaries import MMD

NEIGHBOURS = 10


@cache
def mnist() -> Splits:
    """MNIST as the experiments see it."""
    config, _, _ = composed(["dataset=mnist"])
    return dataset_of(config).load()


@dataclass(frozen=True)
class Likeness:
    """What the nearest training images say of pictures [N, 1, 28, 28]."""

    agreement: Tensor  # [N] share of the nearest that are of one class: 1 for a plain digit, less for a blend of two
    distance: Tensor  # [N] squared error to the nearest one
    digit: Tensor  # [N] the class of most of the nearest

    @property
    def classes(self) -> int:
        """How many digits are among them."""
        return len(self.digit.unique())

    @property
    def variety(self) -> float:
        """The same, each digit counted by how often it comes: exp of the entropy of their shares, 10 at most."""
        return float(torch.distributions.Categorical(probs=self.digit.bincount()).entropy().exp())


@torch.no_grad()
def likeness(pictures: Tensor, neighbours: int = NEIGHBOURS) -> Likeness:
    """FeatureClassifier pictures by their nearest training images."""
    train = mnist().train
    assert train.labels is not None
    x = pixels(train).flatten(1)  # [60000, 784]
    norms = x.square().sum(1)
    distances, votes = [], []
    for part in pictures.flatten(1).split(500):
        square = norms + part.square().sum(1)[:, None] - 2 * part @ x.t()  # [B, 60000]
        nearest = square.topk(neighbours, largest=False)
        distances.append(nearest.values[:, 0])
        votes.append(torch.nn.functional.one_hot(train.labels[nearest.indices], 10).sum(1))  # [B, 10]
    most = torch.cat(votes).max(1)
    return Likeness(most.values / neighbours, torch.cat(distances), most.indices)


def draws(run: Trained, count: int = 500) -> Tensor:
    """What the model paints of draws from its prior, [count, 1, 28, 28]; the same draws at every call."""
    z = run.model.prior(count, torch.Generator().manual_seed(0))
    assert z is not None
    return run.decode(z)


def codes_of_test(run: Trained) -> Tensor:
    """The codes [10000, D] of the test images."""
    return run.encode(pixels(mnist().test))


def kill_points(z: Tensor) -> tuple[float, float, float]:
    """Of codes [N, D]: the largest absolute mean of a unit, the smallest and the largest variance in any direction."""
    variances = torch.linalg.eigvalsh(z.t().cov())
    return float(z.mean(0).abs().max()), float(variances[0]), float(variances[-1])


def mmd_to_normal(z: Tensor, count: int = 2000) -> float:
    """Unbiased squared MMD of codes from all over a set to draws from N(0, I), in the kernel of one scale."""
    some = z[torch.arange(count) * len(z) // count]  # test images come in two halves of unlike writers
    drawn = torch.randn(count, z.shape[1], generator=torch.Generator().manual_seed(0))
    return float(MMD(scales=[1.0]).between(some, drawn))
