"""Recurrent autoencoders: one LSTM reads the image row by row into a code, another decodes the code row by row."""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layers import (
    LSTM_GATES,
    Activation,
    Init,
    decoder_taps,
    hidden_taps,
    initialise,
    make_activation,
)
from aetrain.model.likelihoods import Likelihood
from aetrain.model.networks import Decoder, Encoder
from aetrain.model.records import Encoded, Tap

FORGET_GATE = 1  # the position among the gates, in torch's order


def stack_lstms(widths: Sequence[int]) -> nn.ModuleList:
    """Return LSTMs that each read the states of the one before, [B, T, units] to [B, T, units]."""
    return nn.ModuleList(nn.LSTM(i, o, batch_first=True) for i, o in itertools.pairwise(widths))


class States(nn.Identity):
    """A layer that passes an LSTM's states [B, units, H] unchanged, so that a tap can read them."""

    bounds = (-1.0, 1.0)


class LSTMEncoder(Encoder):
    """Read an image row by row; the features are the state h_T of the top LSTM after the last row.

    With row x_t (all channels of it), state h and memory c (Hochreiter & Schmidhuber 1997; forget gate of Gers et al.
    2000): i, f, o = sigmoid(W x_t + U h + b), g = tanh(W x_t + U h + b), c <- f c + i g, h <- o tanh(c).
    """

    needs_images = True

    def __init__(self, image_shape: tuple[int, int, int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, _, width = image_shape
        self.layers = stack_lstms([channels * width, *hidden])
        self.states = nn.ModuleList(States() for _ in self.layers)
        self.num_features = hidden[-1]

    def forward(self, x: Tensor) -> Encoded:
        """Return the states of each LSTM, [B, units, H], and the features [B, F] of images x [B, C, H, W]."""
        h = x.transpose(1, 2).flatten(2)  # [B, H, C * W]
        hidden = []
        for layer, states in zip(self.layers, self.states, strict=True):
            hidden.append(states(layer(h)[0].transpose(1, 2)))  # [B, units, H]
            h = hidden[-1].transpose(1, 2)
        return Encoded(hidden=tuple(hidden), features=h[:, -1])

    def first_layer_weights(self) -> Tensor:
        """Return the weights [units, C, 4, W] of each unit's input, forget, cell and output gate for one row."""
        channels, _, width = self.image_shape
        weight = cast(Tensor, self.layers[0].weight_ih_l0)  # [4 * units, C * W]
        return weight.view(LSTM_GATES, -1, channels, width).permute(1, 2, 0, 3)

    def taps(self) -> list[Tap]:
        """Return the taps of the states; they have no weights, because a unit has four rows of them."""
        return hidden_taps(self.states)


class LSTMDecoder(Decoder):
    """Read the code at every row (Cho et al. 2014, arXiv:1406.1078), and decode each state to a row of pixels.

    The states start at zero, so that the decoder knows the image by its code alone. The bias is one number a pixel.
    """

    def __init__(self, image_shape: tuple[int, int, int], code_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, _, width = image_shape
        self.layers = stack_lstms([code_dim, *hidden])
        self.states = nn.ModuleList(States() for _ in self.layers)
        self.row = nn.Linear(hidden[-1], channels * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(image_shape).flatten())

    def forward(self, code: Code) -> Tensor:
        """Return the parameters of the likelihood [B, C, H, W]."""
        channels, height, width = self.image_shape
        h = code.z[:, None].expand(-1, height, -1)  # [B, H, D]
        for layer, states in zip(self.layers, self.states, strict=True):
            h = states(layer(h)[0].transpose(1, 2)).transpose(1, 2)  # [B, H, units]
        rows = self.row(h).unflatten(2, (channels, width))  # [B, H, C, W]
        return rows.transpose(1, 2) + self.bias.view(self.image_shape)  # [B, C, H, W]

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the output, one number a pixel."""
        return self.bias

    def taps(self) -> list[Tap]:
        """Return the taps of the states."""
        return decoder_taps(self.states)


def lstm(
    image_shape: tuple[int, int, int],
    likelihood: Likelihood,
    sparsifier: nn.Module,
    scale: tuple[float, float],
    code_dim: int,
    hidden: Sequence[int] = (128,),
    code_activation: Activation | None = None,
    bottleneck: MakeBottleneck = Deterministic,
    init: Init = "default",
    forget_bias: float = 1.0,
) -> Autoencoder:
    """Return the model rows - LSTMs - code - LSTMs reversed - rows.

    It is the autoencoder of Srivastava et al. (2015), arXiv:1502.04681, section 2.2.

    The bias of the forget gates starts at `forget_bias`. At 1 the state of the last row still contains the first rows,
    and training leaves the mean image sooner (Gers et al. 2000; Jozefowicz et al. 2015, section 3.2).

    Raise ValueError where `hidden` is empty or has a width below 1.
    """
    if not hidden or min(hidden) < 1:
        raise ValueError(
            f"hidden={list(hidden)} must name 1 or more units for at least one LSTM, such as model.hidden=[128]"
        )
    encoder = LSTMEncoder(image_shape, hidden)
    code_layer = bottleneck(encoder.num_features, code_dim)
    decoder = LSTMDecoder(image_shape, code_dim, list(reversed(hidden)))
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
    for layer in (*encoder.layers, *decoder.layers):
        set_forget_bias(layer, forget_bias)
    return model


@torch.no_grad()
def set_forget_bias(layer: nn.Module, value: float) -> None:
    """Set the bias of an LSTM's forget gate; torch stores it as two terms, of which the second becomes 0."""
    for bias, term in ((layer.bias_ih_l0, value), (layer.bias_hh_l0, 0.0)):
        cast(nn.Parameter, bias).view(LSTM_GATES, -1)[FORGET_GATE] = term
