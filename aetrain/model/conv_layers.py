"""Convolutional autoencoders specified layer by layer, as papers and tutorials print them."""

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layer_specs import (
    Conv,
    Dense,
    Dropout,
    LayerSpec,
    Maps,
    Pool,
    Repeat,
    Transposed,
    Unflatten,
)
from aetrain.model.layers import Activation, Init, decoder_taps, hidden_taps, initialise, make_activation
from aetrain.model.likelihoods import Likelihood
from aetrain.model.networks import Decoder, Encoder
from aetrain.model.records import Encoded, Tap

__all__ = ["Conv", "Dense", "Dropout", "Pool", "Repeat", "Transposed", "Unflatten", "conv_layers"]


def build_layers(
    side: str, specs: Mapping[str, LayerSpec], maps: Maps, image_shape: Maps, activation: Activation | nn.Module
) -> tuple[list[nn.Module], list[nn.Module], Maps]:
    """Return the layers of one side, "encoder" or "decoder", their activations, and the shape of the last maps.

    The activation of a layer without weights is the identity. Raise ValueError with the name of the first layer that
    cannot read its input.
    """
    layers, activations = [], []
    for name, spec in specs.items():
        try:
            layer = spec(maps, image_shape)
            with torch.no_grad():
                _, channels, height, width = layer(torch.zeros(1, *maps)).shape
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            shape = "x".join(map(str, maps))
            raise ValueError(f"model.{side}.{name} cannot read maps of {shape}: {reason}") from error
        maps = channels, height, width
        layers.append(layer)
        own: Activation | nn.Module = getattr(spec, "activation", None) or activation
        activations.append(copy_activation(own) if has_weights(layer) else nn.Identity())
    return layers, activations, maps


def copy_activation(activation: Activation | nn.Module) -> nn.Module:
    """Return a new module of an activation that is a name or a module."""
    return copy.deepcopy(activation) if isinstance(activation, nn.Module) else make_activation(activation)


def is_convolution(layer: nn.Module) -> bool:
    """Return whether the layer is a convolution or a transposed one."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)


def has_weights(layer: nn.Module) -> bool:
    """Return whether the layer is a convolution or a dense layer: an activation follows these alone."""
    return is_convolution(layer) or isinstance(layer, nn.Linear)


class StackEncoder(Encoder):
    """Convolutions and dense layers, each with an activation, and poolings; the features are the last maps, flattened.

    Where the features are the code (`features_are_code`), the code's own activation replaces the last one with weights.
    After a pooling it has the same effect as before: an activation that never falls keeps the maximum where it is.
    """

    needs_images = True

    def __init__(
        self, layers: Sequence[nn.Module], activations: Sequence[nn.Module], maps: Maps, features_are_code: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.num_features = maps[0] * maps[1] * maps[2]
        last = max(i for i, layer in enumerate(layers) if has_weights(layer))
        self.activated = [
            has_weights(layer) and not (features_are_code and i == last) for i, layer in enumerate(layers)
        ]
        pairs = zip(activations, self.activated, strict=True)
        self.activations = nn.ModuleList(activation if activated else nn.Identity() for activation, activated in pairs)

    def forward(self, x: Tensor) -> Encoded:
        """Return the hidden activations, each [B, channels, h, w], and the features of images x [B, C, H, W]."""
        hidden = []
        for layer, activation, activated in zip(self.layers, self.activations, self.activated, strict=True):
            x = activation(layer(x))  # [B, channels, h, w]
            if activated:
                hidden.append(x)
        return Encoded(hidden=tuple(hidden), features=x.flatten(1))

    def first_layer_weights(self) -> Tensor:
        """Return the kernels [units, C, kernel, kernel] of the first convolution."""
        return cast(Tensor, next(layer.weight for layer in self.layers if is_convolution(layer)))

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers; the first has weights where it is a convolution of the pixels."""
        pairs = zip(self.activations, self.activated, strict=True)
        hidden = [module for module, activated in pairs if activated]
        reads_pixels = self.activated[0] and is_convolution(self.layers[0])
        return hidden_taps(hidden, self.first_layer_weights() if reads_pixels else None)


