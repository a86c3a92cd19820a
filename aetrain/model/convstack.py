"""Convolutional autoencoders said layer by layer, as papers and tutorials print them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layers import Activation, Init, activation_named, decoder_taps, hidden_taps, initialise
from aetrain.model.likelihoods import Likelihood
from aetrain.model.records import Code, Encoded, Tap

Maps = tuple[int, int, int]  # channels, height, width


class Layer(Protocol):
    """A line of the description."""

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        """The layer that reads maps of that shape."""
        ...


@dataclass(frozen=True)
class Conv:
    """A convolution. `channels: null` are the picture's own, for the last layer."""

    channels: int | None
    kernel: int = 3
    stride: int = 1
    padding: int = 0

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        return nn.Conv2d(maps[0], self.channels or image_shape[0], self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution: a convolution's gradient, which spreads each value by the kernel `stride` apart."""

    channels: int | None
    kernel: int = 3
    stride: int = 2
    padding: int = 0

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        return nn.ConvTranspose2d(maps[0], self.channels or image_shape[0], self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Pool:
    """Max-pooling over squares of `kernel`, or over the whole map where it is smaller than that."""

    kernel: int = 2
    stride: int = 2

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        _, height, width = maps
        return nn.MaxPool2d((min(self.kernel, height), min(self.kernel, width)), self.stride)


@dataclass(frozen=True)
class Repeat:
    """Every value repeated `factor` times in both directions."""

    factor: int = 2

    def __call__(self, maps: Maps, image_shape: Maps) -> nn.Module:
        return nn.Upsample(scale_factor=self.factor)


def build_layers(side: str, layers: Mapping[str, Layer], maps: Maps, image_shape: Maps) -> tuple[nn.ModuleList, Maps]:
    """The layers, and the shape of the maps that come out of the last one. A ValueError names the one that fails."""
    built = nn.ModuleList()
    for name, layer in layers.items():
        try:
            module = layer(maps, image_shape)
            with torch.no_grad():
                _, channels, height, width = module(torch.zeros(1, *maps)).shape
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"model.{side}.{name} cannot read maps of {shown(maps)}: {reason}") from error
        maps = channels, height, width
        built.append(module)
    return built, maps


def shown(maps: Maps) -> str:
    """16 maps of 10x10, as 16x10x10."""
    return "x".join(map(str, maps))


def has_weights(layer: nn.Module) -> bool:
    """Whether an activation follows the layer: none follows a pooling."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)


class StackEncoder(nn.Module):
    """Convolutions, each with the activation behind it, and poolings; the features are the last maps, flattened.

    Where those are the code itself (`bare`), the last convolution's activation is left to the code: it is the same as
    an activation before the pooling, because those that never fall let the largest stay the largest.
    """

    def __init__(self, layers: Sequence[nn.Module], activation: Activation, maps: Maps, bare: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.num_features = maps[0] * maps[1] * maps[2]
        last = max(i for i, layer in enumerate(layers) if has_weights(layer))
        activated = [has_weights(layer) and not (bare and i == last) for i, layer in enumerate(layers)]
        self.activations = nn.ModuleList(activation_named(activation) if yes else nn.Identity() for yes in activated)
        self.activated = activated

    def forward(self, x: Tensor) -> Encoded:
        hidden = []
        for layer, activation, activated in zip(self.layers, self.activations, self.activated, strict=True):
            x = activation(layer(x))  # [B, channels, h, w]
            if activated:
                hidden.append(x)
        return Encoded(hidden=tuple(hidden), features=x.flatten(1))

    def first_layer(self) -> Tensor:
        return cast(Tensor, next(layer.weight for layer in self.layers if has_weights(layer)))

    def taps(self) -> list[Tap]:
        hidden = [module for module, yes in zip(self.activations, self.activated, strict=True) if yes]
        reads_pixels = self.activated[0]  # not a pooling's maps
        return hidden_taps(hidden, self.first_layer() if reads_pixels else None)


class StackDecoder(nn.Module):
    """The code as maps, or a dense layer that paints them from it; then the layers, with no activation at the end.

    What comes out in another size than the picture's is stretched to it, bilinearly.
    """

    def __init__(
        self, expand: nn.Module, layers: Sequence[nn.Module], activation: Activation, image_shape: Maps
    ) -> None:
        super().__init__()
        self.expand = expand
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(
            activation_named(activation) if has_weights(layer) else nn.Identity() for layer in layers[:-1]
        )
        self.size = image_shape[1:]

    def forward(self, code: Code) -> Tensor:
        x = self.expand(code.z)  # [B, channels, h, w]
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        x = self.layers[-1](x)
        return x if x.shape[2:] == self.size else F.interpolate(x, size=self.size, mode="bilinear")

    @property
    def output_bias(self) -> nn.Parameter:
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        first = [self.expand[2]] if isinstance(self.expand, nn.Sequential) else []
        layered = zip(self.activations, self.layers[:-1], strict=True)
        return decoder_taps([*first, *(module for module, layer in layered if has_weights(layer))])


def convstack(
    image_shape: Maps,
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    encoder: Mapping[str, Layer],
    decoder: Mapping[str, Layer],
    code_dim: int | None = 32,
    activation: Activation = "relu",
    code_activation: Activation | None = None,
    bottleneck: MakeBottleneck = Deterministic,
    init: Init = "default",
) -> Autoencoder:
    """The layers in the order of their names' appearance. Without a `code_dim` the code is the encoder's last maps."""
    down, maps = build_layers("encoder", encoder, image_shape, image_shape)
    up, painted = build_layers("decoder", decoder, maps, image_shape)
    if not any(map(has_weights, down)):
        raise ValueError("model.encoder has no convolution: give it at least one")
    if not up or not has_weights(up[-1]) or painted[0] != image_shape[0]:
        raise ValueError(
            f"model.decoder must end in a convolution or a transposed one with the picture's {image_shape[0]} "
            "channels: say channels: null there"
        )
    bare = code_dim is None
    reader = StackEncoder(list(down), activation, maps, bare)
    neck = bottleneck(reader.num_features, code_dim or reader.num_features)
    expand: nn.Module = nn.Unflatten(1, maps)
    if code_dim is None:
        neck.register_module("project", nn.Identity())  # the features are the code, or the mean of it
    else:
        expand = nn.Sequential(nn.Linear(code_dim, reader.num_features), expand, activation_named(activation))
    writer = StackDecoder(expand, list(up), activation, image_shape)
    finish = activation_named(code_activation or "identity")
    model = Autoencoder(reader, neck, writer, likelihood, finish, sparsifier, image_shape, scale)
    initialise(model, init)
    pools = any(isinstance(layer, nn.MaxPool2d) for layer in down)
    # Pooling on a CPU is faster where a pixel's channels lie side by side.
    return model.to(memory_format=torch.channels_last) if pools else model
