"""Layers and choices that torch lacks: activations by name, weight initialisation, tied weights, sparse codes."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.records import Tap

Activation = Literal["identity", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "sigmoid", "tanh"]
Activations = Activation | Sequence[Activation]  # one for all hidden layers, or one for each
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


def activations_named(names: Activations, count: int) -> nn.ModuleList:
    """The activations of `count` hidden layers, first layer first."""
    each = [names] * count if isinstance(names, str) else list(names)
    if len(each) != count:
        raise ValueError(
            f"activation=[{','.join(each)}] is for {len(each)} hidden layers, but the model has {count}: "
            "name one for all of them, or one for each"
        )
    return nn.ModuleList(activation_named(name) for name in each)


def hidden_taps(activations: Iterable[nn.Module], first: Tensor | None = None) -> list[Tap]:
    """An encoder's hidden layers by their activations, the first with its weights [units, C, h, w] if it has such."""
    return [
        Tap(name=f"hidden{level}", module=module, weights=first if level == 1 else None)
        for level, module in enumerate(activations, start=1)
    ]


def decoder_taps(activations: Iterable[nn.Module]) -> list[Tap]:
    """A decoder's hidden layers by their activations, the one that reads the code first."""
    return [Tap(name=f"decoder{level}", module=module) for level, module in enumerate(activations, start=1)]


def decoding(activations: nn.ModuleList) -> list[nn.Module]:
    """The decoder's activations, the encoder's last one first: modules of their own, so that each is a layer's."""
    return [copy.deepcopy(module) for module in reversed(activations)]


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


class Paced(nn.Module, ABC):
    """A module that changes while training goes on: it is told the progress of training before every step."""

    @abstractmethod
    def pace(self, progress: float) -> None:
        """`progress` is the share of training that has passed, in [0, 1)."""


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


class TopK(Paced):
    """Keeps the k largest of a code's units and silences the others (Makhzani & Frey 2013, "k-sparse autoencoders").

    Exactly k stay, also among equal values. With `start`, training begins with that many and comes down to k on a
    straight line over the first `anneal` share of it: while many units are kept all of them learn, where from the
    start a few would win every image and the others never be trained (ibid., "scheduling of the sparsity level").
    Evaluation always keeps k.
    """

    bounds = None  # a unit that is silenced is not at an end of its activation's range

    def __init__(self, k: int, start: int | None = None, anneal: float = 0.5) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} keeps nothing: use 1 or more")
        if start is not None and start < k:
            raise ValueError(f"start={start} is below k={k}, to which it comes down: use a larger one, or null")
        if not 0 < anneal <= 1:
            raise ValueError(f"anneal={anneal} is no share of training: use a number above 0, at most 1")
        self.k = k
        self.start = k if start is None else start
        self.anneal = anneal
        self.kept = k  # while training

    def pace(self, progress: float) -> None:
        self.kept = round(self.k + (self.start - self.k) * max(0.0, 1 - progress / self.anneal))

    def forward(self, z: Tensor) -> Tensor:
        for name, count in (("k", self.k), ("start", self.start)):
            if count > z.shape[1]:
                raise ValueError(f"sparsity.{name}={count} is larger than model.code_dim={z.shape[1]}: use less")
        kept = z.topk(self.kept if self.training else self.k, dim=1)
        return torch.zeros_like(z).scatter(1, kept.indices, kept.values)


class WinnerTakeAll(nn.Module):
    """Each unit keeps its largest activations over the batch, `rate` of them, rounded up: lifetime sparsity.

    While training only; a test image's code is what the encoder makes of it. As every unit wins some images of every
    batch, none is left untrained (Makhzani & Frey 2015, "Winner-take-all autoencoders", section 2).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} is no share of a batch: use a number above 0, at most 1, such as 0.05")
        self.rate = rate

    def forward(self, z: Tensor) -> Tensor:
        if not self.training:
            return z
        winners = z.topk(math.ceil(self.rate * len(z)), dim=0)  # [winners, D]
        return torch.zeros_like(z).scatter(0, winners.indices, winners.values)
