"""Recurrent autoencoders: an LSTM reads the picture row by row into one code, another writes it back from there."""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.dense import MakeBottleneck
from aetrain.model.layers import Activation, Init, activation_named, decoder_taps, hidden_taps, initialise
from aetrain.model.likelihoods import Likelihood
from aetrain.model.records import Code, Encoded, Tap

GATES = 4  # of an LSTM: input, forget, cell, output, in torch's order


def chain(widths: Sequence[int]) -> nn.ModuleList:
    """LSTMs that each read the states of the one before, [B, T, units] to [B, T, units]."""
    return nn.ModuleList(nn.LSTM(i, o, batch_first=True) for i, o in itertools.pairwise(widths))


class States(nn.Identity):
    """An LSTM's states [B, units, H], between -1 and 1, for those who look."""

    bounds = (-1.0, 1.0)


class LSTMEncoder(nn.Module):
    """The features are the last state h_T of the top LSTM, when it has read the last row.

    With row x_t (all channels of it), state h and memory c (Hochreiter & Schmidhuber 1997; forget gate of Gers et al.
    2000): i, f, o = sigmoid(W x_t + U h + b), g = tanh(W x_t + U h + b), c <- f c + i g, h <- o tanh(c).
    """

    def __init__(self, image_shape: tuple[int, int, int], hidden: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, _, width = image_shape
        self.layers = chain([channels * width, *hidden])
        self.states = nn.ModuleList(States() for _ in self.layers)
        self.num_features = hidden[-1]

    def forward(self, x: Tensor) -> Encoded:
        h = x.transpose(1, 2).flatten(2)  # [B, H, C * W]
        hidden = []
        for layer, states in zip(self.layers, self.states, strict=True):
            hidden.append(states(layer(h)[0].transpose(1, 2)))  # [B, units, H]
            h = hidden[-1].transpose(1, 2)
        return Encoded(hidden=tuple(hidden), features=h[:, -1])

    def first_layer(self) -> Tensor:
        """[units, C, 4, W]: what a unit's input, forget, cell and output gate look for in a row of pixels."""
        channels, _, width = self.image_shape
        weight = cast(Tensor, self.layers[0].weight_ih_l0)  # [4 * units, C * W]
        return weight.view(GATES, -1, channels, width).permute(1, 2, 0, 3)

    def taps(self) -> list[Tap]:
        return hidden_taps(self.states)


class LSTMDecoder(nn.Module):
    """Reads the code anew at every row (Cho et al. 2014, arXiv:1406.1078), and paints a row of each state.

    Nothing but the code goes from reader to writer: the states begin at zero. The bias is one number a pixel.
    """

    def __init__(self, image_shape: tuple[int, int, int], code_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, _, width = image_shape
        self.layers = chain([code_dim, *hidden])
        self.states = nn.ModuleList(States() for _ in self.layers)
        self.row = nn.Linear(hidden[-1], channels * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(image_shape).flatten())

    def forward(self, code: Code) -> Tensor:
        channels, height, width = self.image_shape
        h = code.z[:, None].expand(-1, height, -1)  # [B, H, D]
        for layer, states in zip(self.layers, self.states, strict=True):
            h = states(layer(h)[0].transpose(1, 2)).transpose(1, 2)  # [B, H, units]
        rows = self.row(h).unflatten(2, (channels, width))  # [B, H, C, W]
        return rows.transpose(1, 2) + self.bias.view(self.image_shape)  # [B, C, H, W]

    @property
    def output_bias(self) -> nn.Parameter:
        return self.bias

    def taps(self) -> list[Tap]:
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
    """rows - LSTMs - code - LSTMs reversed - rows (Srivastava et al. 2015, arXiv:1502.04681, section 2.2).

    The bias of the forget gates begins at `forget_bias`: at 1 what was read at the top is still there at the bottom,
    and training leaves the mean image sooner (Gers et al. 2000; Jozefowicz et al. 2015, section 3.2).
    """
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden={list(hidden)} must name 1 or more units for at least one LSTM")
    encoder = LSTMEncoder(image_shape, hidden)
    neck = bottleneck(encoder.num_features, code_dim)
    decoder = LSTMDecoder(image_shape, code_dim, list(reversed(hidden)))
    finish = activation_named(code_activation or "identity")
    model = Autoencoder(encoder, neck, decoder, likelihood, finish, sparsifier, image_shape, scale)
    initialise(model, init)
    for layer in (*encoder.layers, *decoder.layers):
        with torch.no_grad():
            for bias, value in ((layer.bias_ih_l0, forget_bias), (layer.bias_hh_l0, 0.0)):
                cast(nn.Parameter, bias).view(GATES, -1)[1] = value
    return model
