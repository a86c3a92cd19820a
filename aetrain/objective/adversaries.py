"""Penalties that match the codes of all images to the prior: an adversarial critic, or a distance of two samples."""

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward, LossDict
from aetrain.objective.penalties import Critic, Penalty, make_generator
from aetrain.objective.weight_schedule import WeightSettings
from aetrain.utils.shards import draw


class CodeCritic(Critic):
    """The adversarial autoencoder's critic: it learns to tell codes from draws of the prior, the encoder to prevent it.

    The critic minimises -log D(z~) - log(1 - D(z)) with z~ from the prior and z = enc(x), in the mean over a batch; the
    model minimises -log D(z). Makhzani et al. (2016), arXiv:1511.05644, section 2, with the non-saturating loss for the
    encoder that Goodfellow et al. (2014) recommend. D is a sigmoid of a fully connected network.
    """

    description = "-log of the probability, by the critic, that a code is a sample from the prior, nats"
    loss_descriptions: ClassVar[Mapping[str, str]] = {
        "loss": "the critic's own loss: its cross-entropy on codes plus that on prior samples, nats",
        "accuracy": "share of codes and prior samples that the critic classifies correctly, 0 to 1",
    }

    def __init__(
        self,
        code_dim: int,
        weight: float = 1.0,
        units: Sequence[int] = (256, 256),
        **schedule: Unpack[WeightSettings],
    ) -> None:
        super().__init__(weight, **schedule)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise([code_dim, *units]):
            layers += [nn.Linear(i, o), nn.LeakyReLU(0.2)]
        self.logit = nn.Sequential(*layers, nn.Linear([code_dim, *units][-1], 1))

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return -log D(z) [B]."""
        return F.softplus(-self.logit(out.code.z)).squeeze(1)  # [B]

    def losses(self, model: Autoencoder, x_in: Tensor) -> LossDict:
        """Return `loss` [] and `accuracy` [] for encoder inputs x_in [B, C, H, W]; the encoder gets no gradient.

        The loss is log 4 nats where D is 1/2 everywhere. The accuracy is the share of codes and draws that D classifies
        correctly.
        """
        with torch.no_grad():
            z = model.encode(x_in).z  # [B, D]
        prior = draw(lambda shape: draw_from_prior(model, shape[0]), z.shape)  # [B, D]
        prior_logits, code_logits = self.logit(prior), self.logit(z)  # [B, 1]
        loss = F.softplus(-prior_logits).mean() + F.softplus(code_logits).mean()
        accuracy = torch.cat([prior_logits > 0, code_logits < 0]).to(torch.float32).mean()
        return {"loss": loss, "accuracy": accuracy}


class MMD(Penalty):
    """Unbiased squared maximum mean discrepancy of the batch's codes z and as many draws z~ from the prior.

    1/(n(n-1)) sum_{i != j} [k(z_i, z_j) + k(z~_i, z~_j)] - 2/n^2 sum_{ij} k(z_i, z~_j), k(a, b) the sum over `scales` s
    of sC / (sC + |a - b|^2) with C = 2D, the mean squared distance of two draws from N(0, I). Tolstikhin et al. (2018),
    arXiv:1711.01558, algorithm 2; one scale of 1 is the paper's kernel, the seven are those of its authors' code. An
    unbiased estimate can be below 0. One code has no pair, and no estimate: the penalty is 0.
    """

    reads_batch = True
    description = "squared maximum mean discrepancy between codes and prior samples, unbiased estimate (can be below 0)"

    def __init__(
        self,
        weight: float = 1.0,
        scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        **schedule: Unpack[WeightSettings],
    ) -> None:
        super().__init__(weight, **schedule)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales={list(scales)} must name 1 or more numbers above 0")
        self.scales = tuple(scales)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the estimate [] for the batch."""
        generator = make_generator(model, out.code.z.device)
        z = (out.code if model.training else model.sample(out.code, generator)).z  # [B, D], never a mean
        return self.estimate(z, draw_from_prior(model, len(z), generator))

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the estimate [] from two samples of equal size [N, D]; 0 where they have no pairs."""
        n = len(a)
        cross = self._kernel(a, b).mean()
        if n < 2:
            return 0 * cross
        within = 0 * cross
        for kernel in (self._kernel(a, a), self._kernel(b, b)):
            within = within + (kernel.sum() - kernel.diagonal().sum())
        return within / (n * (n - 1)) - 2 * cross

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Return k(a_i, b_j) [N, N]."""
        squared_distance = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.t()
        squared_distance = squared_distance.clamp_min(0)  # rounding can make it negative
        constants = [2 * a.shape[1] * scale for scale in self.scales]
        return sum((c / (c + squared_distance) for c in constants), start=torch.zeros_like(squared_distance))


def draw_from_prior(model: Autoencoder, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Return `count` draws [count, D] from the model's prior; raise ValueError where it has none."""
    z = model.prior(count, generator)
    if z is None:
        raise ValueError(
            f"this penalty compares codes with the prior, but model.bottleneck={type(model.bottleneck).__name__} "
            "has none: use aetrain.model.bottlenecks.DeterministicWithPrior, as model=aae and model=wae do"
        )
    return z
