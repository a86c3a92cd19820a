"""Specifications of the layers of a convolutional model, each independent of the shape of its input."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from aetrain.model import layers
from aetrain.model.layers import Activation
from aetrain.model.map_layers import ConvTranspose2d, DenseMaps, SameConv2d, SameConvTranspose2d

Maps = tuple[int, int, int]  # channels, height, width
Padding = int | Literal["same"]  # same: n / stride values, rounded up, for n; stride * n after a transposed convolution


class LayerSpec(Protocol):
    """The specification of one layer, independent of the shape of its input.

    A spec of a layer with weights may have an `activation` of its own; without one it is the model's.
    """

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`, in a model of images of `image_shape`."""
        ...


@dataclass(frozen=True)
class Conv:
    """A convolution. `channels: null` means the image's own number, for the last layer."""

    channels: int | None
    kernel: int = 3
    stride: int = 1
    padding: Padding = 0
    activation: Activation | nn.Module | None = None

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        channels = self.channels or image_shape[0]
        if self.padding == "same":
            return SameConv2d(maps[0], channels, self.kernel, self.stride)
        return nn.Conv2d(maps[0], channels, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution, the gradient of a convolution: it spreads each value by the kernel, `stride` apart."""

    channels: int | None
    kernel: int = 3
    stride: int = 2
    padding: Padding = 0
    activation: Activation | nn.Module | None = None

    def __post_init__(self) -> None:
        if self.padding == "same" and self.kernel < self.stride:
            raise ValueError(f"kernel={self.kernel} is below stride={self.stride}: use a larger kernel, or padding: 0")

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        channels = self.channels or image_shape[0]
        if self.padding == "same":
            return SameConvTranspose2d(maps[0], channels, self.kernel, self.stride)
        return ConvTranspose2d(maps[0], channels, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer of `units`, maps of 1x1. `units: null` means the image, for the last layer."""

    units: int | None
    activation: Activation | nn.Module | None = None

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        return DenseMaps(maps, image_shape if self.units is None else (self.units, 1, 1))


@dataclass(frozen=True)
class Unflatten:
    """The values of all maps, in order, as maps of another shape."""

    channels: int
    height: int
    width: int

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (self.channels, self.height, self.width)))


@dataclass(frozen=True)
class Dropout:
    """Values set to 0 with probability `p` in training, the others divided by 1 - p (Srivastava et al. 2014)."""

    p: float = 0.5

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer."""
        return layers.Dropout(self.p)


@dataclass(frozen=True)
class Pool:
    """Max-pooling over squares of `kernel` pixels, or over the whole map where it is smaller."""

    kernel: int = 2
    stride: int = 2

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        _, height, width = maps
        return nn.MaxPool2d((min(self.kernel, height), min(self.kernel, width)), self.stride)


@dataclass(frozen=True)
class Repeat:
    """Every value repeated `factor` times in both directions."""

    factor: int = 2

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """Return the layer that reads maps of shape `maps`."""
        return nn.Upsample(scale_factor=self.factor)
