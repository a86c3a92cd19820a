"""Layers of maps [B, C, H, W]: paddings of TensorFlow and Keras, a faster transposed convolution, dense layers."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after `size` values for an output of size / stride, rounded up.

    The convention of TensorFlow and Keras (padding="same"): an odd number has one more zero after the values.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with an output of the input's size divided by the stride, rounded up (TensorFlow's "same")."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, C, ceil(H / stride), ceil(W / stride)]."""
        height, width = map(same_padding, x.shape[2:], self.kernel_size, self.stride)
        return super().forward(F.pad(x, (*width, *height)))


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution; to one channel on a CPU, a matrix product that `fold` adds up.

    There torch's own way takes two to three times as long (`python benchmarks/speed.py convolutions`).
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the maps [B, C, H, W]."""
        is_special = self.dilation != (1, 1) or output_size is not None or torch.compiler.is_compiling()  # or exporting
        if self.out_channels > 1 or x.device.type != "cpu" or is_special:
            return super().forward(x, output_size)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """Return the maps, without dilation, as a matrix product that `fold` adds up."""
        # As a product of batches: with a broadcast matrix, the gradient would be in an order that slows the next layer.
        weight = self.weight.flatten(1).T.expand(len(x), -1, -1)  # [B, kernel * kernel, channels of the input]
        kernel, stride, padding, extra = (
            cast(tuple[int, int], value) for value in (self.kernel_size, self.stride, self.padding, self.output_padding)
        )
        height, width = (
            (length - 1) * s - 2 * p + k + e
            for length, k, s, p, e in zip(x.shape[2:], kernel, stride, padding, extra, strict=True)
        )
        maps = F.fold(torch.bmm(weight, x.flatten(2)), (height, width), kernel, padding=padding, stride=stride)
        return maps if self.bias is None else maps + self.bias[:, None, None]


class SameConvTranspose2d(ConvTranspose2d):
    """A transposed convolution with an output of stride times the input's size (TensorFlow's "same").

    It is the gradient of `SameConv2d`. The kernel is at least as large as the stride.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the maps [B, C, stride * H, stride * W]."""
        maps = super().forward(x, output_size)
        for dim, size, kernel, stride in zip((2, 3), x.shape[2:], self.kernel_size, self.stride, strict=True):
            maps = maps.narrow(dim, (kernel - stride) // 2, stride * size)
        return maps


class DenseMaps(nn.Linear):
    """A dense layer from maps of one shape [C, H, W] to maps of another."""

    def __init__(self, maps: tuple[int, int, int], output_maps: tuple[int, int, int]) -> None:
        super().__init__(math.prod(maps), math.prod(output_maps))
        self.output_maps = output_maps

    def forward(self, x: Tensor) -> Tensor:
        """Return maps [B, C, H, W] for maps x."""
        return super().forward(x.flatten(1)).unflatten(1, self.output_maps)
