"""Fully connected autoencoders: linear, deep and tied. With another bottleneck they are the dense variational ones."""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Bottleneck, Deterministic
from aetrain.model.codes import Code
from aetrain.model.layers import (
    Activation,
    Activations,
    Init,
    TiedLinear,
    are_linear,
    decoder_activations,
    decoder_taps,
    hidden_taps,
    initialise,
    make_activation,
    make_activations,
)
from aetrain.model.likelihoods import Likelihood
from aetrain.model.networks import Decoder, Encoder
from aetrain.model.records import Encoded, Tap


class MakeBottleneck(Protocol):
    """A bottleneck class, or a partial application of one that sets its other arguments."""

    def __call__(self, in_features: int, code_dim: int) -> Bottleneck: ...


class DenseEncoder(Encoder):
    """h_0 = x, h_i = f_i(W_i h_{i-1} + b_i); without hidden layers the features are the pixels.

    With `observed`, h_0 is x with 0 in place of missing values (NaN), followed by 1 for every observed value and 0 for
    every missing one. With `normalize`, x is divided by its Euclidean norm (Liang et al. 2018, section 4.5).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden: Sequence[int],
        activation: Activations,
        observed: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.reads_missing = observed
        self.normalize = normalize
        self.num_pixels = math.prod(image_shape)
        widths = [2 * self.num_pixels if observed else self.num_pixels, *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.activations = make_activations(activation, len(self.layers))
        self.num_features = widths[-1]
        self.passes_pixels = not hidden
        self.linear = are_linear(self.activations) and not normalize

    def forward(self, x: Tensor) -> Encoded:
        """Return the hidden activations, each [B, units], and the features [B, F] of images x [B, C, H, W]."""
        h = x.flatten(1)  # [B, C * H * W]
        mask = ~h.isnan() if self.reads_missing else None
        if mask is not None:
            h = torch.where(mask, h, 0.0)
        if self.normalize:
            h = F.normalize(h, dim=1)
        if mask is not None:
            h = torch.cat([h, mask.to(h.dtype)], 1)  # [B, 2 * C * H * W]
        hidden = []
        for layer, activation in zip(self.layers, self.activations, strict=True):
            h = activation(layer(h))  # [B, units]
            hidden.append(h)
        return Encoded(hidden=tuple(hidden), features=h)

    def first_layer_weights(self) -> Tensor | None:
        """Return the first layer's weights of the pixels [units, C, H, W]; None without hidden layers."""
        if not len(self.layers):
            return None
        weight = cast(Tensor, self.layers[0].weight)
        return weight[:, : self.num_pixels].unflatten(1, self.image_shape)

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers."""
        return hidden_taps(self.activations, self.first_layer_weights())


class DenseDecoder(Decoder):
    """The encoder's mirror: a chain of linear layers, with the activations between them and none at the end."""

    def __init__(
        self, image_shape: tuple[int, int, int], layers: Sequence[nn.Module], activations: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(activations)
        self.linear = are_linear(self.activations)

    def forward(self, code: Code) -> Tensor:
        """Return the parameters of the likelihood [B, C, H, W]."""
        h = code.z  # [B, D]
        *inner, last = self.layers
        for layer, activation in zip(inner, self.activations, strict=True):
            h = activation(layer(h))
        return last(h).unflatten(1, self.image_shape)  # [B, C, H, W]

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the last layer, one number a pixel."""
        return cast(nn.Parameter, self.layers[-1].bias)

    def taps(self) -> list[Tap]:
        """Return the taps of the hidden layers."""
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
    observed: bool = False,
    normalize: bool = False,
) -> Autoencoder:
    """Return the model pixels - hidden - code - hidden reversed - pixels.

    Without hidden layers it is the linear autoencoder, whose least squared error is that of PCA (Baldi & Hornik 1989).
    `tied` makes every decoder layer the transpose of its encoder layer. `activation` is that of all hidden layers, or
    a list with one for each of the encoder's; the decoder mirrors it. With `observed` the encoder also reads which
    values are observed, and with `normalize` it divides each example by its norm (`DenseEncoder`).

    Raise ValueError where a width in `hidden` is below 1, where `activation` has another length than `hidden`, or where
    `observed` and `tied` are both set.
    """
    for width in hidden:
        if width < 1:
            raise ValueError(f"hidden={list(hidden)} has a layer without units: use 1 or more in each")
    if observed and tied:
        raise ValueError(
            "observed=true does not fit tied=true, because the transposed first layer would decode which values are "
            "observed as well: use model.tied=false or model.observed=false"
        )
    encoder = DenseEncoder(image_shape, hidden, activation, observed, normalize)
    code_layer = bottleneck(encoder.num_features, code_dim)
    layers = _mirror_layers([code_layer.project, *reversed(encoder.layers)], math.prod(image_shape), tied)
    code_layer.set_decoder_layer(layers[0])
    model = Autoencoder(
        encoder,
        code_layer,
        DenseDecoder(image_shape, layers, decoder_activations(encoder.activations)),
        likelihood,
        make_activation(code_activation or "identity"),
        sparsifier,
        image_shape,
        scale,
    )
    initialise(model, init)
    return model


def _mirror_layers(encoder_layers: Sequence[nn.Module], num_pixels: int, tied: bool) -> list[nn.Module]:
    """Return the decoder's layers for the encoder's, from the code to the pixels, which the last one decodes alone."""
    linear = [layer for layer in encoder_layers if isinstance(layer, nn.Linear)]
    if tied:
        return [TiedLinear(layer) for layer in linear]
    widths = [*(layer.in_features for layer in linear[:-1]), num_pixels]
    return [nn.Linear(layer.out_features, width) for layer, width in zip(linear, widths, strict=True)]
