"""Convolutional autoencoders: halve the picture level by level, code it, and grow it back."""

import itertools
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layers import (
    Activation,
    Activations,
    Init,
    activation_named,
    activations_named,
    decoder_taps,
    decoding,
    hidden_taps,
    initialise,
)
from aetrain.model.likelihoods import Likelihood
from aetrain.model.records import Code, Encoded, Tap

Down = Literal["stride", "maxpool"]
Up = Literal["transpose", "nearest", "unpool"]
Size = tuple[int, int]


class ConvEncoder(nn.Module):
    """Convolutions that halve height and width (rounded up): by a stride of two, or by max-pooling with switches."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        kernel: int,
        down: Down,
        activation: Activations,
        remember: bool = False,
    ) -> None:
        super().__init__()
        self.down = down
        self.remember = remember  # whether a decoder asks where the maxima were
        widths = [image_shape[0], *channels]
        stride = 2 if down == "stride" else 1
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, kernel, stride=stride, padding=kernel // 2) for i, o in itertools.pairwise(widths)
        )
        self.activations = activations_named(activation, len(channels))
        self.sizes: list[Size] = [image_shape[1:]]  # of every level, the picture's first
        for _ in channels:
            height, width = self.sizes[-1]
            self.sizes.append((-(-height // 2), -(-width // 2)))
        self.num_features = widths[-1] * self.sizes[-1][0] * self.sizes[-1][1]

    def forward(self, x: Tensor) -> Encoded:
        hidden, where = [], []
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))  # [B, channels, h, w]
            hidden.append(x)
            if self.down == "maxpool":
                x, switches = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
                where += [switches] if self.remember else []
        return Encoded(hidden=tuple(hidden), features=x.flatten(1), where=tuple(where))

    def first_layer(self) -> Tensor:
        return cast(Tensor, self.layers[0].weight)

    def taps(self) -> list[Tap]:
        return hidden_taps(self.activations, self.first_layer())


class ConvDecoder(nn.Module):
    """A dense layer paints the smallest maps; each level then grows them to the size the encoder had there.

    `transpose` is a transposed convolution of stride two, `nearest` repeats values and convolves, `unpool` puts each
    value where the encoder's maximum was and zeros elsewhere, then convolves (Zeiler & Fergus 2014, section 2.1). A
    code without switches, such as a draw from the prior, is unpooled to the top left pixel of each square.
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
        widths = list(reversed(channels))  # of the maps, smallest first; the last entry is the picture's
        self.sizes = list(reversed(sizes))
        self.smallest = (widths[0], *self.sizes[0])
        self.expand = nn.Linear(code_dim, widths[0] * self.sizes[0][0] * self.sizes[0][1])
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(
                i,
                o,
                kernel,
                stride=2,
                padding=kernel // 2,
                output_padding=(large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1),
            )
            if up == "transpose"
            else nn.Conv2d(i, o, kernel, padding=kernel // 2)
            for i, o, small, large in zip(widths[:-1], widths[1:], self.sizes[:-1], self.sizes[1:], strict=True)
        )

    def forward(self, code: Code) -> Tensor:
        x = self.activations[0](self.expand(code.z).unflatten(1, self.smallest))  # [B, channels, h, w]
        levels = list(zip(self.layers, self._switches(code, x), self.sizes[1:], strict=True))
        for level, (layer, switches, size) in enumerate(levels):
            match self.up:
                case "nearest":
                    x = F.interpolate(x, size=size)
                case "unpool":
                    x = F.max_unpool2d(x, top_left(x, size) if switches is None else switches, (2, 2), output_size=size)
            x = layer(x)
            if level < len(levels) - 1:
                x = self.activations[level + 1](x)
        return x

    @property
    def output_bias(self) -> nn.Parameter:
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        return decoder_taps(self.activations)

    def _switches(self, code: Code, x: Tensor) -> Sequence[Tensor | None]:
        """One set of switches a level, smallest maps first; None where the code remembers none."""
        return list(reversed(code.where)) if code.where else [None] * len(self.layers)


def top_left(x: Tensor, size: Size) -> Tensor:
    """Switches that put each value of x [B, C, h, w] at the top left of its square in a map of `size`."""
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
    """image - convolutions that halve it - code - the mirror of them - image."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel} has no middle: use an odd size such as 3 or 5")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)} must name 1 or more maps for at least one level")
    if up == "unpool" and down != "maxpool":
        raise ValueError(f"model.up=unpool needs switches, but model.down={down} keeps none: use model.down=maxpool")
    encoder = ConvEncoder(image_shape, channels, kernel, down, activation, remember=up == "unpool")
    neck = bottleneck(encoder.num_features, code_dim)
    decoder = ConvDecoder(
        code_dim, [image_shape[0], *channels], encoder.sizes, kernel, up, decoding(encoder.activations)
    )
    finish = activation_named(code_activation or "identity")
    model = Autoencoder(encoder, neck, decoder, likelihood, finish, sparsifier, image_shape, scale)
    initialise(model, init)
    # Pooling on a CPU is faster where a pixel's channels lie side by side.
    return model.to(memory_format=torch.channels_last) if down == "maxpool" else model
