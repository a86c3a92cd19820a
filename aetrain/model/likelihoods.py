"""Likelihoods: the decoder's output as the parameters of a distribution of an example's values. Their unit is the nat.

Here are the base class and the distributions of pixels and of real numbers. `count_likelihoods.py` has those of counts
and categories, `discretized_logistic.py` that of 8-bit pixels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.records import Kind

Reduction = Literal["sum", "mean"]
Learned = Literal["learned", "learned_per_feature"]
Output = Literal["identity", "sigmoid", "tanh"]
Support = Literal["real", "unit interval", "nonnegative", "one-hot", "8-bit"]  # the values that have a likelihood

# `inverse_mean` clamps pixels to this distance from black and white, where the exact answer would be infinite.
SATURATION_MARGIN = 1e-3

# A learned spread stays above the minimum, also that of a constant feature, and begins at the initial value.
MIN_VARIANCE, INITIAL_VARIANCE = 1e-4, 0.1
MIN_DEVIATION, INITIAL_DEVIATION = 1e-2, 0.2


class Likelihood(nn.Module, ABC):
    """A distribution of values [B, C, H, W] whose parameters are the decoder's output, of the same shape.

    Parameters that are learned and do not depend on the code, such as a variance, are parameters of the module. Missing
    values are NaN. `nll` sums over the observed ones where `has_missing` is set, and reads no mask where it is not.
    """

    linear: bool = False  # True where the expected values are an affine function of the decoder's output
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))  # of examples that it is a distribution of
    support: ClassVar[Support] = "real"
    is_density: ClassVar[bool] = False  # whether exp(-nll) is a density, not a probability of discrete values
    reports_bits_per_dim: ClassVar[bool] = False  # whether a metric has the nll in bits per value, as for 8-bit images

    def __init__(self, reduction: Reduction = "sum") -> None:
        super().__init__()
        self.reduction = reduction  # over values, in the loss that training minimises
        self.has_missing = False  # whether values may be missing
        self.has_integers = True  # whether the data are whole numbers, of which counts have a probability

    @abstractmethod
    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x | decoded) of the observed values of x, in nats per example [B], without the constants.

        Training descends this value. Recorded metrics called `nll` have `constant` and `data_constant` as well. All
        that depends on a parameter of the module, or on the number of observed values, is in this value.
        """

    def constant(self, num_features: int) -> float:
        """Return the part of the normalising constant that `nll` omits and all examples share, in nats per example."""
        return 0.0

    def data_constant(self, x: Tensor) -> Tensor | None:
        """Return the part of the normalising constant that `nll` omits and x alone decides, [B]; None where none is."""
        return None

    def neg_log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return `nll` with all constants, [B]: minus the log of a density or of a probability, in nats."""
        nll = self.nll(decoded, x) + self.constant(x[:1].numel())
        constant = self.data_constant(x)
        return nll if constant is None else nll + constant

    @abstractmethod
    def mean(self, decoded: Tensor) -> Tensor:
        """Return the expected values [B, C, H, W]; pixels scaled to [0, 1], a normal mean may lie outside of it."""

    @abstractmethod
    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the decoder output whose expected values are x [B, C, H, W]; finite also where `mean` saturates."""

    def expected(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return the expected values [B, C, H, W] to compare with x: `mean`, or counts of the same total as x."""
        return self.mean(decoded)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ValueError where the settings do not fit examples of this shape; called before data is read."""

    def check_values(self, low: float, high: float) -> None:
        """Raise ValueError where values from `low` to `high`, of training examples, have no likelihood."""
        bounds = {"unit interval": (0, 1), "one-hot": (0, 1), "8-bit": (0, 1), "nonnegative": (0, math.inf)}
        smallest, largest = bounds.get(self.support, (-math.inf, math.inf))
        if low < smallest or high > largest:
            needed = "values of 0 or more" if largest == math.inf else "values from 0 to 1"
            raise ValueError(
                f"likelihood={option_name(self)} needs {needed}, but training examples have values from {low:g} to "
                f"{high:g}: use likelihood=gaussian"
            )

    def observed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return x with 0 in place of missing values, and which are observed; x and None where none may be missing."""
        if not self.has_missing:
            return x, None
        mask = ~x.isnan()
        return torch.where(mask, x, 0.0), mask


def option_name(likelihood: Likelihood) -> str:
    """Return the name of a likelihood's option in configs/likelihood."""
    letters = [f"_{letter.lower()}" if letter.isupper() else letter for letter in type(likelihood).__name__]
    return "".join(letters).removeprefix("_")


def sum_observed(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sum of an example's values [B, ...] where `mask` is True, or of all where it is None, [B]."""
    if mask is not None:
        values = values.masked_fill(~mask, 0.0)
    return values.flatten(1).sum(1)


class Bernoulli(Likelihood):
    """Independent Bernoulli pixels; the decoder's output are logits. For grey pixels nll is the cross-entropy.

    nll = -sum_i x_i log p_i + (1 - x_i) log(1 - p_i) with p = sigmoid(decoded). It is a likelihood of black and white
    pixels. On grey ones its minimum is their entropy, not zero, and it is not normalised.
    """

    support = "unit interval"

    def __init__(self, reduction: Reduction = "sum", scale: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(reduction)
        check_unit_scale("bernoulli", "pixels in [0, 1]", scale)

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return the cross-entropy of values x in [0, 1], in nats per example [B]."""
        x, mask = self.observed(x)
        return sum_observed(F.binary_cross_entropy_with_logits(decoded, x, reduction="none"), mask)

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the probability of white, per pixel [B, C, H, W]."""
        return torch.sigmoid(decoded)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the logits [B, C, H, W] of pixels x, clamped to SATURATION_MARGIN from 0 and 1."""
        return x.clamp(SATURATION_MARGIN, 1 - SATURATION_MARGIN).logit()


def check_unit_scale(name: str, needs: str, scale: tuple[float, float]) -> None:
    """Raise ValueError where the likelihood `name`, which needs values as they are, would get them in another scale."""
    if tuple(scale) != (0, 1):
        raise ValueError(
            f"likelihood={name} needs {needs}, but dataset.scale={list(scale)}: "
            "use likelihood=gaussian or dataset.scale=[0,1]"
        )


def identity(y: Tensor) -> Tensor:
    """Return y. It is a function of the module, so that a model can be pickled."""
    return y


class _LocationScale(Likelihood):
    """Independent values of one family, with mean output(decoded) and a spread that is fixed, or learned.

    nll = sum_i distance(x_i - mean_i) / (factor * spread), plus the constant where the spread is learned or values are
    missing. Errors are those of values in the data set's `scale`.
    """

    is_density = True
    factor: ClassVar[float]
    minimum: ClassVar[float]
    initial: ClassVar[float]

    def __init__(
        self,
        spread: float | Learned,
        output: Output,
        reduction: Reduction,
        scale: tuple[float, float],
        image_shape: tuple[int, int, int] | None,
    ) -> None:
        super().__init__(reduction)
        self.spread = self.initial if isinstance(spread, str) else spread
        self.log_spread = learned_logarithm(spread, self.initial, image_shape) if isinstance(spread, str) else None
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

    @abstractmethod
    def distance(self, error: Tensor) -> Tensor:
        """Return the distance of each error from 0."""

    @abstractmethod
    def log_normalizer(self, spread: Tensor) -> Tensor:
        """Return the log of the integral of exp(-distance / (factor * spread))."""

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return minus the log density of the observed values x, in nats per example [B].

        Without missing values and with a fixed spread the constant is left out.
        """
        x, mask = self.observed(x)
        target = x if (self.low, self.high) == (0, 1) else self.low + (self.high - self.low) * x
        distances = self.distance(self.output(decoded) - target)
        if self.log_spread is None and mask is None:
            return distances.flatten(1).sum(1) / (self.factor * self.spread)
        spread = self.present_spread()
        constants = self.log_normalizer(spread) - math.log(self.high - self.low)
        return sum_observed(distances / (self.factor * spread) + constants, mask)

    def present_spread(self) -> Tensor:
        """Return the spread, [] or [C, H, W]: the learned one, or the fixed one."""
        return torch.as_tensor(self.spread) if self.log_spread is None else self.minimum + self.log_spread.exp()

    def constant(self, num_features: int) -> float:
        """Return the normalising constant of `num_features` values; 0 where `nll` has it.

        Its second term converts the density of values in [low, high] to one of values in [0, 1].
        """
        if self.log_spread is not None or self.has_missing:
            return 0.0
        log_normalizer = self.log_normalizer(torch.tensor(self.spread, dtype=torch.float64)).item()
        return num_features * (log_normalizer - math.log(self.high - self.low))

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the means [B, C, H, W], scaled from [low, high] to [0, 1]."""
        return (self.output(decoded) - self.low) / (self.high - self.low)

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the decoder output [B, C, H, W] with mean x; x is clamped where the output activation saturates."""
        reachable = x if self.linear else x.clamp(SATURATION_MARGIN, 1 - SATURATION_MARGIN)
        return self.inverse_output(self.low + (self.high - self.low) * reachable)


def learned_logarithm(kind: Learned, initial: float, image_shape: tuple[int, int, int] | None) -> nn.Parameter:
    """Return the log of a positive number that is learned: one for all features [], or one for each [C, H, W]."""
    if kind == "learned":
        return nn.Parameter(torch.tensor(math.log(initial)))
    if image_shape is None:
        raise ValueError("one number for each feature is learned, but image_shape is None: give the shape (C, H, W)")
    return nn.Parameter(torch.full(image_shape, math.log(initial)))


class Gaussian(_LocationScale):
    """Independent normal values with mean output(decoded).

    nll = sum_i (x_i - mean_i)^2 / (2 variance), without the constant that no parameter changes. At the default
    variance of one half this is the squared error. `output` is the decoder's last activation. Errors are those of
    values in the data set's `scale`. A variance may be `learned` with the weights, one for all features or one for
    each, and is then at least MIN_VARIANCE; nll has the constant.
    """

    factor, minimum, initial = 2, MIN_VARIANCE, INITIAL_VARIANCE

    def __init__(
        self,
        variance: float | Learned = 0.5,
        output: Output = "identity",
        reduction: Reduction = "sum",
        scale: tuple[float, float] = (0.0, 1.0),
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        _check_positive("variance", variance)
        super().__init__(variance, output, reduction, scale, image_shape)

    @property
    def variance(self) -> Tensor:
        """The variance, [] or [C, H, W]: the learned one, or the fixed one."""
        return self.present_spread()

    def distance(self, error: Tensor) -> Tensor:
        """Return the square."""
        return error.square()

    def log_normalizer(self, spread: Tensor) -> Tensor:
        """Return 1/2 log(2 pi variance)."""
        return 0.5 * (2 * math.pi * spread).log()


class Laplace(_LocationScale):
    """Independent values with a Laplace distribution around output(decoded): the absolute error.

    nll = sum_i abs(x_i - mean_i) / deviation. `deviation` is the distribution's scale b, the mean absolute deviation;
    `torch.distributions.Laplace` calls it scale. It may be `learned` as the variance of `Gaussian`, and is then at
    least MIN_DEVIATION.
    """

    factor, minimum, initial = 1, MIN_DEVIATION, INITIAL_DEVIATION

    def __init__(
        self,
        deviation: float | Learned = 1.0,
        output: Output = "identity",
        reduction: Reduction = "sum",
        scale: tuple[float, float] = (0.0, 1.0),
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        _check_positive("deviation", deviation)
        super().__init__(deviation, output, reduction, scale, image_shape)

    @property
    def deviation(self) -> Tensor:
        """The mean absolute deviation, [] or [C, H, W]: the learned one, or the fixed one."""
        return self.present_spread()

    def distance(self, error: Tensor) -> Tensor:
        """Return the absolute value."""
        return error.abs()

    def log_normalizer(self, spread: Tensor) -> Tensor:
        """Return log(2 deviation)."""
        return (2 * spread).log()


def _check_positive(name: str, value: float | str) -> None:
    if not isinstance(value, str) and not value > 0:
        raise ValueError(f"{name}={value} is not positive: use a number above 0, learned or learned_per_feature")
