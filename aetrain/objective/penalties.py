"""Penalties: terms of the loss beside the likelihood, without their weights, in nats per image."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Code, Forward, GaussianCode, LossDict, QuantizedCode


class Penalty(nn.Module, ABC):
    """One term of the objective. A subclass is final and states the type of code that it `reads`."""

    reads: type[Code] = Code

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the penalty per image [B], or [] where it is one of the whole batch."""


class Critic(Penalty):
    """A penalty with parameters of its own. The model minimises its `forward`, and the critic its `losses`."""

    @abstractmethod
    def losses(self, model: Autoencoder, x_in: Tensor) -> LossDict:
        """Return named scalars [] of a batch x_in [B, C, H, W]; the critic minimises `loss`."""


class GaussianKL(Penalty):
    """KL from the encoder's normal distribution to the standard normal, per image.

    -1/2 sum_j (1 + log s_j^2 - m_j^2 - s_j^2): Kingma & Welling (2014), appendix B, arXiv:1312.6114. Weight 1 makes
    the objective the negative ELBO, a larger one the beta-VAE of Higgins et al. (2017).
    """

    reads = GaussianCode

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the KL divergence in nats [B]."""
        assert isinstance(out.code, GaussianCode)
        return gaussian_kl(out.code).sum(1)  # [B]


def gaussian_kl(code: GaussianCode) -> Tensor:
    """Return the terms of `GaussianKL` by unit of the code, [B, D], in nats."""
    return -0.5 * (1 + code.log_var - code.mean.square() - code.log_var.exp())


class L1(Penalty):
    """Sum of the absolute activations, of the code or of every hidden layer of the encoder, per image."""

    def __init__(self, weight: float = 1e-3, layers: Literal["code", "hidden"] = "code") -> None:
        super().__init__(weight)
        self.layers = layers

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the sum [B]; without hidden layers it is that of the code."""
        activations = (out.code.z,) if self.layers == "code" or not out.hidden else out.hidden
        return torch.stack([h.flatten(1).abs().sum(1) for h in activations]).sum(0)  # [B]


class L2(Penalty):
    """Squared length of the code, |z|^2, per image: it keeps codes near 0, and thus near each other."""

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared length [B]."""
        return out.code.z.square().sum(1)  # [B]


class Codebook(Penalty):
    """|sg(c) - e|^2, summed over the code's groups: moves codewords e to the continuous codes c rounded to them.

    sg stops the gradient. The second term of eq. 3 in van den Oord et al. (2017), arXiv:1711.00937.
    """

    reads = QuantizedCode

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared distance [B]."""
        assert isinstance(out.code, QuantizedCode)
        return (out.code.continuous.detach() - out.code.codewords).square().flatten(1).sum(1)  # [B]


class Commitment(Penalty):
    """|c - sg(e)|^2, summed over the code's groups: keeps continuous codes c near the codewords e they are rounded to.

    sg stops the gradient. The third term of eq. 3 in van den Oord et al. (2017), whose weight (beta) is 0.25.
    """

    reads = QuantizedCode

    def __init__(self, weight: float = 0.25) -> None:
        super().__init__(weight)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared distance [B]."""
        assert isinstance(out.code, QuantizedCode)
        return (out.code.continuous - out.code.codewords.detach()).square().flatten(1).sum(1)  # [B]


class KLSparsity(Penalty):
    """sum_j KL(target || rate_j) of Bernoulli rates, rate_j the batch mean of code unit j, which must be in (0, 1).

    Ng (2011), CS294A lecture notes "Sparse autoencoder", section 3.
    """

    def __init__(self, target: float, weight: float) -> None:
        super().__init__(weight)
        if not 0 < target < 1:
            raise ValueError(f"target={target} is no rate: use a number between 0 and 1, such as 0.1")
        self.target = target

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the KL divergence [] of the batch in nats; finite also where a unit is always 0 or always 1."""
        eps = torch.finfo(out.code.z.dtype).eps
        rate = out.code.z.mean(0).clamp(eps, 1 - eps)  # [D]
        target = torch.as_tensor(self.target, dtype=rate.dtype, device=rate.device)
        return (target * (target / rate).log() + (1 - target) * ((1 - target) / (1 - rate)).log()).sum()
