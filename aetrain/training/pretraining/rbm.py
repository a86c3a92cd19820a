"""Pretraining by a stack of restricted Boltzmann machines, unrolled into encoder and decoder."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from aetrain.data.examples import Batches, Examples, known_mean
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import DATA_WORDS, LossDict
from aetrain.training.pretraining.layer_pairs import (
    LayerInputBatches,
    LayerPair,
    activations_of,
    layer_pairs,
    layers_of,
    train_stage,
    units_below,
)
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.step import OptimizerStep
from aetrain.utils.compat import without_compiler
from aetrain.utils.devices import random_states, set_random_states
from aetrain.utils.shards import draw_bernoulli, draw_like, gather, sharded

MIN_RATE = 1e-7  # smallest distance from 0 and 1 of the mean whose log-odds are the bias of a visible unit


class HiddenRates(nn.Module):
    """A pull of the mean activation of each hidden unit to `target`: Hinton (2010), "A practical guide", section 11.

    The penalty is cost * sum_j -(p log q_j + (1 - p) log(1 - q_j)), with p the target and q_j the mean activation of
    unit j: q = damping * q + (1 - damping) * (mean of the batch), which begins at p. Its derivative with respect to the
    total input of the unit is taken as cost * (q_j - p), and is applied to the mean of that input.
    """

    def __init__(self, num_hidden: int, target: float, cost: float, damping: float) -> None:
        super().__init__()
        self.target = target
        self.cost = cost
        self.damping = damping
        self.rates = nn.Buffer(torch.full((num_hidden,), target))

    def forward(self, net_input: Tensor) -> Tensor:
        """Return a loss [] with this gradient for the total inputs of the hidden units [B, hidden]."""
        self.rates.lerp_(gather(net_input.detach()).sigmoid().mean(0), 1 - self.damping)
        return self.cost * ((self.rates - self.target) * net_input.mean(0)).sum()


class RBM(nn.Module):
    """A layer of logistic visible units and one of hidden units, logistic or linear with unit variance.

    E(v, h) = -b.v - c.h - h.Wv for logistic h, and -b.v + |h - c|^2 / 2 - h.Wv for linear h. Contrastive divergence
    (Hinton 2002, eq. 5) follows <h v>_0 - <h v>_k, which is minus the gradient of F(v_0) - F(v_k) where F is the free
    energy and the end v_k of k steps of Gibbs sampling is taken as fixed. As in the program of Hinton & Salakhutdinov
    (2006), hidden states are sampled and visible units are their probabilities.
    """

    def __init__(
        self,
        layer: nn.Linear,
        visible_bias: nn.Parameter,
        linear: bool = False,
        k: int = 1,
        hidden_rates: HiddenRates | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer  # W [hidden, visible] and c
        self.visible_bias = visible_bias  # b [visible]
        self.linear = linear
        self.k = k
        self.hidden_rates = hidden_rates  # of logistic hidden units

    def free_energy(self, v: Tensor) -> Tensor:
        """Return -log sum_h exp(-E(v, h)) up to a constant, [B]; for logistic units Hinton (2010, eq. 25)."""
        return self._free_energy(v, F.linear(v, self.layer.weight))

    def _free_energy(self, v: Tensor, net_input: Tensor) -> Tensor:
        c = self.layer.bias
        units = net_input.square() / 2 + c * net_input if self.linear else F.softplus(net_input + c)
        return -(v @ self.visible_bias) - units.sum(1)

    def sample(self, v: Tensor) -> Tensor:
        """Sample hidden states [B, hidden] given the visible units."""
        net_input = self.layer(v)
        if self.linear:
            return net_input + draw_like(net_input, Tensor.normal_)
        return draw_bernoulli(torch.sigmoid(net_input))

    def visible(self, h: Tensor) -> Tensor:
        """Return the probabilities of the visible units [B, visible] given the hidden ones."""
        return torch.sigmoid(F.linear(h, self.layer.weight.t(), self.visible_bias))

    def losses(self, x: Tensor) -> LossDict:
        """Return `loss`, whose gradient is CD-k's, and `sse`, the squared error after one step; x [B, ...]."""
        return sharded(self._losses, x)

    def _losses(self, x: Tensor) -> LossDict:
        v = x.flatten(1)  # [B, visible]
        with torch.no_grad():
            first = last = self.visible(self.sample(v))
            for _ in range(self.k - 1):
                last = self.visible(self.sample(last))
        both = torch.cat([v, last])  # one product with the weights takes less time than two
        net_input = F.linear(both, self.layer.weight)  # [2 B, hidden]
        data, model = self._free_energy(both, net_input).chunk(2)
        loss = data.mean() - model.mean()
        if self.hidden_rates is not None:
            loss = loss + self.hidden_rates(net_input[: len(v)] + self.layer.bias)
        return {"loss": loss, "sse": (first - v).square().sum(1).mean()}


