"""A code of categories: the Gumbel-softmax bottleneck and its code.

Shapes: B images in a batch, G groups, K categories of each, D = G * K units of the code.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.model.bottlenecks import Bottleneck, nearest_multiple
from aetrain.model.codes import RandomCode
from aetrain.model.layers import Scheduled
from aetrain.utils.shards import draw_like


@dataclass(frozen=True, kw_only=True)
class CategoricalCode(RandomCode):
    """A code of G groups, each a relaxed one-hot vector of K categories, with a uniform prior.

    Jang et al. (2017), "Categorical reparameterization with Gumbel-softmax", arXiv:1611.01144. A draw is the softmax of
    (logits + Gumbel noise) / temperature, and approaches one-hot vectors as the temperature approaches 0.
    """

    is_relaxed: ClassVar[bool] = (
        True  # `mean_z` and `kl` are of the categories, samples and densities of relaxed vectors
    )

    logits: Tensor  # [B, G, K]
    temperature: float

    @property
    def mean_z(self) -> Tensor:
        """The probabilities of the categories, [B, G * K]: the mean of the one-hot vectors."""
        return self.logits.softmax(2).flatten(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return softmax((logits + Gumbel noise) / temperature), [B, G * K] (eq. 2)."""
        noise = draw_like(self.logits, lambda empty: empty.exponential_(generator=generator)).log().neg()
        return F.softmax((self.logits + noise) / self.temperature, 2).flatten(1)

    def kl(self) -> Tensor:
        """Return sum_k p_k log(K p_k) by group, [B, G], in nats: the KL of the categories to the uniform prior."""
        log_p = self.logits.log_softmax(2)
        return (log_p.exp() * (log_p + math.log(self.logits.shape[2]))).sum(2)

    def log_posterior(self, z: Tensor) -> Tensor:
        """Return the log density of relaxed one-hot vectors z, [B], in nats (eq. 8 in appendix B)."""
        return self._log_density(z, self.logits.log_softmax(2))

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log density of relaxed one-hot vectors z with equal logits, [B], in nats."""
        return self._log_density(z, torch.full_like(self.logits, -math.log(self.logits.shape[2])))

    def _log_density(self, z: Tensor, log_p: Tensor) -> Tensor:
        count = log_p.shape[2]
        log_y = z.view_as(log_p).clamp_min(torch.finfo(z.dtype).tiny).log()  # [B, G, K]
        scaled = log_p - self.temperature * log_y
        constant = math.lgamma(count) + (count - 1) * math.log(self.temperature)
        return (constant - count * scaled.logsumexp(2) + (scaled - log_y).sum(2)).sum(1)


class Categorical(Bottleneck, Scheduled):
    """Sample each of G groups of units from a relaxed categorical distribution whose logits are W features + b.

    Jang et al. (2017), arXiv:1611.01144. In training the temperature falls exponentially from `temperature` to
    `final_temperature` over the first `anneal` of training; samples in evaluation have the final one.
    """

    emits = CategoricalCode

    def __init__(
        self,
        in_features: int,
        code_dim: int,
        categories: int = 10,
        temperature: float = 1.0,
        final_temperature: float = 0.5,
        anneal: float = 0.5,
    ) -> None:
        super().__init__(in_features, code_dim)
        if categories < 2 or code_dim % categories:
            raise ValueError(
                f"model.code_dim={code_dim} cannot be split into groups of model.bottleneck.categories={categories}: "
                "use 2 or more categories and a multiple of them, such as "
                f"model.code_dim={nearest_multiple(code_dim, max(categories, 2))}"
            )
        if not 0 < final_temperature <= temperature:
            raise ValueError(
                f"model.bottleneck.final_temperature={final_temperature} must be above 0 and at most "
                f"model.bottleneck.temperature={temperature}"
            )
        if not 0 < anneal <= 1:
            raise ValueError(f"model.bottleneck.anneal={anneal} is out of range: use a number above 0, at most 1")
        self.categories = categories
        self.temperature = temperature
        self.final_temperature = final_temperature
        self.anneal = anneal
        self.training_temperature = temperature

    def set_progress(self, progress: float) -> None:
        """Set the temperature of training at a progress in [0, 1)."""
        share = min(1.0, progress / self.anneal)
        self.training_temperature = self.temperature * (self.final_temperature / self.temperature) ** share

    def forward(self, features: Tensor) -> CategoricalCode:
        """Return the code of features [B, F]: a draw in training mode, the probabilities otherwise."""
        logits = self.project(features).unflatten(1, (-1, self.categories))  # [B, G, K]
        temperature = self.training_temperature if self.training else self.final_temperature
        code = CategoricalCode(z=logits.softmax(2).flatten(1), logits=logits, temperature=temperature)
        if not self.training:
            return code
        return CategoricalCode(z=code.sample(), logits=logits, temperature=temperature)

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return z [B, D] with each group made a probability vector."""
        groups = z.clamp_min(0).unflatten(1, (-1, self.categories))
        return (groups / groups.sum(2, keepdim=True).clamp_min(torch.finfo(z.dtype).eps)).flatten(1)

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return one-hot codes [count, D] whose categories are drawn uniformly."""
        shape, device = (count, self.code_dim // self.categories), self.project.weight.device
        index = torch.randint(self.categories, shape, generator=generator, device=device)
        return F.one_hot(index, self.categories).flatten(1).to(self.project.weight.dtype)
