"""Bottlenecks: features [B, F] to a code [B, D]."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.layers import Settled
from aetrain.model.records import Code, GaussianCode, QuantizedCode, Tap


class Bottleneck(nn.Module, ABC):
    """Turns the encoder's features into a code. A subclass is final and says which kind of code it `emits`."""

    emits: type[Code] = Code

    def __init__(self, in_features: int, code_dim: int) -> None:
        super().__init__()
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim} is too small: use 1 or more")
        self.code_dim = code_dim
        # The layer that a tied decoder shares; its image of the features is the code, or the mean of it.
        self.project: nn.Linear = nn.Linear(in_features, code_dim)

    @abstractmethod
    def forward(self, features: Tensor) -> Code:
        """Drawn at random while training where the code is random, its mean otherwise."""

    def decoded_by(self, layer: nn.Module) -> None:
        """Told the linear layer that reads the code, for a bottleneck that finds its code by decoding."""

    def taps(self) -> list[Tap]:
        """The layers of units that it has beside the code itself."""
        return []

    def nearest(self, z: Tensor) -> Tensor:
        """The codes [B, D] that the family can make which are nearest to any numbers [B, D]."""
        return z

    def sample(self, code: Code, generator: torch.Generator | None = None) -> Tensor:
        """A draw of z [B, D] for the images that were coded; a code that is not random is its own draw."""
        return code.z

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Codes [count, D] drawn without an image, or None where the family does not say from what."""
        return None

    def standard_normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Draws [count, D] from N(0, I), the prior of most families that have one."""
        device = next(self.parameters(), torch.empty(0)).device if generator is None else generator.device
        return torch.randn(count, self.code_dim, generator=generator, device=device)


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

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.standard_normal(count, generator)


class Matched(Bottleneck):
    """z = W features + b with the prior N(0, I), which a penalty or a critic makes the codes of all images resemble.

    The bottleneck itself asks nothing of z: without such a penalty, draws from the prior mean nothing.
    """

    def forward(self, features: Tensor) -> Code:
        return Code(z=self.project(features))

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return self.standard_normal(count, generator)


class Quantized(Bottleneck, Settled):
    """Each of G groups of the units of W features + b is rounded to the nearest of K codewords, all from one book.

    z_g = e_k with k = argmin_j |c_g - e_j|, c the continuous code; its gradient passes on to c as it is, straight
    through the rounding (van den Oord et al. 2017, arXiv:1711.00937, eq. 1 and 2). The prior is uniform over the
    codewords, as theirs is while they train. What a codeword learns is a penalty's affair (`Codebook`).

    A codeword that no image has used for `patience` steps of training begins anew as a group's continuous code, drawn
    from the last batch. Before training all are due, so that those left idle by the first batch begin among its codes.
    """

    emits = QuantizedCode

    def __init__(
        self, in_features: int, code_dim: int, groups: int = 16, num_codewords: int = 128, patience: int = 100
    ) -> None:
        super().__init__(in_features, code_dim)
        if groups < 1 or code_dim % groups:
            raise ValueError(
                f"model.code_dim={code_dim} cannot be split into model.bottleneck.groups={groups} of equal size: "
                "make one a multiple of the other"
            )
        for name, value in (("num_codewords", num_codewords), ("patience", patience)):
            if value < 1:
                raise ValueError(f"model.bottleneck.{name}={value} is too small: use 1 or more")
        self.groups = groups
        self.patience = patience
        self.book = nn.Embedding(num_codewords, code_dim // groups)
        self.match = nn.Identity()  # how well each codeword goes with each group, for those who look
        self.idle: Tensor  # [K] steps since a codeword was used
        self.register_buffer("idle", torch.full((num_codewords,), patience))
        self._seen: QuantizedCode | None = None  # what the last step's batch became

    def forward(self, features: Tensor) -> QuantizedCode:
        continuous = self.project(features).unflatten(1, (self.groups, -1))  # [B, G, D / G]
        index = self._closest(continuous if torch.is_grad_enabled() and not self.training else continuous.detach())
        codewords = F.embedding(index, self.book.weight)  # [B, G, D / G]
        straight = codewords.detach() + (continuous - continuous.detach())  # the codeword itself, to the last bit
        code = QuantizedCode(z=straight.flatten(1), continuous=continuous, codewords=codewords, index=index)
        if self.training:
            self._seen = code
        return code

    def _closest(self, continuous: Tensor) -> Tensor:
        """The codeword [B, G] nearest to each group of a continuous code [B, G, D / G]."""
        # |c|^2 is the same for every codeword, and left out.
        match = 2 * continuous @ self.book.weight.t() - self.book.weight.square().sum(1)  # [B, G, K]
        return self.match(match.transpose(1, 2)).transpose(1, 2).argmax(2)

    def taps(self) -> list[Tap]:
        return [Tap(name="codebook", module=self.match, contest=True)]

    def nearest(self, z: Tensor) -> Tensor:
        return F.embedding(self._closest(z.unflatten(1, (self.groups, -1))), self.book.weight).flatten(1)

    @torch.no_grad()
    def settle(self) -> None:
        """Count who was idle, and let those who were for too long begin anew."""
        if self._seen is None:
            return  # nothing has passed since the last time
        seen, self._seen = self._seen, None
        used = torch.zeros_like(self.idle, dtype=torch.bool).index_fill_(0, seen.index.flatten(), True)
        self.idle.add_(1).masked_fill_(used, 0)
        due = self.idle > self.patience
        candidates = seen.continuous.flatten(0, 1)  # [B * G, D / G]
        drawn = candidates[torch.randint(len(candidates), self.idle.shape, device=self.idle.device)]
        self.book.weight.copy_(torch.where(due[:, None], drawn, self.book.weight))
        self.idle.masked_fill_(due, 0)

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        shape, device = (count, self.groups), self.book.weight.device
        index = torch.randint(self.book.num_embeddings, shape, generator=generator, device=device)
        return F.embedding(index, self.book.weight).flatten(1)
