"""Corruptions of the encoder's input: batches [B, C, H, W] to batches of the same shape, of images in [0, 1] both.

Masking and salt-and-pepper are those of Vincent et al. (2010), "Stacked denoising autoencoders", section 3.3. A kind of
noise with a method `at_level` is compared with the others by `measures=robustness` and by the view `noise_map`. One
with a method `for_kind` is another one for vectors than for images, or means nothing there.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NoReturn, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.data.noise_of_missing import BlurOfKnown, Hide, NoiseOfKnown
from aetrain.model.records import DATA_WORDS, Kind

ImageShape = tuple[int, int, int]  # channels, height, width

BLUR_REACH = 4.0  # of the kernel of a blur, in standard deviations: the weights beyond sum to less than 1e-4
MIN_POISSON_LEVEL = 1e-3  # a quarter of a grey level of 8 bits: less noise is none, and its `peak` has no bound
MAX_LEVEL_SIGMA = 0.25  # of a blur at level 1, as a share of the shorter side of an image


class Noise(Protocol):
    """A corruption. Every random number comes from `generator`, or from the global one where it is None."""

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor: ...


def noise_for(noise: Noise, kind: Kind, has_missing: bool = False) -> Noise:
    """Return a noise as it is for examples of a kind: vectors have no range to clip to.

    `has_missing` tells whether values may be missing (NaN), which stay missing. Raise ValueError where the noise means
    nothing there. A noise without the method `for_kind` is the same for all kinds.
    """
    for_kind: Callable[[Kind, bool], Noise] | None = getattr(noise, "for_kind", None)
    fitting = noise if for_kind is None else for_kind(kind, has_missing)
    return NoiseOfKnown(fitting) if has_missing and not getattr(fitting, "handles_missing", False) else fitting


def _refuse(name: str, kind: Kind) -> NoReturn:
    raise ValueError(f"{name} is noise of images, and the data set has {DATA_WORDS[kind]}: use gaussian or masking")


class LeveledNoise(Noise, Protocol):
    """A kind of noise whose strength is one number, the level: 0 changes no pixel, 1 is the most that is compared."""

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return this kind of noise at a level from 0 to 1, for images [C, H, W]; other settings stay as they are."""
        ...


@dataclass(frozen=True)
class NoNoise:
    """No noise."""

    handles_missing: ClassVar[bool] = True

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the tensor x itself."""
        return x


@dataclass(frozen=True)
class Gaussian:
    """x + std * epsilon with standard normal epsilon; pixels are clipped to [0, 1] where `clip`."""

    std: float = 0.3
    clip: bool = True

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std={self.std} is negative: use a standard deviation of 0 or more")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        noisy = torch.empty_like(x).normal_(0, self.std, generator=generator).add_(x)
        return noisy.clamp_(0, 1) if self.clip else noisy

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the noise without clipping for other examples than images."""
        return self if kind == "image" else replace(self, clip=False)

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the noise whose `std` is the level."""
        return replace(self, std=level)


@dataclass(frozen=True)
class Replace:
    """Each pixel, with probability `p`, becomes white (1) with probability `white`, else black (0).

    A value of a vector becomes 1 or 0, too: 0 is the mean of a standardised one. Black alone is masking noise, white
    alone salt, half of each salt-and-pepper.
    """

    p: float
    white: float

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("white", self.white)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is no probability: use a number from 0 to 1")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        # One uniform draw decides both: a pixel below p * white turns white, one from there to p turns black.
        u = torch.empty_like(x).uniform_(generator=generator)
        # Products with 0 and 1, since masked_fill takes 4 times as long for random masks on a CPU. They are not in
        # place, because a pack of runs may have tensors of `p` and `white`.
        noisy = u.ge(self.p).to(x.dtype) * x
        white: object = self.white
        is_black = not isinstance(white, Tensor) and white == 0
        return noisy if is_black else noisy + u.lt(self.p * self.white).to(x.dtype)

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return noise that hides the values where values may be missing and all corrupted ones become 0."""
        return Hide(self.p) if has_missing and self.white == 0 else self

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the noise that replaces the share `level` of the pixels."""
        return replace(self, p=level)


@dataclass(frozen=True)
class Speckle:
    """x + x * std * epsilon with standard normal epsilon: black pixels stay black; they are clipped where `clip`.

    Lee (1980), "Digital image enhancement and noise filtering by use of local statistics" (multiplicative noise); with
    a normal factor in Hendrycks & Dietterich (2019), "Benchmarking neural network robustness to common corruptions and
    perturbations".
    """

    std: float = 0.5
    clip: bool = True

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std={self.std} is negative: use a standard deviation of 0 or more")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        noisy = torch.empty_like(x).normal_(0, self.std, generator=generator).mul_(x).add_(x)
        return noisy.clamp_(0, 1) if self.clip else noisy

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the noise without clipping for other examples than images."""
        return self if kind == "image" else replace(self, clip=False)

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the noise whose `std` is the level."""
        return replace(self, std=level)


@dataclass(frozen=True)
class Poisson:
    """Photon counts of a dim image: n / peak with n ~ Poisson(x * peak), clipped to [0, 1] where `clip`.

    `peak` is the mean count of a white pixel. Before clipping, a pixel x has the mean x and the standard deviation
    sqrt(x / peak). It is the shot noise of Hendrycks & Dietterich (2019), "Benchmarking neural network robustness to
    common corruptions and perturbations".
    """

    peak: float = 10.0
    clip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.peak < math.inf:
            raise ValueError(f"peak={self.peak} is no mean count of photons: use a finite number above 0")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noisy images [B, C, H, W]."""
        noisy = torch.poisson(x * self.peak, generator=generator).div_(self.peak)
        return noisy.clamp_(0, 1) if self.clip else noisy

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the noise without clipping for counts; vectors and ratings may be negative or missing."""
        if kind == "counts":
            return replace(self, clip=False)
        return self if kind == "image" else _refuse("poisson", kind)

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the noise under which a white pixel has the level as standard deviation: `peak` is 1 / level^2."""
        return NoNoise() if level < MIN_POISSON_LEVEL else replace(self, peak=1 / level**2)


