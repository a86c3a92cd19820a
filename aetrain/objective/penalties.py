"""Penalties: terms of the loss beside the likelihood, without their weights, in nats per image."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack, cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import Code, QuantizedCode, RandomCode
from aetrain.model.records import Forward, LossDict
from aetrain.objective.weight_schedule import WeightSettings, make_weight_schedule

EVALUATION_SEED = 1  # of the draws of penalties in evaluation, which are the same every time


def make_generator(model: nn.Module, device: torch.device, seed: int = EVALUATION_SEED) -> torch.Generator | None:
    """Return a generator that draws the same each time if the model is in evaluation mode; None in training mode."""
    return None if model.training else torch.Generator(device).manual_seed(seed)


class Penalty(nn.Module, ABC):
    """One term of the objective. A subclass is final and states the type of code that it `reads`.

    `description` is that of its metric, with the unit. The metric has the name under which a config lists the penalty.
    `loss_descriptions` describe further losses by name: that of the loss `accuracy` is `critic_accuracy`, if a config
    lists the penalty as `critic`.

    Of several processes, each computes a penalty on the examples of its shard; one that `reads_batch` gets those of the
    whole batch. It draws random numbers by `aetrain.utils.shards`.

    With `warmup` or `cycles` the weight rises in the course of training (`WeightSchedule`); evaluation has the full
    one. Raise ValueError where `weight` is negative: training would then make the penalty as large as it can.
    """

    reads: type[Code] = Code
    reads_batch: bool = False  # whether its value depends on the examples of a batch together, such as on their mean
    description: ClassVar[str] = ""
    loss_descriptions: ClassVar[Mapping[str, str]] = {}

    def __init__(self, weight: float = 1.0, **schedule: Unpack[WeightSettings]) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight={weight} is negative: use 0 or more")
        self.weight = weight
        self.schedule = make_weight_schedule(**schedule)

    def schedule_factor(self, training: bool) -> float | Tensor:
        """Return the factor [] of the schedule at the present progress of training; 1 in evaluation."""
        return 1.0 if self.schedule is None or not training else self.schedule.factor

    def current_weight(self, training: bool) -> float | Tensor:
        """Return the weight [] at the present progress of training; the full weight in evaluation."""
        return self.weight * self.schedule_factor(training)

    def loss_term(self, model: Autoencoder, out: Forward) -> Tensor | None:
        """Return what the loss contains in place of `forward`, before it is weighted; None for `forward` itself."""
        return None

    @property
    def zeroes_code(self) -> bool:
        """Tell whether the penalty is meant to make units of the code exactly 0."""
        return False

    @property
    def zeroes_hidden(self) -> bool:
        """Tell whether the penalty is meant to make hidden units of the encoder exactly 0."""
        return False

    @property
    def target_activation(self) -> float | None:
        """The mean activation of the code that the penalty is meant to reach; None where it has no such target."""
        return None

    @abstractmethod
    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the penalty per image [B], or [] where it is one of the whole batch."""


class Critic(Penalty):
    """A penalty with parameters of its own. The model minimises its `forward`, and the critic its `losses`.

    `loss_descriptions` describe the `losses`, which are measured in training only.
    """

    @abstractmethod
    def losses(self, model: Autoencoder, x_in: Tensor) -> LossDict:
        """Return named scalars [] of a batch x_in [B, C, H, W]; the critic minimises `loss`."""


