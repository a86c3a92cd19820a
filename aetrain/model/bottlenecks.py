"""Bottlenecks: modules that map features [B, F] to a code [B, D]."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.codes import Code, GaussianCode, QuantizedCode
from aetrain.model.layers import AfterStepHook
from aetrain.model.records import Tap
from aetrain.utils.shards import draw_like, gather


class Bottleneck(nn.Module, ABC):
    """Map the encoder's features to a code. A subclass is final and states the type of code that it `emits`.

    Raise ValueError where `code_dim` is below 1.
    """

    emits: type[Code] = Code
    num_codewords: int | None = None  # in the codebook, where there is one
    linear: bool = False  # whether the code, or its mean, is an affine function of the features

    def __init__(self, in_features: int, code_dim: int) -> None:
        super().__init__()
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim} is too small: use 1 or more")
        self.code_dim = code_dim
        # The code of the features, or the code's mean, is this layer's output. A tied decoder shares its weights.
        self.project: nn.Linear = nn.Linear(in_features, code_dim)

    @abstractmethod
    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]: a random code is drawn in training mode, and is its mean otherwise."""

    def set_decoder_layer(self, layer: nn.Module) -> None:
        """Set the linear layer that reads the code, for a bottleneck that infers its code by decoding."""

    def taps(self) -> list[Tap]:
        """Return the taps of layers of units beside the code itself."""
        return []

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return the codes [B, D] nearest to z [B, D] that the bottleneck can produce."""
        return z

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Return `count` draws [count, D] from the prior, or None where the bottleneck has no prior."""
        return None

    def standard_normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Return `count` draws [count, D] from N(0, I), the prior of most families that have one."""
        device = next(self.parameters(), torch.empty(0)).device if generator is None else generator.device
        return torch.randn(count, self.code_dim, generator=generator, device=device)


class Deterministic(Bottleneck):
    """z = W features + b."""

    linear = True

    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]."""
        return Code(z=self.project(features))


