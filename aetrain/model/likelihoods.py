"""Likelihoods: what a decoder's numbers mean as a distribution of pixels, and how far an image is from it, in nats."""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["sum", "mean"]

EDGE = 1e-3  # how near to black and white `decoded_for` goes, where the exact answer would be infinite


class Likelihood(Protocol):
    """What the decoder's output says of the pixels."""

    reduction: Reduction  # of the pixels, in what training descends
    linear: bool  # whether the expected pixels are an affine function of what the decoder paints

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """-log p(x | decoded) in nats per image, [B], of pixels x in [0, 1]."""
        ...

    def constant(self, num_pixels: int) -> float:
        """What `nll` leaves out, in nats: with it, it is -log of a density of pixels in [0, 1]."""
        ...

    def mean(self, decoded: Tensor) -> Tensor:
        """The expected pixels, [B, C, H, W], on the scale from 0 to 1; a normal mean may lie outside of it."""
        ...

    def decoded_for(self, x: Tensor) -> Tensor:
        """What a decoder must paint for the expected pixels to be x, kept off the ends of a saturating scale."""
        ...


class Bernoulli:
    """Independent Bernoulli pixels; the decoder paints logits. For grey pixels it is the cross-entropy.

    nll = -sum_i x_i log p_i + (1 - x_i) log(1 - p_i) with p = sigmoid(decoded). It is a likelihood of black and white
    pixels. On grey ones its lowest value is their entropy, not zero, and nothing makes it sum to one.
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
        return F.binary_cross_entropy_with_logits(decoded, x, reduction="none").flatten(1).sum(1)

    def constant(self, num_pixels: int) -> float:
        return 0.0

    def mean(self, decoded: Tensor) -> Tensor:
        return torch.sigmoid(decoded)

    def decoded_for(self, x: Tensor) -> Tensor:
        return x.clamp(EDGE, 1 - EDGE).logit()


class Gaussian:
    """Independent normal pixels of one fixed variance around what the decoder paints.

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
        self.inverse = {"identity": lambda y: y, "sigmoid": torch.logit, "tanh": torch.atanh}[output]
        self.output = {"identity": lambda y: y, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[output]
        self.low, self.high = scale

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        target = x if (self.low, self.high) == (0, 1) else self.low + (self.high - self.low) * x
        return (self.output(decoded) - target).square().flatten(1).sum(1) / (2 * self.variance)

    def constant(self, num_pixels: int) -> float:
        """P (1/2 log(2 pi variance) - log(high - low)): the second term brings the density to pixels in [0, 1]."""
        return num_pixels * (0.5 * math.log(2 * math.pi * self.variance) - math.log(self.high - self.low))

    def mean(self, decoded: Tensor) -> Tensor:
        return (self.output(decoded) - self.low) / (self.high - self.low)

    def decoded_for(self, x: Tensor) -> Tensor:
        inside = x if self.linear else x.clamp(EDGE, 1 - EDGE)
        return self.inverse(self.low + (self.high - self.low) * inside)