@dataclass(frozen=True)
class StackedRBMs:
    """Train each layer as an RBM on the hidden probabilities of the one below, then unroll the stack.

    Hinton & Salakhutdinov (2006), with the settings of their program as defaults: a linear code has a smaller
    learning rate, momentum rises from its first value to its second after `momentum_switch_epoch` epochs,
    `weight_decay` applies to the weights alone, which begin as normal draws of deviation `init_std`, and biases begin
    at zero. With `visible_bias` = data, the visible ones begin at the log-odds of the means of their units (Hinton
    2010, section 8.1). A `sparsity_cost` above 0 pulls the mean activation of logistic hidden units to
    `sparsity_target` (`HiddenRates`). The decoder begins with the transposed weights and the visible biases. The run's
    noise, sparsity and penalties belong to the training that follows.
    """

    epochs: int = 10
    k: int = 1
    lr: float = 0.1
    linear_lr: float = 0.001
    momentum: tuple[float, float] = (0.5, 0.9)
    momentum_switch_epoch: int = 5
    weight_decay: float = 2e-4
    init_std: float = 0.1
    batch_size: int = 100
    visible_bias: Literal["zero", "data"] = "zero"
    sparsity_target: float = 0.1
    sparsity_cost: float = 0.0
    sparsity_damping: float = 0.9

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} trains no layer: use 1 or more, or pretrain=none")
        if self.k < 1:
            raise ValueError(f"k={self.k} is no number of Gibbs steps: use 1 or more")
        for name in ("lr", "linear_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive: use a learning rate above 0")
        if not all(0 <= value < 1 for value in self.momentum):
            raise ValueError(f"momentum={list(self.momentum)} is out of range: use two numbers from 0 to below 1")
        for name in ("weight_decay", "init_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative: use 0 or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        if not 0 < self.sparsity_target < 1:
            raise ValueError(f"sparsity_target={self.sparsity_target} is no rate: use a number between 0 and 1")
        if not self.sparsity_cost >= 0:
            raise ValueError(f"sparsity_cost={self.sparsity_cost} is negative: use 0 or more")
        if not 0 <= self.sparsity_damping < 1:
            raise ValueError(f"sparsity_damping={self.sparsity_damping} is out of range: use 0 or more, and below 1")

    def check(self, model: Autoencoder) -> None:
        """Accept sigmoid layers, pixels that are probabilities, and a linear or sigmoid code."""
        layers_of(model)
        other = [type(unit).__name__ for unit in activations_of(model) if not isinstance(unit, nn.Sigmoid)]
        if other:
            raise ValueError(
                f"pretrain=rbm needs binary units, but the hidden layers' activation is {other[0]}: "
                "use model.activation=sigmoid, or pretrain=layerwise for other units"
            )
        if not isinstance(model.code_activation, nn.Identity | nn.Sigmoid):
            raise ValueError(
                f"pretrain=rbm supports linear and sigmoid codes, not {type(model.code_activation).__name__}: "
                "use model.code_activation=null or sigmoid, or pretrain=layerwise"
            )
        if (model.low, model.high) != (0, 1):
            raise ValueError(
                f"pretrain=rbm needs pixels in [0, 1], but dataset.scale=[{model.low:g}, {model.high:g}]: "
                "use dataset.scale=[0,1], or pretrain=layerwise"
            )
        if model.kind != "image":
            raise ValueError(
                "pretrain=rbm needs binary units, such as pixels in [0, 1], and the data set has "
                f"{DATA_WORDS[model.kind]}: use pretrain=layerwise"
            )
        probe = torch.linspace(-3, 3, 7)[:, None, None, None].expand(-1, *model.image_shape)
        if not torch.allclose(model.likelihood.mean(probe), torch.sigmoid(probe)):
            raise ValueError(
                "pretrain=rbm needs a sigmoid output, but likelihood.output is another: "
                "use likelihood=bernoulli or likelihood.output=sigmoid, or pretrain=layerwise"
            )

    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Train the machines from the pixels to the code, and unroll each as soon as it is trained."""
        batches = Batches(Examples(context.batches.values), self.batch_size, context.batches.prepare)
        for pair in layer_pairs(model):
            linear = pair.is_code and isinstance(model.code_activation, nn.Identity)
            below = LayerInputBatches(batches, units_below(model, pair.number))
            rbm = self.make_rbm(pair, linear)
            if self.visible_bias == "data":
                set_log_odds(rbm.visible_bias, below)
            train_stage(rbm, self.optimizer_step(rbm), below, self.epochs, pair.number, context)
            if isinstance(pair.decoder_layer, nn.Linear):  # a tied layer shares these weights
                with torch.no_grad():
                    pair.decoder_layer.weight.copy_(pair.encoder_layer.weight.t())

    def make_rbm(self, pair: LayerPair, linear: bool) -> RBM:
        """Return the machine of a pair of layers with its initial weights."""
        layer = pair.encoder_layer
        rates = None
        if self.sparsity_cost and not linear:
            rates = HiddenRates(layer.out_features, self.sparsity_target, self.sparsity_cost, self.sparsity_damping)
            rates = rates.to(layer.weight.device)
        rbm = RBM(layer, cast(nn.Parameter, pair.decoder_layer.bias), linear, self.k, rates)
        nn.init.normal_(layer.weight, std=self.init_std)
        nn.init.zeros_(layer.bias)
        nn.init.zeros_(rbm.visible_bias)
        return rbm

    def optimizer_step(self, rbm: RBM) -> OptimizerStep:
        """Return gradient descent with rising momentum on the machine's losses."""
        biases = [rbm.layer.bias, rbm.visible_bias]
        groups: list[dict[str, Any]] = [
            {"params": [rbm.layer.weight], "weight_decay": self.weight_decay},
            {"params": biases},
        ]
        optimizer = without_compiler(SGD)(
            groups, lr=self.linear_lr if rbm.linear else self.lr, momentum=self.momentum[0], fused=True
        )

        def raise_momentum(progress: float) -> None:
            for group in optimizer.param_groups:  # rounding may put the first step of an epoch below its number
                group["momentum"] = self.momentum[progress * self.epochs + 1e-6 >= self.momentum_switch_epoch]

        return OptimizerStep(rbm.losses, optimizer, before_step=(raise_momentum,))


@torch.no_grad()
def set_log_odds(bias: nn.Parameter, batches: LayerInputBatches) -> None:
    """Set log(p / (1 - p)) for each visible unit, p its mean over an epoch, at least MIN_RATE from 0 and 1."""
    state = random_states(bias.device)  # the order of the batches is no draw of training
    mean = known_mean(iter(batches)).flatten()
    set_random_states(bias.device, state)
    bias.copy_(mean.double().logit(MIN_RATE))