class StackDecoder(Decoder):
    """Map the code to maps by `expand`, then apply the layers, with no activation after the last one.

    An output of another size than the image's is resized to it, bilinearly.
    """

    def __init__(
        self, expand: nn.Module, layers: Sequence[nn.Module], activations: Sequence[nn.Module], image_shape: Maps
    ) -> None:
        super().__init__()
        self.expand = expand
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(activations[:-1])
        self.size = image_shape[1:]

    def forward(self, code: Code) -> Tensor:
        """Return the parameters of the likelihood [B, C, H, W]."""
        x = self.expand(code.z)  # [B, channels, h, w]
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        x = self.layers[-1](x)
        return x if x.shape[2:] == self.size else F.interpolate(x, size=self.size, mode="bilinear")

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last layer, one number a channel; a dense layer has one a pixel."""
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers: that of `expand`, if it has an activation, then those of the layers."""
        expanded = [self.expand[2]] if isinstance(self.expand, nn.Sequential) else []
        pairs = zip(self.activations, self.layers[:-1], strict=True)
        return decoder_taps([*expanded, *(module for module, layer in pairs if has_weights(layer))])


def conv_layers(
    image_shape: Maps,
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    encoder: Mapping[str, LayerSpec],
    decoder: Mapping[str, LayerSpec],
    code_dim: int | None = 32,
    activation: Activation | nn.Module = "relu",
    code_activation: Activation | None = None,
    bottleneck: MakeBottleneck = Deterministic,
    init: Init = "default",
) -> Autoencoder:
    """Return the model of the layers, in the order of their names. Without a `code_dim` the last maps are the code.

    A decoder whose first layer is dense reads the code; before another one, a dense layer maps the code to maps of the
    encoder's last shape. Raise ValueError where a layer cannot read its input, the encoder has no convolution, or the
    decoder does not end in a layer with the image's channels.
    """
    encoder_layers, encoder_activations, maps = build_layers("encoder", encoder, image_shape, image_shape, activation)
    reads_code = code_dim is not None and isinstance(next(iter(decoder.values()), None), Dense)
    start = (code_dim, 1, 1) if code_dim is not None and reads_code else maps
    decoder_layers, decoder_activations, output_maps = build_layers("decoder", decoder, start, image_shape, activation)
    check_layers(encoder_layers, decoder_layers, output_maps, image_shape)
    stack_encoder = StackEncoder(encoder_layers, encoder_activations, maps, features_are_code=code_dim is None)
    num_features = stack_encoder.num_features
    code_layer = bottleneck(num_features, code_dim or num_features)
    expand: nn.Module = nn.Unflatten(1, start)
    if code_dim is None:
        code_layer.register_module("project", nn.Identity())  # the features are the code, or its mean
    elif not reads_code:
        expand = nn.Sequential(nn.Linear(code_dim, num_features), expand, copy_activation(activation))
    model = Autoencoder(
        stack_encoder,
        code_layer,
        StackDecoder(expand, decoder_layers, decoder_activations, image_shape),
        likelihood,
        make_activation(code_activation or "identity"),
        sparsifier,
        image_shape,
        scale,
    )
    initialise(model, init)
    has_pooling = any(isinstance(layer, nn.MaxPool2d) for layer in encoder_layers)
    # Max-pooling on a CPU is faster where a pixel's channels lie side by side in memory.
    return model.to(memory_format=torch.channels_last) if has_pooling else model


def check_layers(
    encoder_layers: Sequence[nn.Module], decoder_layers: Sequence[nn.Module], output_maps: Maps, image_shape: Maps
) -> None:
    """Raise ValueError where the encoder has no convolution or the decoder does not end in one of images."""
    if not any(map(is_convolution, encoder_layers)):
        raise ValueError("model.encoder has no convolution: give it at least one")
    if not decoder_layers or not has_weights(decoder_layers[-1]) or output_maps[0] != image_shape[0]:
        raise ValueError(
            f"model.decoder must end in a convolution or a transposed one with the picture's {image_shape[0]} "
            "channels: use channels: null there, or a dense layer with units: null"
        )
