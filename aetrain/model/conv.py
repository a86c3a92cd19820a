"""Convolutional autoencoders: the encoder halves height and width level by level, the decoder doubles them again."""

import itertools
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layers import (
    Activation,
    Activations,
    Init,
    decoder_activations,
    decoder_taps,
    hidden_taps,
    initialise,
    make_activation,
    make_activations,
)
from aetrain.model.likelihoods import Likelihood
from aetrain.model.map_layers import ConvTranspose2d
from aetrain.model.networks import Decoder, Encoder
from aetrain.model.records import Encoded, Tap

Down = Literal["stride", "maxpool"]
Up = Literal["transpose", "nearest", "unpool"]
Size = tuple[int, int]  # height, width


class ConvEncoder(Encoder):
    """Convolutions that halve height and width (rounded up), by a stride of two or by max-pooling.

    With `return_pool_indices`, max-pooling also returns the position of each maximum, for a decoder that unpools.
    """

    needs_images = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        kernel: int,
        down: Down,
        activation: Activations,
        return_pool_indices: bool = False,
    ) -> None:
        super().__init__()
        self.down = down
        self.return_pool_indices = return_pool_indices
        widths = [image_shape[0], *channels]
        stride = 2 if down == "stride" else 1
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, kernel, stride=stride, padding=kernel // 2) for i, o in itertools.pairwise(widths)
        )
        self.activations = make_activations(activation, len(channels))
        self.sizes: list[Size] = [image_shape[1:]]  # of every level, the image's first
        for _ in channels:
            height, width = self.sizes[-1]
            self.sizes.append((-(-height // 2), -(-width // 2)))
        self.num_features = widths[-1] * self.sizes[-1][0] * self.sizes[-1][1]

    def forward(self, x: Tensor) -> Encoded:
        """Return the activations before pooling, each [B, channels, h, w], and the features of x [B, C, H, W]."""
        hidden, pool_indices = [], []
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))  # [B, channels, h, w]
            hidden.append(x)
            if self.down == "maxpool":
                x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
                if self.return_pool_indices:
                    pool_indices.append(indices)
        return Encoded(hidden=tuple(hidden), features=x.flatten(1), pool_indices=tuple(pool_indices))

    def first_layer_weights(self) -> Tensor:
        """Return the first layer's kernels [units, C, kernel, kernel]."""
        return cast(Tensor, self.layers[0].weight)

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers, before pooling."""
        return hidden_taps(self.activations, self.first_layer_weights())


class ConvDecoder(Decoder):
    """A dense layer produces the smallest maps; each level then enlarges them to the encoder's size at that level.

    `transpose` is a transposed convolution of stride two, `nearest` repeats values and convolves, `unpool` puts each
    value at the position of the encoder's maximum and zeros elsewhere, then convolves (Zeiler & Fergus 2014, section
    2.1). A code without pool indices, such as a draw from the prior, is unpooled to the top left pixel of each square.
    """

    def __init__(
        self,
        code_dim: int,
        channels: Sequence[int],
        sizes: Sequence[Size],
        kernel: int,
        up: Up,
        activations: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.up = up
        self.activations = nn.ModuleList(activations)
        widths = list(reversed(channels))  # of the maps, smallest first; the last entry is the image's channels
        self.sizes = list(reversed(sizes))
        self.smallest = (widths[0], *self.sizes[0])
        self.expand = nn.Linear(code_dim, widths[0] * self.sizes[0][0] * self.sizes[0][1])
        self.layers = nn.ModuleList()
        for (i, o), (small, large) in zip(itertools.pairwise(widths), itertools.pairwise(self.sizes), strict=True):
            if up == "transpose":
                self.layers.append(doubling_convolution(i, o, kernel, small, large))
            else:
                self.layers.append(nn.Conv2d(i, o, kernel, padding=kernel // 2))

    def forward(self, code: Code) -> Tensor:
        """Return the parameters of the likelihood [B, C, H, W]."""
        x = self.activations[0](self.expand(code.z).unflatten(1, self.smallest))  # [B, channels, h, w]
        levels = list(zip(self.layers, self._pool_indices(code), self.sizes[1:], strict=True))
        for level, (layer, indices, size) in enumerate(levels):
            match self.up:
                case "nearest":
                    x = F.interpolate(x, size=size)
                case "unpool":
                    positions = top_left_indices(x, size) if indices is None else indices
                    x = F.max_unpool2d(x, positions, (2, 2), output_size=size)
            x = layer(x)
            if level < len(levels) - 1:
                x = self.activations[level + 1](x)
        return x

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last layer, one number a channel."""
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers."""
        return decoder_taps(self.activations)

    def _pool_indices(self, code: Code) -> Sequence[Tensor | None]:
        """Return the pool indices of each level, smallest maps first; None where the code has none."""
        return list(reversed(code.pool_indices)) if code.pool_indices else [None] * len(self.layers)


def doubling_convolution(in_channels: int, out_channels: int, kernel: int, small: Size, large: Size) -> nn.Module:
    """Return a transposed convolution of stride two that enlarges maps of size `small` to `large`."""
    output_padding = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
    return ConvTranspose2d(
        in_channels, out_channels, kernel, stride=2, padding=kernel // 2, output_padding=output_padding
    )


def top_left_indices(x: Tensor, size: Size) -> Tensor:
    """Return pool indices [B, C, h, w] that put each value of x at the top left of its square in a map of `size`."""
    rows = torch.arange(x.shape[2], device=x.device)[:, None] * 2 * size[1]
    columns = torch.arange(x.shape[3], device=x.device)[None, :] * 2
    return (rows + columns).expand(x.shape)


def conv(
    image_shape: tuple[int, int, int],
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    code_dim: int,
    channels: Sequence[int] = (16, 32),
    kernel: int = 3,
    down: Down = "stride",
    up: Up = "transpose",
    activation: Activations = "relu",
    code_activation: Activation | None = None,
    bottleneck: MakeBottleneck = Deterministic,
    init: Init = "default",
) -> Autoencoder:
    """Return the model image - convolutions that halve it - code - the mirror of these convolutions - image.

    Raise ValueError where the kernel is even, a level has no maps, or `up=unpool` lacks the indices of `down=maxpool`.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel} has no middle: use an odd size such as 3 or 5")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)} must name 1 or more maps for at least one level")
    if up == "unpool" and down != "maxpool":
        raise ValueError(
            f"model.up=unpool needs max-pool indices, but model.down={down} has none: use model.down=maxpool"
        )
    encoder = ConvEncoder(image_shape, channels, kernel, down, activation, return_pool_indices=up == "unpool")
    code_layer = bottleneck(encoder.num_features, code_dim)
    activations = decoder_activations(encoder.activations)
    decoder = ConvDecoder(code_dim, [image_shape[0], *channels], encoder.sizes, kernel, up, activations)
    model = Autoencoder(
        encoder,
        code_layer,
        decoder,
        likelihood,
        make_activation(code_activation or "identity"),
        sparsifier,
        image_shape,
        scale,
    )
    initialise(model, init)
    # Max-pooling on a CPU is faster where a pixel's channels lie side by side in memory.
    return model.to(memory_format=torch.channels_last) if down == "maxpool" else model