class Gaussian(Bottleneck):
    """z ~ N(mean, exp(log_var)) by reparameterisation (Kingma & Welling 2014, section 2.4, arXiv:1312.6114)."""

    emits = GaussianCode
    linear = True

    def __init__(self, in_features: int, code_dim: int) -> None:
        super().__init__(in_features, code_dim)
        self.log_var = nn.Linear(in_features, code_dim)

    def forward(self, features: Tensor) -> GaussianCode:
        """Return the code of features [B, F]: a draw in training mode, the mean otherwise."""
        mean = self.project(features)
        code = GaussianCode(z=mean, mean=mean, log_var=self.log_var(features))
        return GaussianCode(z=code.sample(), mean=mean, log_var=code.log_var) if self.training else code

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws [count, D] from N(0, I)."""
        return self.standard_normal(count, generator)


class Hashing(Bottleneck):
    """z = sigmoid(W features + b + noise), the noise normal with deviation `std`, in training alone: units become bits.

    Only activations far from 0 pass the noise, so that units are nearly 0 or 1 (Salakhutdinov & Hinton 2009, "Semantic
    hashing"). The code itself is not random: the noise regularises training, as that of the input does. Raise
    ValueError where `std` is negative.
    """

    def __init__(self, in_features: int, code_dim: int, std: float = 4.0) -> None:
        super().__init__(in_features, code_dim)
        if std < 0:
            raise ValueError(f"model.bottleneck.std={std} is negative: use a standard deviation, or 0 for no noise")
        self.std = std

    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]."""
        logits = self.project(features)
        if self.training:
            logits = logits + self.std * draw_like(logits, Tensor.normal_)
        return Code(z=logits.sigmoid())

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return z [B, D] in [0, 1]."""
        return z.clamp(0, 1)


class Sphere(Bottleneck):
    """z = radius u / |u| with u = W features + b: codes differ in their direction alone, which the cosine compares.

    Zhao et al. (2019), "Latent variables on spheres for autoencoders in high dimensions", arXiv:1912.10233, sample from
    such codes; here they are not random. Raise ValueError where the code has one unit, or the radius is not above 0.
    """

    def __init__(self, in_features: int, code_dim: int, radius: float = 10.0) -> None:
        super().__init__(in_features, code_dim)
        if code_dim < 2:
            raise ValueError(f"model.code_dim={code_dim} has no sphere of more than two points: use 2 or more")
        if not radius > 0:
            raise ValueError(f"model.bottleneck.radius={radius} is no radius: use a number above 0")
        self.radius = radius

    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]."""
        return Code(z=self.project_to_code_space(self.project(features)))

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return the points of the sphere [B, D] in the direction of z [B, D]."""
        return self.radius * F.normalize(z)


class DeterministicWithPrior(Bottleneck):
    """z = W features + b with the prior N(0, I), for models whose penalty or critic matches the codes to the prior.

    The bottleneck itself imposes nothing on z. Without such a penalty, the decoder cannot decode draws from the prior.
    """

    linear = True

    def forward(self, features: Tensor) -> Code:
        """Return the code of features [B, F]."""
        return Code(z=self.project(features))

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws [count, D] from N(0, I)."""
        return self.standard_normal(count, generator)


def nearest_multiple(number: int, factor: int) -> int:
    """Return the multiple of `factor`, at least `factor` itself, that is nearest to `number`."""
    return max(round(number / factor), 1) * factor


class Quantized(Bottleneck, AfterStepHook):
    """Split W features + b into G groups of units and round each to the nearest of K codewords of one codebook.

    z_g = e_k with k = argmin_j |c_g - e_j|, c the continuous code; the gradient passes straight through the rounding,
    unchanged, to c (van den Oord et al. 2017, arXiv:1711.00937, eq. 1 and 2). The prior is uniform over the codewords,
    as the paper's is during training. The codewords learn from a penalty (`Codebook`).

    A codeword that no image has used for `reset_after` steps of training is reset to a group's continuous code, drawn
    from the last batch. All codewords start at that limit, so that the first step resets those that its batch has not
    used.
    """

    emits = QuantizedCode
    stateful = True  # keeps Python state between steps: training/backend/compile.py leaves such a model uncompiled

    def __init__(
        self, in_features: int, code_dim: int, groups: int = 16, num_codewords: int = 128, reset_after: int = 100
    ) -> None:
        super().__init__(in_features, code_dim)
        if groups < 1 or code_dim % groups:
            raise ValueError(
                f"model.code_dim={code_dim} cannot be split into model.bottleneck.groups={groups} of equal size: "
                f"make one a multiple of the other, such as model.code_dim={nearest_multiple(code_dim, max(groups, 1))}"
            )
        for name, value in (("num_codewords", num_codewords), ("reset_after", reset_after)):
            if value < 1:
                raise ValueError(f"model.bottleneck.{name}={value} is too small: use 1 or more")
        self.groups = groups
        self.num_codewords = num_codewords
        self.reset_after = reset_after
        self.codebook = nn.Embedding(num_codewords, code_dim // groups)
        self.similarity_probe = nn.Identity()  # its input is the similarity of each codeword to each group, for taps
        self.steps_unused: Tensor  # [K] steps since a codeword was used
        self.register_buffer("steps_unused", torch.full((num_codewords,), reset_after))
        # Of the batches since the last optimizer step, codewords [B, G] and continuous codes [B, G, D / G].
        self._batches: list[tuple[Tensor, Tensor]] = []

    def forward(self, features: Tensor) -> QuantizedCode:
        """Return the code of features [B, F]."""
        continuous = self.project(features).unflatten(1, (self.groups, -1))  # [B, G, D / G]
        index = self._closest(continuous if torch.is_grad_enabled() and not self.training else continuous.detach())
        codewords = F.embedding(index, self.codebook.weight)  # [B, G, D / G]
        straight_through = codewords.detach() + (continuous - continuous.detach())  # equals the codewords bit for bit
        code = QuantizedCode(z=straight_through.flatten(1), continuous=continuous, codewords=codewords, index=index)
        if self.training and torch.is_grad_enabled():
            self._batches.append((gather(index), gather(continuous.detach())))
        return code

    def _closest(self, continuous: Tensor) -> Tensor:
        """Return the codeword [B, G] nearest to each group of a continuous code [B, G, D / G]."""
        # The negative squared distance without |c|^2, which is the same for every codeword.
        similarity = 2 * continuous @ self.codebook.weight.t() - self.codebook.weight.square().sum(1)  # [B, G, K]
        return self.similarity_probe(similarity.transpose(1, 2)).transpose(1, 2).argmax(2)

    def taps(self) -> list[Tap]:
        """Return the tap of the codewords: units [K] with one step a group, of which the largest is active."""
        return [Tap(name="codebook", module=self.similarity_probe, is_argmax=True)]

    def project_to_code_space(self, z: Tensor) -> Tensor:
        """Return z [B, D] with each group rounded to its nearest codeword."""
        return F.embedding(self._closest(z.unflatten(1, (self.groups, -1))), self.codebook.weight).flatten(1)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Count the steps since each codeword was used; reset those unused for more than `reset_after` steps."""
        if not self._batches:
            return  # no batch has passed since the last call
        index = torch.cat([index.flatten() for index, _ in self._batches])
        candidates = torch.cat([continuous.flatten(0, 1) for _, continuous in self._batches])  # [B * G, D / G]
        self._batches = []
        used = torch.zeros_like(self.steps_unused, dtype=torch.bool).index_fill_(0, index, True)
        self.steps_unused.add_(1).masked_fill_(used, 0)
        expired = self.steps_unused > self.reset_after
        drawn = candidates[torch.randint(len(candidates), self.steps_unused.shape, device=self.steps_unused.device)]
        self.codebook.weight.copy_(torch.where(expired[:, None], drawn, self.codebook.weight))
        self.steps_unused.masked_fill_(expired, 0)

    def prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return codes [count, D] whose groups are codewords drawn uniformly."""
        shape, device = (count, self.groups), self.codebook.weight.device
        index = torch.randint(self.codebook.num_embeddings, shape, generator=generator, device=device)
        return F.embedding(index, self.codebook.weight).flatten(1)
