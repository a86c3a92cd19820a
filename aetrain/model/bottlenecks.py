"""Bottlenecks: features [B, F] to a code [B, D]."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from aetrain.model.records import Code, GaussianCode


class Bottleneck(nn.Module, ABC):
    """Turns the encoder's features into a code. A subclass is final and says which kind of code it `emits`."""

    emits: type[Code] = Code

    def __init__(self, in_features: int, code_dim: int) -> None:
        super().__init__()
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim} is too small: use 1 or more")
        self.code_dim = code_dim
        # The layer that a tied decoder shares; its image of the features is the code, or the mean of it.
        self.project = nn.Linear(in_features, code_dim)

    @abstractmethod
    def forward(self, features: Tensor) -> Code:
        """Drawn at random while training where the code is random, its mean otherwise."""

    def decoded_by(self, layer: nn.Module) -> None:
        """Told the linear layer that reads the code, for a bottleneck that finds its code by decoding."""

    def sample(self, code: Code, generator: torch.Generator | None = None) -> Tensor:
        """A draw of z [B, D] for the images that were coded; a code that is not random is its own draw."""
        return code.z

    def prior(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Codes [count, D] drawn without an image, or None where the family does not say from what."""
        return None


class Deterministic(Bottleneck):
    """z = W features + b."""

    def forward(self, features: Tensor) -> Code:
        return Code(z=self.project(features))


class Gaussian(Bottleneck):
    """z ~ N(mean, exp(log_var)) by reparameterisation (Kingma & Welling 2014, section 2.4, arXiv:1312.6114)."""

    emits = GaussianCode

    def __init__(self, in_features: int, code_dim: int) -> None:
        super().__init__(in_features, code_dim)
        self.log_var = nn.Linear(in_features, code_dim)

    def forward(self, features: Tensor) -> GaussianCode:
        code = GaussianCode(z=(mean := self.project(features)), mean=mean, log_var=self.log_var(features))
        return GaussianCode(z=self.sample(code), mean=mean, log_var=code.log_var) if self.training else code

    def sample(self, code: Code, generator: torch.Generator | None = None) -> Tensor:
        assert isinstance(code, GaussianCode)
        noise = torch.empty_like(code.mean).normal_(generator=generator)
        return code.mean + torch.exp(0.5 * code.log_var) * noise

    def prior(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.code_dim, generator=generator, device=generator.device)
