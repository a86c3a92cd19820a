"""Fully connected autoencoders: linear, deep and tied, and the dense variational ones, which swap the bottleneck."""

import itertools
from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Bottleneck, Deterministic
from aetrain.model.layers import (
    Activation,
    Activations,
    Init,
    TiedLinear,
    activation_named,
    activations_named,
    decoder_taps,
    decoding,
    hidden_taps,
    initialise,
)
from aetrain.model.likelihoods import Likelihood
from aetrain.model.records import Code, Encoded, Tap


class MakeBottleneck(Protocol):
    """A bottleneck class, or one with its own settings filled in."""

    def __call__(self, in_features: int, code_dim: int) -> Bottleneck: ...


class DenseEncoder(nn.Module):
    """h_0 = x, h_i = f_i(W_i h_{i-1} + b_i); without hidden layers the features are the pixels."""

    def __init__(self, image_shape: tuple[int, int, int], hidden: Sequence[int], activation: Activations) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, height, width = image_shape
        widths = [channels * height * width, *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.activations = activations_named(activation, len(self.layers))
        self.num_features = widths[-1]

    def forward(self, x: Tensor) -> Encoded:
        h = x.flatten(1)  # [B, C * H * W]
        hidden = []
        for layer, activation in zip(self.layers, self.activations, strict=True):
            h = activation(layer(h))  # [B, units]
            hidden.append(h)
        return Encoded(hidden=tuple(hidden), features=h)

    def first_layer(self) -> Tensor | None:
        return cast(Tensor, self.layers[0].weight).unflatten(1, self.image_shape) if len(self.layers) else None

    def taps(self) -> list[Tap]:
        return hidden_taps(self.activations, self.first_layer())


class DenseDecoder(nn.Module):
    """The encoder's mirror: a chain of linear layers, with the activations between them and none at the end."""

    def __init__(
        self, image_shape: tuple[int, int, int], layers: Sequence[nn.Module], activations: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(activations)

    def forward(self, code: Code) -> Tensor:
        h = code.z  # [B, D]
        *inner, last = self.layers
        for layer, activation in zip(inner, self.activations, strict=True):
            h = activation(layer(h))
        return last(h).unflatten(1, self.image_shape)  # [B, C, H, W]

    @property
    def output_bias(self) -> nn.Parameter:
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        return decoder_taps(self.activations)


def dense(
    image_shape: tuple[int, int, int],
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    code_dim: int,
    hidden: Sequence[int] = (),
    activation: Activations = "relu",
    code_activation: Activation | None = None,
    bottleneck: MakeBottleneck = Deterministic,
    tied: bool = False,
    init: Init = "default",
) -> Autoencoder:
    """pixels - hidden - code - hidden reversed - pixels.

    Without hidden layers it is the linear autoencoder, whose best squared error is that of PCA (Baldi & Hornik 1989).
    `tied` makes every decoder layer the transpose of its encoder layer. `activation` is that of all hidden layers, or
    a list with one for each of the encoder's; the decoder mirrors it.
    """
    for width in hidden:
        if width < 1:
            raise ValueError(f"hidden={list(hidden)} has a layer without units: use 1 or more in each")
    encoder = DenseEncoder(image_shape, hidden, activation)
    neck = bottleneck(encoder.num_features, code_dim)
    mirrored = [layer for layer in (neck.project, *reversed(encoder.layers)) if isinstance(layer, nn.Linear)]
    layers: list[nn.Module] = [
        TiedLinear(source) if tied else nn.Linear(source.out_features, source.in_features) for source in mirrored
    ]
    neck.decoded_by(layers[0])
    decoder = DenseDecoder(image_shape, layers, decoding(encoder.activations))
    finish = activation_named(code_activation or "identity")
    model = Autoencoder(encoder, neck, decoder, likelihood, finish, sparsifier, image_shape, scale)
    initialise(model, init)
    return model
