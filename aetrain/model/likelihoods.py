"""Likelihoods: the decoder's output as the parameters of a distribution of pixels. Their unit is the nat."""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["sum", "mean"]

# `inverse_mean` clamps pixels to this distance from black and white, where the exact answer would be infinite.
SATURATION_MARGIN = 1e-3


class Likelihood(Protocol):
    """A distribution of pixels [B, C, H, W] whose parameters are the decoder's output, of the same shape."""

    reduction: Reduction  # over pixels, in the loss that training minimises
    linear: bool  # True where the expected pixels are an affine function of the decoder's output

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x | decoded) of pixels x in [0, 1], in nats per image [B], without `constant`.

        Training descends this value. Recorded metrics called `nll` have the constant as well.
        """
        ...

    def constant(self, num_pixels: int) -> float:
        """Return the normalising constant that `nll` omits, in nats per image.

        nll + constant is -log of a probability density of pixels in [0, 1].
        """
        ...

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the expected pixels [B, C, H, W], scaled to [0, 1]; a normal mean may lie outside of that range."""
        ...

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the decoder output whose expected pixels are x [B, C, H, W]; finite also where `mean` saturates."""
        ...


class Bernoulli:
    """Independent Bernoulli pixels; the decoder's output are logits. For grey pixels nll is the cross-entropy.

    nll = -sum_i x_i log p_i + (1 - x_i) log(1 - p_i) with p = sigmoid(decoded). It is a likelihood of black and white
    pixels. On grey ones its minimum is their entropy, not zero, and it is not normalised.
    """

    linear = False

    def __init__(self, reduction: Reduction = "sum", scale: tuple[float, float] = (0.0, 1.0)) -> None:
        self.reduction = reduction
        if tuple(scale) != (0, 1):
            raise ValueError(
                f"likelihood=bernoulli needs pixels in [0, 1], but dataset.scale={list(scale)}: "
                "use likelihood=gaussian or dataset.scale=[0,1]"
            )

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return the cross-entropy of pixels x in [0, 1], in nats per image [B]."""
        return F.binary_cross_entropy_with_logits(decoded, x, reduction="none").flatten(1).sum(1)

    def constant(self, num_pixels: int) -> float:
        """Return 0: `nll` is already normalised over black and white images."""
        return 0.0

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the probability of white, per pixel [B, C, H, W]."""
        return torch.sigmoid(decoded)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the logits [B, C, H, W] of pixels x, clamped to SATURATION_MARGIN from 0 and 1."""
        return x.clamp(SATURATION_MARGIN, 1 - SATURATION_MARGIN).logit()


def identity(y: Tensor) -> Tensor:
    """Return y. It is a function of the module, so that a model can be pickled."""
    return y


class Gaussian:
    """Independent normal pixels of one fixed variance, with mean output(decoded).

    nll = sum_i (x_i - mean_i)^2 / (2 variance), without the constant that no parameter changes. At the default
    variance of one half this is the squared error. `output` is the decoder's last activation. Errors are those of
    pixels in the data set's `scale`.
    """

    def __init__(
        self,
        variance: float = 0.5,
        output: Literal["identity", "sigmoid", "tanh"] = "identity",
        reduction: Reduction = "sum",
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        if not variance > 0:
            raise ValueError(f"variance={variance} is not positive: use a number above 0")
        self.variance = variance
        self.reduction = reduction
        self.linear = output == "identity"
        inverses: dict[str, Callable[[Tensor], Tensor]] = {
            "identity": identity,
            "sigmoid": torch.logit,
            "tanh": torch.atanh,
        }
        outputs: dict[str, Callable[[Tensor], Tensor]] = {
            "identity": identity,
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
        }
        self.inverse_output, self.output = inverses[output], outputs[output]
        self.low, self.high = scale

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return the squared error over twice the variance, in nats per image [B], of pixels x in [0, 1]."""
        target = x if (self.low, self.high) == (0, 1) else self.low + (self.high - self.low) * x
        return (self.output(decoded) - target).square().flatten(1).sum(1) / (2 * self.variance)

    def constant(self, num_pixels: int) -> float:
        """Return the normalising constant P (1/2 log(2 pi variance) - log(high - low)) of P pixels, in nats.

        The second term converts the density of pixels in [low, high] to one of pixels in [0, 1].
        """
        return num_pixels * (0.5 * math.log(2 * math.pi * self.variance) - math.log(self.high - self.low))

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the means [B, C, H, W], scaled from [low, high] to [0, 1]."""
        return (self.output(decoded) - self.low) / (self.high - self.low)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the decoder output [B, C, H, W] with mean x; x is clamped where the output activation saturates."""
        reachable = x if self.linear else x.clamp(SATURATION_MARGIN, 1 - SATURATION_MARGIN)
        return self.inverse_output(self.low + (self.high - self.low) * reachable)
