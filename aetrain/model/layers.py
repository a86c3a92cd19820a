"""Layers and choices that torch lacks: activations by name, weight initialisation, tied weights, k-sparse codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["identity", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "sigmoid", "tanh"]
Init = Literal["default", "xavier", "he", "orthogonal"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def activation_named(name: Activation) -> nn.Module:
    """The activation of that name."""
    return _ACTIVATIONS[name]()


def initialise(model: nn.Module, init: Init) -> None:
    """Draw every weight matrix and kernel anew, with biases at zero; `default` leaves torch's own draw.

    `xavier` keeps the variance of signals through saturating units (Glorot & Bengio 2010, eq. 16), `he` through
    rectifiers (He et al. 2015, eq. 10), `orthogonal` the length of vectors (Saxe et al. 2014).
    """
    if init == "default":
        return
    for layer in model.modules():
        gates = 4 if isinstance(layer, nn.LSTM) else 1  # its matrices are four, one below the other
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight") and parameter.dim() > 1:
                for weight in parameter.detach().chunk(gates):
                    _DRAWS[init](weight)


_DRAWS: dict[Init, Callable[[Tensor], Tensor]] = {
    "xavier": nn.init.xavier_uniform_,
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}


class Settled(nn.Module, ABC):
    """A layer whose weights are brought back to where they are allowed to be after every step of an optimizer."""

    @abstractmethod
    def settle(self) -> None:
        """Project the weights, without recording a gradient."""


class TiedLinear(nn.Module):
    """A linear layer whose weights are another one's, transposed: y = x W + b with W the source's [out, in].

    The two share one storage before, during and after training. The bias is its own.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        # In a tuple the source is not registered here, so its weights appear once in the state and to the optimizer.
        self._source = (source,)
        bound = 1 / math.sqrt(source.out_features)
        self.bias = nn.Parameter(torch.empty(source.in_features).uniform_(-bound, bound))

    @property
    def source(self) -> nn.Linear:
        """The layer whose weights these are."""
        return self._source[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.source.weight.t(), self.bias)


class TopK(nn.Module):
    """Keeps the k largest of a code's units and silences the others (Makhzani & Frey 2013, "k-sparse autoencoders").

    Exactly k stay, also among equal values.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} keeps nothing: use 1 or more")
        self.k = k

    def forward(self, z: Tensor) -> Tensor:
        if self.k > z.shape[1]:
            raise ValueError(f"sparsity.k={self.k} is larger than model.code_dim={z.shape[1]}: use a smaller k")
        kept = z.topk(self.k, dim=1)
        return torch.zeros_like(z).scatter(1, kept.indices, kept.values)
