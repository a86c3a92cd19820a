"""Codes: the outputs of bottlenecks. A code answers for itself what metrics, penalties and views ask about it.

Shapes: B images in a batch, D units of the code, U units or groups of units that have a KL of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from aetrain.utils.shards import draw_like


@dataclass(frozen=True, kw_only=True)
class Code:
    """The output of a bottleneck, and the input of the decoder.

    A random code is a subclass of `RandomCode` and overrides `mean_z`, `sample`, `kl`, `log_posterior` and
    `log_prior`: training, metrics, importance sampling, precision and views ask nothing else.
    """

    is_random: ClassVar[bool] = False  # whether training samples it from a distribution
    is_relaxed: ClassVar[bool] = False  # whether samples are a relaxation of what `mean_z` and `kl` describe

    z: Tensor  # [B, D]
    # The encoder's max-pool indices, the "where" of Zhao et al. (2016), "Stacked what-where auto-encoders".
    pool_indices: tuple[Tensor, ...] = ()

    @property
    def mean_z(self) -> Tensor:
        """The code [B, D] without randomness: the mean of a random code."""
        return self.z

    @property
    def codeword_indices(self) -> Tensor | None:
        """The numbers [B, G] of the codewords that the code consists of; None for a code without a codebook."""
        return None

    @property
    def prior_moments(self) -> tuple[Tensor, Tensor] | None:
        """The mean and the standard deviation [D] of each unit under the prior; None where units are not shown so."""
        return None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a random draw of z [B, D] for the same images; a code that is not random is its own draw.

        Random numbers come from `aetrain.utils.shards`, so that several processes draw those of one.
        """
        return self.z

    def kl(self) -> Tensor:
        """Return the KL divergence from the code's distribution to the prior by unit, [B, U], in nats."""
        raise NotImplementedError(f"{type(self).__name__} is not random and has no KL to a prior")

    def log_posterior(self, z: Tensor) -> Tensor:
        """Return log q(z | x) of z [B, D], [B], in nats."""
        raise NotImplementedError(f"{type(self).__name__} is not random and has no density")

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z) of z [B, D], [B], in nats."""
        raise NotImplementedError(f"{type(self).__name__} is not random and has no prior density")

    def log_prior_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z | x) of z [B, D], [B], in nats: the importance weight without the likelihood."""
        return self.log_prior(z) - self.log_posterior(z)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the code with a function applied to each of its tensors."""
        changes: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changes[item.name] = function(value)
            elif isinstance(value, tuple):
                changes[item.name] = tuple(function(part) for part in value)
        return replace(self, **changes)

    def repeat(self, count: int) -> Self:
        """Return the code of `count` copies of the batch, [count * B, ...], the first copy of every image first."""
        return self.map(lambda tensor: tensor.repeat(count, *[1] * (tensor.dim() - 1)))

    def to_float32(self) -> Self:
        """Return the code with its floating-point tensors in float32."""
        return self.map(lambda tensor: tensor.to(torch.float32) if tensor.is_floating_point() else tensor)


@dataclass(frozen=True, kw_only=True)
class RandomCode(Code):
    """A code that training samples from a distribution, with a prior."""

    is_random: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class GaussianCode(RandomCode):
    """A code drawn from a diagonal normal distribution, with the prior N(0, I)."""

    mean: Tensor  # [B, D]
    log_var: Tensor  # [B, D]

    @property
    def mean_z(self) -> Tensor:
        """The mean [B, D]."""
        return self.mean

    @property
    def prior_moments(self) -> tuple[Tensor, Tensor]:
        """0 and 1 for each unit."""
        return torch.zeros_like(self.mean[0]), torch.ones_like(self.mean[0])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return mean + exp(log_var / 2) * noise, [B, D] (Kingma & Welling 2014, section 2.4, arXiv:1312.6114)."""
        noise = draw_like(self.mean, lambda empty: empty.normal_(generator=generator))
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def kl(self) -> Tensor:
        """Return -1/2 (1 + log s^2 - m^2 - s^2) by unit, [B, D], in nats (Kingma & Welling 2014, appendix B)."""
        return -0.5 * (1 + self.log_var - self.mean.square() - self.log_var.exp())

    def log_posterior(self, z: Tensor) -> Tensor:
        """Return log N(z; mean, exp(log_var)), [B], in nats."""
        squares = (z - self.mean).square() * (-self.log_var).exp() + self.log_var
        return -0.5 * (squares + math.log(2 * math.pi)).sum(1)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log N(z; 0, I), [B], in nats."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def log_prior_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z | x), [B]; the normalising constants cancel before they are rounded."""
        squares = (z - self.mean).square() * (-self.log_var).exp() + self.log_var - z.square()
        return 0.5 * squares.sum(1)


@dataclass(frozen=True, kw_only=True)
class QuantizedCode(Code):
    """A code of G groups, each of them one of the codewords of a codebook."""

    continuous: Tensor  # [B, G, D / G] the encoder's value of each group, before it is rounded to a codeword
    codewords: Tensor  # [B, G, D / G] the codewords that the groups are rounded to, with their gradient
    index: Tensor  # [B, G] the numbers of these codewords in the codebook

    @property
    def codeword_indices(self) -> Tensor:
        """The numbers of the codewords, [B, G]."""
        return self.index
