"""Greedy layer-wise pretraining: every stage is an autoencoder over shared layers, trained by the same loop."""

from dataclasses import dataclass

from torch import Tensor, nn

from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.dense import DenseDecoder, DenseEncoder
from aetrain.model.layers import Settled
from aetrain.model.likelihoods import Bernoulli, Gaussian, Likelihood
from aetrain.objective.objective import Objective, Terms
from aetrain.objective.penalties import Critic
from aetrain.training.fit import Update
from aetrain.training.pretrain import Supplies
from aetrain.training.stages import Pair, Passed, activations_of, layers_of, pairs, train_stage, units_below


@dataclass(frozen=True)
class Layerwise:
    """Each layer and its mirror learn to reconstruct what the layers below, already trained, make of clean images.

    Stage i minimises nll(decode_i(encode_i(noise(h_{i-1}))), h_{i-1}) with h_0 = x: Bengio et al. (2007), "Greedy
    layer-wise training of deep networks", section 3; with the run's noise on every stage's input it is the stacked
    denoising autoencoder of Vincent et al. (2010), section 3.5. The stage of the code has its bottleneck, sparsifier
    and penalties (those of a critic left to the training that follows). The optimizer is a new one of the run's kind
    for each stage, at its own constant `lr` where one is given.
    """

    epochs: int = 5
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} trains no layer: use 1 or more, or pretrain=none")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr={self.lr} teaches nothing: use a number above 0, or null for the optimizer's own")

    def check(self, model: Autoencoder) -> None:
        """Only a model made of fully connected layers, of any activation."""
        layers_of(model)

    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Train the layers from the pixels to the code."""
        penalties = {name: p for name, p in supplies.objective.penalties.items() if not isinstance(p, Critic)}
        for pair in pairs(model):
            stage = stage_of(model, pair)
            objective = Objective(penalties if pair.makes_code else {})
            optimizer = supplies.make_optimizer(stage.parameters())
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if self.lr is None else self.lr
            noise = supplies.noise if pair.number == 1 else OnUnits(supplies.noise)
            settle = [module.settle for module in stage.modules() if isinstance(module, Settled)]
            update = Update(Reconstruct(stage, objective, noise), optimizer, after_step=settle)
            batches = Passed(supplies.batches, units_below(model, pair.number))
            train_stage(stage, update, batches, self.epochs, pair.number, supplies)


def stage_of(model: Autoencoder, pair: Pair) -> Autoencoder:
    """The autoencoder of one pair of layers: it reads and paints what the pair reads in the model."""
    bottleneck, finish = model.bottleneck, model.finish
    if not pair.makes_code:
        bottleneck = Deterministic(pair.up.in_features, pair.up.out_features)
        bottleneck.project = pair.up
        finish = nn.Sequential(activations_of(model)[pair.number - 1])
    pixels = pair.number == 1
    return Autoencoder(
        encoder=DenseEncoder(pair.shape, (), "identity"),
        bottleneck=bottleneck,
        decoder=DenseDecoder(pair.shape, [pair.down], ()),
        likelihood=model.likelihood if pixels else likelihood_of(activations_of(model)[pair.number - 2]),
        code_activation=finish,
        sparsifier=nn.Identity(),
        image_shape=pair.shape,
        scale=(model.low, model.high) if pixels else (0.0, 1.0),
    )


def likelihood_of(activation: nn.Module) -> Likelihood:
    """How far units are from what a decoder paints for them.

    Cross-entropy of sigmoid units (Vincent et al. 2010, eq. 3), the squared error of all others (their eq. 4).
    """
    return Bernoulli() if isinstance(activation, nn.Sigmoid) else Units(activation)


class Units(Gaussian):
    """Squared error of units behind their activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.linear = isinstance(activation, nn.Identity)
        self.output = activation

    def decoded_for(self, x: Tensor) -> Tensor:
        """Not every activation has an inverse, and no stage needs it."""
        raise NotImplementedError


@dataclass(frozen=True)
class OnUnits:
    """Noise on activations [B, units, 1, 1]: a batch's smallest counts as black and its largest as white."""

    noise: Noise

    def __call__(self, x: Tensor) -> Tensor:
        low, high = x.amin(), x.amax()
        shade = (x - low) / (high - low).clamp_min(1e-12)
        seen = self.noise(shade)
        return x if seen is shade else low + (high - low) * seen


@dataclass(frozen=True)
class Reconstruct:
    """The terms of a stage."""

    stage: Autoencoder
    objective: Objective
    noise: Noise | OnUnits

    def __call__(self, x: Tensor) -> Terms:
        return self.objective(self.stage, self.stage(self.noise(x), x))