@dataclass(frozen=True)
class Block:
    """A square of `size` x `size` pixels at a random place of each image is black: cutout.

    DeVries & Taylor (2017), "Improved regularization of convolutional neural networks with cutout". Here the square is
    always inside the image; in the paper its centre is, so that the image's edge may cut it. A square that is larger
    than the image covers all of it. Images of one pixel have no places to choose from and stay as they
    are, as do the hidden units of layer-wise pretraining.
    """

    size: int = 6

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size={self.size} is negative: use a number of pixels of 0 or more")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the corrupted images [B, C, H, W]."""
        height, width = x.shape[2:]
        if self.size == 0 or height == width == 1:
            return x
        u = torch.rand(2, len(x), 1, 1, dtype=x.dtype, device=x.device, generator=generator)
        in_rows, in_columns = self._covered(u[0], height), self._covered(u[1], width)  # [B, 1, H], [B, 1, W]
        return x.masked_fill(in_rows.transpose(1, 2)[:, None] & in_columns[:, None], 0.0)

    def _covered(self, u: Tensor, count: int) -> Tensor:
        """Return which of `count` pixels in a line the squares cover, [B, 1, count], for uniform draws u [B, 1, 1]."""
        size = min(self.size, count)
        first = (u * (count - size + 1)).floor().clamp(max=count - size)
        pixels = torch.arange(count, device=u.device)
        return (pixels >= first) & (pixels < first + size)

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the noise itself for images; only these have places."""
        return self if kind == "image" else _refuse("block", kind)

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the square whose area is the share `level` of the image's pixels, rounded to whole pixels a side."""
        _, height, width = image_shape
        return replace(self, size=round(math.sqrt(level * height * width)))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a standard deviation of `sigma` pixels; no pixel is random.

    The convolution with a normalised Gaussian, along rows, then along columns, since the Gaussian is separable:
    Gonzalez & Woods (2018), "Digital image processing", section 3.5. The image is reflected at its edges, around the
    centres of the outermost pixels, as often as the kernel requires: an image may be smaller than the kernel.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma={self.sigma} is no width of a blur: use a finite number of pixels of 0 or more")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the blurred images [B, C, H, W]; `generator` is not used."""
        reach = int(BLUR_REACH * self.sigma + 0.5)
        if reach == 0:
            return x
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / self.sigma) ** 2)
        kernel = (weights / weights.sum()).to(x)
        planes = x.flatten(0, 1)[:, None]  # [B * C, 1, H, W]
        planes = F.conv2d(_reflect(planes, 3, reach), kernel.view(1, 1, 1, -1))
        planes = F.conv2d(_reflect(planes, 2, reach), kernel.view(1, 1, -1, 1))
        return planes.view_as(x).clamp(0, 1)

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the noise for images, whose known pixels alone are blurred; only images have neighbouring values."""
        if kind != "image":
            _refuse("blur", kind)
        return BlurOfKnown(self) if has_missing else self

    def at_level(self, level: float, image_shape: ImageShape) -> Noise:
        """Return the blur whose `sigma` is the level times a quarter of the image's shorter side."""
        return replace(self, sigma=level * MAX_LEVEL_SIGMA * min(image_shape[1:]))


def _reflect(x: Tensor, dim: int, reach: int) -> Tensor:
    """Return x with `reach` more entries at both ends of a dimension, reflected around the centres of the outermost."""
    count = x.shape[dim]
    period = max(1, 2 * (count - 1))
    index = torch.arange(-reach, count + reach, device=x.device) % period
    return x.index_select(dim, torch.minimum(index, period - index) if count > 1 else index)


@dataclass(frozen=True)
class NoiseSequence:
    """Several kinds of noise, one after the other: the output of one is the input of the next.

    `order` names every step once. It is a setting of its own because two configs that differ only in the order of the
    entries of `steps` count as equal.
    """

    handles_missing: ClassVar[bool] = True  # each step does

    order: Sequence[str] = ()
    steps: Mapping[str, Noise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if Counter(self.order) != Counter(self.steps.keys()):
            steps = ", ".join(self.steps) or "none"
            raise ValueError(f"order={list(self.order)} must name each of the steps once: the steps are {steps}")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the images [B, C, H, W] after all steps; the tensor x itself where no step changes it."""
        for name in self.order:
            x = self.steps[name](x, generator)
        return x

    def for_kind(self, kind: Kind, has_missing: bool = False) -> Noise:
        """Return the steps for examples of a kind."""
        return replace(self, steps={name: noise_for(step, kind, has_missing) for name, step in self.steps.items()})
