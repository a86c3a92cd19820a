"""What makes the codes of all images together look like the prior: a critic to be fooled, or a distance of samples."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.objective.penalties import Critic, Penalty

SEED = 1  # of the prior's draws in evaluation, which must come out the same every time


class CodeCritic(Critic):
    """Tells codes from draws of the prior, and the encoder learns to fool it: the adversarial autoencoder.

    The critic descends -log D(z~) - log(1 - D(z)) with z~ from the prior and z = enc(x), in the mean over a batch; the
    model descends -log D(z). Makhzani et al. (2016), arXiv:1511.05644, section 2, with the non-saturating loss for the
    encoder that Goodfellow et al. (2014) recommend. D is a sigmoid of a fully connected network.
    """

    def __init__(self, code_dim: int, weight: float = 1.0, units: Sequence[int] = (256, 256)) -> None:
        super().__init__(weight)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise([code_dim, *units]):
            layers += [nn.Linear(i, o), nn.LeakyReLU(0.2)]
        self.logit = nn.Sequential(*layers, nn.Linear([code_dim, *units][-1], 1))

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        return F.softplus(-self.logit(out.code.z)).squeeze(1)  # [B]

    def terms(self, model: Autoencoder, x_in: Tensor) -> dict[str, Tensor]:
        """`loss`, which is log 4 where it cannot tell them apart, and `accuracy`, the share that it gets right."""
        with torch.no_grad():
            z = model.encode(x_in).z  # [B, D]
        drawn, coded = self.logit(prior_of(model, len(z))), self.logit(z)  # [B, 1]
        loss = F.softplus(-drawn).mean() + F.softplus(coded).mean()
        right = torch.cat([drawn > 0, coded < 0]).to(torch.float32).mean()
        return {"loss": loss, "accuracy": right}


class MMD(Penalty):
    """Squared maximum mean discrepancy of the batch's codes z and as many draws z~ of the prior, without bias.

    1/(n(n-1)) sum_{i != j} [k(z_i, z_j) + k(z~_i, z~_j)] - 2/n^2 sum_{ij} k(z_i, z~_j), k(a, b) the sum over `scales` s
    of sC / (sC + |a - b|^2) with C = 2D, what two draws of N(0, I) have as their mean squared distance. Tolstikhin et
    al. (2018), arXiv:1711.01558, algorithm 2; one scale of 1 is the paper's kernel, the seven are their code's. Without
    bias means that it may come out below 0.
    """

    def __init__(self, weight: float = 1.0, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)) -> None:
        super().__init__(weight)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales={list(scales)} must name 1 or more numbers above 0")
        self.scales = tuple(scales)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        z = out.code.z  # [B, D]
        generator = None if model.training else torch.Generator(z.device).manual_seed(SEED)
        return self.between(z, prior_of(model, len(z), generator))

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """The estimate [] from two samples of equal size [N, D]."""
        n = len(a)
        cross = self._kernel(a, b).mean()
        within = sum((k.sum() - k.diagonal().sum() for k in (self._kernel(a, a), self._kernel(b, b))), start=0 * cross)
        return within / max(n * (n - 1), 1) - 2 * cross

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        square = (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.t()).clamp_min(0)  # [N, N]
        constants = [2 * a.shape[1] * scale for scale in self.scales]
        return sum((c / (c + square) for c in constants), start=torch.zeros_like(square))


def prior_of(model: Autoencoder, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws [count, D] of the model's prior; a ValueError where it has none."""
    z = model.prior(count, generator)
    if z is None:
        raise ValueError(
            f"model.penalties compares codes with the prior, but model.bottleneck={type(model.bottleneck).__name__} "
            "has none: use aetrain.model.bottlenecks.Matched, as model=aae and model=wae do"
        )
    return z