class KL(Penalty):
    """KL divergence from the distribution of a random code to its prior, per image.

    Weight 1 makes the objective the negative ELBO (Kingma & Welling 2014, eq. 3, arXiv:1312.6114), a larger one the
    beta-VAE of Higgins et al. (2017).

    With `free_bits` the loss contains sum_j max(free_bits, KL_j) in its place, KL_j the mean over the batch for unit j
    (Kingma et al. 2016, arXiv:1606.04934, eq. 15): no unit is pressed below `free_bits` nats. With `capacity` it
    contains |KL - C|, KL the mean over the batch, with the weight gamma (Burgess et al. 2018, arXiv:1804.03599, eq. 8).
    C is `capacity`, and `warmup` and `cycles` let C rise in place of the weight.
    """

    reads = RandomCode
    description = "KL divergence from the distribution of the code to the prior, nats"
    loss_descriptions: ClassVar[Mapping[str, str]] = {
        "term": "term of the loss in place of the KL with free_bits or capacity, before it is weighted, nats"
    }

    def __init__(
        self,
        weight: float = 1.0,
        free_bits: float | None = None,
        capacity: float | None = None,
        **schedule: Unpack[WeightSettings],
    ) -> None:
        super().__init__(weight, **schedule)
        for name, value in (("free_bits", free_bits), ("capacity", capacity)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} is no number of nats: use 0 or more, or null")
        if free_bits is not None and capacity is not None:
            raise ValueError(
                f"free_bits={free_bits} and capacity={capacity} are two terms in place of the KL: set one of them to "
                "null"
            )
        self.free_bits = free_bits
        self.capacity = capacity
        self.reads_batch = free_bits is not None or capacity is not None

    def current_weight(self, training: bool) -> float | Tensor:
        """Return the weight [] at the present progress of training; with `capacity` it is constant."""
        return super().current_weight(training) if self.capacity is None else self.weight

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the KL divergence in nats [B]."""
        return out.code.kl().sum(1)  # [B]

    def loss_term(self, model: Autoencoder, out: Forward) -> Tensor | None:
        """Return the term [] of `free_bits` or `capacity`, in nats; None without them."""
        if self.free_bits is not None:
            return out.code.kl().mean(0).clamp_min(self.free_bits).sum()
        if self.capacity is not None:
            capacity = self.capacity * self.schedule_factor(model.training)
            return (out.code.kl().sum(1).mean() - capacity).abs()
        return None


class L1(Penalty):
    """Sum of the absolute activations, of the code or of every hidden layer of the encoder, per image.

    Its gradient makes rectified units exactly 0. Linear units become small, but are never exactly 0.
    """

    description = "sum of the absolute activations of the code or of the hidden layers, before it is weighted"

    def __init__(
        self, weight: float = 1e-3, layers: Literal["code", "hidden"] = "code", **schedule: Unpack[WeightSettings]
    ) -> None:
        super().__init__(weight, **schedule)
        self.layers = layers

    @property
    def zeroes_code(self) -> bool:
        """Tell whether it reads the code."""
        return self.layers == "code"

    @property
    def zeroes_hidden(self) -> bool:
        """Tell whether it reads the hidden layers."""
        return self.layers == "hidden"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the sum [B]; without hidden layers it is that of the code."""
        activations = (out.code.z,) if self.layers == "code" or not out.hidden else out.hidden
        return torch.stack([h.flatten(1).abs().sum(1) for h in activations]).sum(0)  # [B]


class L2(Penalty):
    """Squared length of the code, |z|^2, per image: it keeps codes near 0, and thus near each other."""

    description = "squared length of the code"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared length [B]."""
        return out.code.z.square().sum(1)  # [B]


class Codebook(Penalty):
    """|sg(c) - e|^2, summed over the code's groups: moves codewords e to the continuous codes c rounded to them.

    sg stops the gradient. The second term of eq. 3 in van den Oord et al. (2017), arXiv:1711.00937.
    """

    reads = QuantizedCode
    description = "squared distance from encoder outputs to their codewords; its gradient moves the codewords"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared distance [B]."""
        code = cast(QuantizedCode, out.code)
        return (code.continuous.detach() - code.codewords).square().flatten(1).sum(1)  # [B]


class Commitment(Penalty):
    """|c - sg(e)|^2, summed over the code's groups: keeps continuous codes c near the codewords e they are rounded to.

    sg stops the gradient. The third term of eq. 3 in van den Oord et al. (2017), whose weight (beta) is 0.25.
    """

    reads = QuantizedCode
    description = "squared distance from encoder outputs to their codewords; its gradient moves the encoder"

    def __init__(self, weight: float = 0.25, **schedule: Unpack[WeightSettings]) -> None:
        super().__init__(weight, **schedule)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared distance [B]."""
        code = cast(QuantizedCode, out.code)
        return (code.continuous - code.codewords.detach()).square().flatten(1).sum(1)  # [B]


class KLSparsity(Penalty):
    """sum_j KL(target || rate_j) of Bernoulli rates, rate_j the batch mean of code unit j, which must be in (0, 1).

    Ng (2011), CS294A lecture notes "Sparse autoencoder", section 3.
    """

    reads_batch = True
    description = (
        "sum over the code's units of the KL divergence from the target rate to the mean activation of a batch, "
        "before it is weighted, nats"
    )

    def __init__(self, target: float, weight: float, **schedule: Unpack[WeightSettings]) -> None:
        super().__init__(weight, **schedule)
        if not 0 < target < 1:
            raise ValueError(f"target={target} is no rate: use a number between 0 and 1, such as 0.1")
        self.target = target

    @property
    def target_activation(self) -> float:
        """The target."""
        return self.target

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the KL divergence [] of the batch in nats; finite also where a unit is always 0 or always 1."""
        eps = torch.finfo(out.code.z.dtype).eps
        rate = out.code.z.mean(0).clamp(eps, 1 - eps)  # [D]
        target = torch.as_tensor(self.target, dtype=rate.dtype, device=rate.device)
        return (target * (target / rate).log() + (1 - target) * ((1 - target) / (1 - rate)).log()).sum()
