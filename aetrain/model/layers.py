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
from aetrain.utils.shards import draw_like, gather, is_shard, take_own

Activation = Literal["identity", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "sigmoid", "tanh"]
Activations = Activation | Sequence[Activation]  # one for all hidden layers, or one for each
Init = Literal["default", "uniform", "xavier", "xavier_sigmoid", "he", "orthogonal"]

_ACTIVATION_CLASSES: dict[str, type[nn.Module]] = {
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

_INIT_FUNCTIONS: dict[Init, Callable[[Tensor], Tensor]] = {
    "uniform": partial(nn.init.kaiming_uniform_, a=math.sqrt(5)),
    "xavier": nn.init.xavier_uniform_,
    "xavier_sigmoid": partial(nn.init.xavier_uniform_, gain=4.0),
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}

LSTM_GATES = 4  # input, forget, cell, output, in torch's order


def make_activation(name: Activation) -> nn.Module:
    """Return a new activation module of that name."""
    return _ACTIVATION_CLASSES[name]()


def make_activations(names: Activations, count: int) -> nn.ModuleList:
    """Return new activation modules of `count` hidden layers, first layer first.

    Raise ValueError where `names` is a list of another length than `count`.
    """
    each = [names] * count if isinstance(names, str) else list(names)
    if len(each) != count:
        raise ValueError(
            f"activation=[{','.join(each)}] is for {len(each)} hidden layers, but the model has {count}: "
            "name one for all of them, or one for each"
        )
    return nn.ModuleList(make_activation(name) for name in each)


def are_linear(activations: Iterable[nn.Module]) -> bool:
    """Tell whether all activations are the identity."""
    return all(isinstance(module, nn.Identity) for module in activations)


def is_smooth(activation: nn.Module) -> bool:
    """Tell whether an activation is 0 at one input alone, unless numbers underflow: the identity, SiLU, GELU, ..."""
    return isinstance(activation, tuple(_ACTIVATION_CLASSES.values())) and not isinstance(activation, nn.ReLU)


def decoder_activations(encoder_activations: nn.ModuleList) -> list[nn.Module]:
    """Return copies of the encoder's activations in reverse order, so that each layer has a module of its own."""
    return [copy.deepcopy(module) for module in reversed(encoder_activations)]


def hidden_taps(activations: Iterable[nn.Module], first_layer_weights: Tensor | None = None) -> list[Tap]:
    """Return the taps of an encoder's hidden layers; the first has the weights [units, C, h, w] if there are any."""
    return [
        Tap(name=f"hidden{level}", module=module, weights=first_layer_weights if level == 1 else None)
        for level, module in enumerate(activations, start=1)
    ]


def decoder_taps(activations: Iterable[nn.Module]) -> list[Tap]:
    """Return the taps of a decoder's hidden layers, the layer that reads the code first."""
    return [Tap(name=f"decoder{level}", module=module) for level, module in enumerate(activations, start=1)]


def initialise(model: nn.Module, init: Init) -> None:
    """Draw every weight matrix and kernel again and set the biases to zero; `default` keeps torch's own draw of both.

    `uniform` draws within 1 / sqrt(fan_in), as torch does. `xavier` keeps the variance of signals through saturating
    units (Glorot & Bengio 2010, eq. 16), which `xavier_sigmoid` has 4 times as large for sigmoid units, whose slope at
    0 is a quarter of that of tanh (the Deep Learning Tutorials of LISA lab, "Multilayer perceptron"), `he` through
    rectifiers (He et al. 2015, eq. 10), `orthogonal` the length of vectors (Saxe et al. 2014).
    """
    if init == "default":
        return
    for layer in model.modules():
        blocks = LSTM_GATES if isinstance(layer, nn.LSTM) else 1  # an LSTM stacks the matrices of its gates
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight") and parameter.dim() > 1:
                for weight in parameter.detach().chunk(blocks):
                    _INIT_FUNCTIONS[init](weight)


class AfterStepHook(nn.Module, ABC):
    """A layer whose weights are projected to the allowed ones after every step of an optimizer."""

    @abstractmethod
    def after_optimizer_step(self) -> None:
        """Project the weights in place, without a gradient."""


class Scheduled(nn.Module, ABC):
    """A module that changes in the course of training. The loop sets the progress before every step."""

    @abstractmethod
    def set_progress(self, progress: float) -> None:
        """Set the share of training that has passed, in [0, 1)."""


def is_stateful(module: nn.Module) -> bool:
    """Return whether one step of the module depends on Python state that an earlier step or `set_progress` has left.

    The convention: any nn.Module may have the attribute `stateful`, on its class or as a property. A module sets it to
    True where a forward pass in training stores something in an attribute or replaces a buffer by another tensor. A
    Scheduled module is stateful unless its attribute is False. A program of one step would lose such state, so
    `training/backend/compile.py` leaves the model uncompiled. Buffers that change in place are no Python state.
    """
    return bool(getattr(module, "stateful", isinstance(module, Scheduled)))


class TiedLinear(nn.Module):
    """A linear layer with another layer's weights, transposed: y = x W + b with W the source's weights [out, in].

    The two share one storage before, during and after training. The bias is the layer's own.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        # The tuple keeps the source from being registered here, so that the state and the optimizer hold W once.
        self._source = (source,)
        bound = 1 / math.sqrt(source.out_features)
        self.bias = nn.Parameter(torch.empty(source.in_features).uniform_(-bound, bound))

    @property
    def source(self) -> nn.Linear:
        """The layer that owns the weights."""
        return self._source[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, out] to [B, in], the shapes of the source reversed."""
        return F.linear(x, self.source.weight.t(), self.bias)


class TopK(Scheduled):
    """Keep the k largest of a code's units and set the others to 0 (Makhzani & Frey 2013, "k-sparse autoencoders").

    Exactly k stay, also among equal values. With `start`, training begins with `start` units and comes down to k
    linearly over the first `anneal` share of training. All units learn while many are kept; with k from the start a few
    units would win every image and the others would never be trained (ibid., "scheduling of the sparsity level").
    Evaluation always keeps `eval_k`, or k; a classifier reads more from two or three times k units (ibid.).
    """

    bounds = None  # a unit that is set to 0 is not at a limit of its activation's range

    def __init__(self, k: int, start: int | None = None, anneal: float = 0.5, eval_k: int | None = None) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} keeps nothing: use 1 or more")
        if start is not None and start < k:
            raise ValueError(f"start={start} is below k={k}, to which it comes down: use a larger one, or null")
        if not 0 < anneal <= 1:
            raise ValueError(f"anneal={anneal} is no share of training: use a number above 0, at most 1")
        if eval_k is not None and eval_k < 1:
            raise ValueError(f"eval_k={eval_k} keeps nothing: use 1 or more, or null for k")
        self.k = k
        self.eval_k = k if eval_k is None else eval_k
        self.start = k if start is None else start
        self.anneal = anneal
        self.training_k = k

    @property
    def stateful(self) -> bool:
        """True where `training_k` changes between steps: training/backend/compile.py leaves such a model uncompiled."""
        return self.start != self.k

    def set_progress(self, progress: float) -> None:
        """Set the number of units that training keeps, from the share of training in [0, 1) that has passed."""
        self.training_k = round(self.k + (self.start - self.k) * max(0.0, 1 - progress / self.anneal))

    def forward(self, z: Tensor) -> Tensor:
        """Return the sparse code [B, D] of z [B, D]; raise ValueError where a number of units is larger than D."""
        for name, count in (("k", self.k), ("start", self.start), ("eval_k", self.eval_k)):
            if count > z.shape[1]:
                raise ValueError(f"sparsity.{name}={count} is larger than model.code_dim={z.shape[1]}: use less")
        largest = z.topk(self.training_k if self.training else self.eval_k, dim=1)
        return torch.zeros_like(z).scatter(1, largest.indices, largest.values)


class Dropout(nn.Dropout):
    """torch's dropout, which in one of several processes draws the random numbers of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with random values set to 0 in training, and the others scaled up; x [B, ...] in evaluation."""
        if not (self.training and is_shard()):
            return super().forward(x)
        return x * draw_like(x, lambda empty: F.dropout(empty.fill_(1.0), self.p))


class WinnerTakeAll(nn.Module):
    """Keep each unit's largest activations over the batch, `rate` of them, rounded up: lifetime sparsity.

    In training only; in evaluation mode the code passes unchanged. As every unit wins some images of every batch, all
    of them are trained (Makhzani & Frey 2015, "Winner-take-all autoencoders", section 2).
    """

    reads_batch = True  # the codes of the whole batch, also where several processes compute it

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} is no share of a batch: use a number above 0, at most 1, such as 0.05")
        self.rate = rate

    def forward(self, z: Tensor) -> Tensor:
        """Return the sparse code [B, D] of z [B, D]."""
        if not self.training:
            return z
        batch = gather(z.detach())
        winners = batch.topk(math.ceil(self.rate * len(batch)), dim=0)  # [winners, D]
        mask = torch.zeros_like(batch).scatter(0, winners.indices, torch.ones_like(winners.values))
        return z * take_own(mask)
