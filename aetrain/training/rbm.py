"""Pretraining by a stack of restricted Boltzmann machines, unrolled into encoder and decoder."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from aetrain.data.batches import Batches
from aetrain.data.dataset import Images
from aetrain.model.autoencoder import Autoencoder
from aetrain.training.fit import Terms, Update
from aetrain.training.pretrain import Supplies
from aetrain.training.stages import Passed, activations_of, layers_of, pairs, train_stage, units_below


class RBM(nn.Module):
    """A layer of logistic visible units and one of hidden units, logistic or linear with unit variance.

    E(v, h) = -b.v - c.h - h.Wv for logistic h, and -b.v + |h - c|^2 / 2 - h.Wv for linear h. Contrastive divergence
    (Hinton 2002, eq. 5) follows <h v>_0 - <h v>_k, which is minus the gradient of F(v_0) - F(v_k) where F is the free
    energy and the end v_k of k steps of Gibbs sampling is taken as fixed. As in the program of Hinton & Salakhutdinov
    (2006), hidden states are sampled and visible units are their probabilities.
    """

    def __init__(self, up: nn.Linear, visible_bias: nn.Parameter, linear: bool = False, k: int = 1) -> None:
        super().__init__()
        self.up = up  # W [hidden, visible] and c
        self.visible_bias = visible_bias  # b [visible]
        self.linear = linear
        self.k = k

    def free_energy(self, v: Tensor) -> Tensor:
        """-log sum_h exp(-E(v, h)), [B], but for a constant: of logistic units Hinton (2010, eq. 25)."""
        drive = F.linear(v, self.up.weight)  # [B, hidden]
        c = self.up.bias
        units = drive.square() / 2 + c * drive if self.linear else F.softplus(drive + c)
        return -(v @ self.visible_bias) - units.sum(1)

    def sample(self, v: Tensor) -> Tensor:
        """Hidden states [B, hidden], drawn given the visible units."""
        drive = self.up(v)
        return drive + torch.randn_like(drive) if self.linear else torch.bernoulli(torch.sigmoid(drive))

    def visible(self, h: Tensor) -> Tensor:
        """Probabilities of the visible units [B, visible]."""
        return torch.sigmoid(F.linear(h, self.up.weight.t(), self.visible_bias))

    def terms(self, x: Tensor) -> Terms:
        """`loss`, whose gradient is CD-k's, and the squared error of the first step's `sse`; x [B, ...]."""
        v = x.flatten(1)  # [B, visible]
        with torch.no_grad():
            first = last = self.visible(self.sample(v))
            for _ in range(self.k - 1):
                last = self.visible(self.sample(last))
        gap = self.free_energy(v).mean() - self.free_energy(last).mean()
        return {"loss": gap, "sse": (first - v).square().sum(1).mean()}


@dataclass(frozen=True)
class StackedRBMs:
    """Each layer learns as an RBM on the hidden probabilities of the one below; then the stack is unrolled.

    Hinton & Salakhutdinov (2006), with the settings of their program as defaults: a linear code has a smaller
    learning rate, momentum rises from its first value to its second after `switch` epochs, weights alone are decayed
    by `weight_cost`, and they begin as normal draws of deviation `std`, biases at zero. The decoder begins with the
    transposed weights and the visible biases. The run's noise, sparsity and penalties belong to the training that
    follows.
    """

    epochs: int = 10
    k: int = 1
    lr: float = 0.1
    linear_lr: float = 0.001
    momentum: tuple[float, float] = (0.5, 0.9)
    switch: int = 5
    weight_cost: float = 2e-4
    std: float = 0.1
    batch_size: int = 100

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} trains no layer: use 1 or more, or pretrain=none")
        if self.k < 1:
            raise ValueError(f"k={self.k} takes no step of Gibbs sampling: use 1 or more")

    def check(self, model: Autoencoder) -> None:
        """Only sigmoid layers, pixels that are probabilities, and a linear or sigmoid code."""
        layers_of(model)
        other = [type(unit).__name__ for unit in activations_of(model) if not isinstance(unit, nn.Sigmoid)]
        if other:
            raise ValueError(
                f"pretrain=rbm needs units that are on or off, but the hidden layers' are {other[0]}: "
                "use model.activation=sigmoid, or pretrain=layerwise for other units"
            )
        if not isinstance(model.finish[0], nn.Identity | nn.Sigmoid):
            raise ValueError(
                f"pretrain=rbm knows linear and sigmoid codes, not {type(model.finish[0]).__name__}: "
                "use model.code_activation=null or sigmoid, or pretrain=layerwise"
            )
        if (model.low, model.high) != (0, 1):
            raise ValueError(
                f"pretrain=rbm needs pixels in [0, 1], but dataset.scale=[{model.low:g}, {model.high:g}]: "
                "use dataset.scale=[0,1], or pretrain=layerwise"
            )
        probe = torch.linspace(-3, 3, 7)
        if not torch.allclose(model.likelihood.mean(probe), torch.sigmoid(probe)):
            raise ValueError(
                "pretrain=rbm paints pixels through a sigmoid, but likelihood.output is another: "
                "use likelihood=bernoulli or likelihood.output=sigmoid, or pretrain=layerwise"
            )

    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Train the machines from the pixels to the code, each unrolled as soon as it is trained."""
        batches = Batches(Images(supplies.batches.pixels), self.batch_size, supplies.batches.prepare)
        for pair in pairs(model):
            linear = pair.makes_code and isinstance(model.finish[0], nn.Identity)
            rbm = RBM(pair.up, cast(nn.Parameter, pair.down.bias), linear, self.k)
            nn.init.normal_(pair.up.weight, std=self.std)
            nn.init.zeros_(pair.up.bias)
            nn.init.zeros_(rbm.visible_bias)
            below = Passed(batches, units_below(model, pair.number))
            train_stage(rbm, self.update(rbm), below, self.epochs, pair.number, supplies)
            if isinstance(pair.down, nn.Linear):  # a tied layer has these weights already
                with torch.no_grad():
                    pair.down.weight.copy_(pair.up.weight.t())

    def update(self, rbm: RBM) -> Update:
        """Gradient descent with momentum that rises, on the machine's terms."""
        biases = [rbm.up.bias, rbm.visible_bias]
        groups: list[dict[str, Any]] = [
            {"params": [rbm.up.weight], "weight_decay": self.weight_cost},
            {"params": biases},
        ]
        optimizer = SGD(groups, lr=self.linear_lr if rbm.linear else self.lr, momentum=self.momentum[0])

        def gather_momentum(progress: float) -> None:
            for group in optimizer.param_groups:  # progress counts steps, and an epoch's first may round downwards
                group["momentum"] = self.momentum[progress * self.epochs + 1e-6 >= self.switch]

        return Update(rbm.terms, optimizer, before_step=(gather_momentum,))
