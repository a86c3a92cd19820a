"""Pretraining by a stack of restricted Boltzmann machines, unrolled into encoder and decoder."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from aetrain.data.examples import Batches, Examples
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import DATA_WORDS, LossDict
from aetrain.training.pretraining.layer_pairs import (
    LayerInputBatches,
    activations_of,
    layer_pairs,
    layers_of,
    train_stage,
    units_below,
)
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.step import OptimizerStep
from aetrain.utils.compat import without_compiler
from aetrain.utils.shards import draw_bernoulli, draw_like, sharded


class RBM(nn.Module):
    """A layer of logistic visible units and one of hidden units, logistic or linear with unit variance.

    E(v, h) = -b.v - c.h - h.Wv for logistic h, and -b.v + |h - c|^2 / 2 - h.Wv for linear h. Contrastive divergence
    (Hinton 2002, eq. 5) follows <h v>_0 - <h v>_k, which is minus the gradient of F(v_0) - F(v_k) where F is the free
    energy and the end v_k of k steps of Gibbs sampling is taken as fixed. As in the program of Hinton & Salakhutdinov
    (2006), hidden states are sampled and visible units are their probabilities.
    """

    def __init__(self, layer: nn.Linear, visible_bias: nn.Parameter, linear: bool = False, k: int = 1) -> None:
        super().__init__()
        self.layer = layer  # W [hidden, visible] and c
        self.visible_bias = visible_bias  # b [visible]
        self.linear = linear
        self.k = k

    def free_energy(self, v: Tensor) -> Tensor:
        """Return -log sum_h exp(-E(v, h)) up to a constant, [B]; for logistic units Hinton (2010, eq. 25)."""
        net_input = F.linear(v, self.layer.weight)  # [B, hidden]
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
        difference = self.free_energy(v).mean() - self.free_energy(last).mean()
        return {"loss": difference, "sse": (first - v).square().sum(1).mean()}


@dataclass(frozen=True)
class StackedRBMs:
    """Train each layer as an RBM on the hidden probabilities of the one below, then unroll the stack.

    Hinton & Salakhutdinov (2006), with the settings of their program as defaults: a linear code has a smaller
    learning rate, momentum rises from its first value to its second after `momentum_switch_epoch` epochs,
    `weight_decay` applies to the weights alone, which begin as normal draws of deviation `init_std`, and biases begin
    at zero. The decoder begins with the transposed weights and the visible biases. The run's noise, sparsity and
    penalties belong to the training that follows.
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

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} trains no layer: use 1 or more, or pretrain=none")
        if self.k < 1:
            raise ValueError(f"k={self.k} is no number of Gibbs steps: use 1 or more")

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
            rbm = RBM(pair.encoder_layer, cast(nn.Parameter, pair.decoder_layer.bias), linear, self.k)
            nn.init.normal_(pair.encoder_layer.weight, std=self.init_std)
            nn.init.zeros_(pair.encoder_layer.bias)
            nn.init.zeros_(rbm.visible_bias)
            below = LayerInputBatches(batches, units_below(model, pair.number))
            train_stage(rbm, self.optimizer_step(rbm), below, self.epochs, pair.number, context)
            if isinstance(pair.decoder_layer, nn.Linear):  # a tied layer shares these weights
                with torch.no_grad():
                    pair.decoder_layer.weight.copy_(pair.encoder_layer.weight.t())

    def optimizer_step(self, rbm: RBM) -> OptimizerStep:
        """Return gradient descent with rising momentum on the machine's losses."""
        biases = [rbm.layer.bias, rbm.visible_bias]
        groups: list[dict[str, Any]] = [
            {"params": [rbm.layer.weight], "weight_decay": self.weight_decay},
            {"params": biases},
        ]
        optimizer = without_compiler(SGD)(
            groups, lr=self.linear_lr if rbm.linear else self.lr, momentum=self.momentum[0]
        )

        def raise_momentum(progress: float) -> None:
            for group in optimizer.param_groups:  # rounding may put the first step of an epoch below its number
                group["momentum"] = self.momentum[progress * self.epochs + 1e-6 >= self.momentum_switch_epoch]

        return OptimizerStep(rbm.losses, optimizer, before_step=(raise_momentum,))
