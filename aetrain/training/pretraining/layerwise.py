"""Greedy layer-wise pretraining: each stage is an autoencoder that shares its layers with the model."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from torch import Tensor, nn

from aetrain.data.noise import LeveledNoise, Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.codes import Code
from aetrain.model.dense import DenseDecoder, DenseEncoder
from aetrain.model.likelihoods import Bernoulli, Gaussian, Likelihood
from aetrain.model.records import LossDict
from aetrain.objective.objective import Objective, recorded_losses
from aetrain.objective.penalties import Critic, Penalty
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
from aetrain.training.step import OptimizerStep, after_step_hooks
from aetrain.utils.shards import sharded


@dataclass(frozen=True)
class Layerwise:
    """Train each pair of layers to reconstruct the output of the trained layers below for clean images.

    Stage i minimises nll(decode_i(encode_i(noise(h_{i-1}))), h_{i-1}) with h_0 = x: Bengio et al. (2007), "Greedy
    layer-wise training of deep networks", section 3; with the run's noise on every stage's input it is the stacked
    denoising autoencoder of Vincent et al. (2010), section 3.5. `noise_levels` are the levels of this noise by layer.
    The stage of the code has the model's bottleneck, sparsifier and penalties, critics excluded; with `penalties` =
    all, the other stages have those penalties that read any code, too. Hidden units have the likelihood
    `hidden_likelihood`, or that of the function of this name. Each stage has a new optimizer of the run's kind, at a
    constant `lr` where one is given.
    """

    epochs: int = 5
    lr: float | None = None
    noise_levels: Sequence[float] | None = None
    penalties: Literal["code", "all"] = "code"
    hidden_likelihood: Likelihood | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs} trains no layer: use 1 or more, or pretrain=none")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr={self.lr} is not positive: use a number above 0, or null for the optimizer's own")
        if self.noise_levels is not None and not all(0 <= level <= 1 for level in self.noise_levels):
            raise ValueError(f"noise_levels={list(self.noise_levels)} are out of range: use numbers from 0 to 1")

    def check(self, model: Autoencoder) -> None:
        """Accept a model of fully connected layers with any activation, and a level of noise for each layer."""
        count = len(layers_of(model))
        if self.noise_levels is not None and len(self.noise_levels) != count:
            raise ValueError(
                f"noise_levels={list(self.noise_levels)} are {len(self.noise_levels)}, and the encoder has {count} "
                "layers with that of the code: give one level for each, or use null"
            )

    def check_noise(self, noise: Noise) -> None:
        """Accept a noise that has levels, where levels are given. Raise ValueError for another."""
        if self.noise_levels is not None and not hasattr(noise, "at_level"):
            raise ValueError(
                f"noise_levels={list(self.noise_levels)} need noise with a level, and {type(noise).__name__} has none: "
                "use noise=masking or noise=gaussian, or pretrain.noise_levels=null"
            )

    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Train the layers from the pixels to the code."""
        for pair in layer_pairs(model):
            stage = make_stage(model, pair, self.hidden_likelihood)
            objective = Objective(self.penalties_of(pair, context.objective))
            optimizer = context.make_optimizer(stage.parameters())
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if self.lr is None else self.lr
            losses = StageObjective(stage, objective, self.noise_of(pair, context.noise))
            optimizer_step = OptimizerStep(losses, optimizer, after_step=after_step_hooks(stage))
            loader = LayerInputBatches(context.batches, units_below(model, pair.number))
            recorded = partial(recorded_losses, stage)
            train_stage(stage, optimizer_step, loader, self.epochs, pair.number, context, recorded)

    def penalties_of(self, pair: LayerPair, objective: Objective) -> Mapping[str, Penalty]:
        """Return the penalties of a stage by name."""
        if not pair.is_code and self.penalties == "code":
            return {}
        penalties = {name: p for name, p in objective.penalties.items() if not isinstance(p, Critic)}
        return {name: p for name, p in penalties.items() if pair.is_code or p.reads is Code}

    def noise_of(self, pair: LayerPair, noise: Noise) -> "Noise | HiddenNoise":
        """Return the noise of a stage."""
        if self.noise_levels is not None:
            noise = cast(LeveledNoise, noise).at_level(self.noise_levels[pair.number - 1], pair.input_shape)
        return noise if pair.number == 1 else HiddenNoise(noise)


def make_stage(model: Autoencoder, pair: LayerPair, likelihood: Likelihood | None = None) -> Autoencoder:
    """Return the autoencoder of one pair of layers, which reconstructs the input of the pair in the model.

    `likelihood` is that of hidden units, by default the one that their activation has in `hidden_likelihood`.
    """
    bottleneck, code_transform = model.bottleneck, model.code_transform
    if not pair.is_code:
        bottleneck = Deterministic(pair.encoder_layer.in_features, pair.encoder_layer.out_features)
        bottleneck.project = pair.encoder_layer
        code_transform = nn.Sequential(activations_of(model)[pair.number - 1])
    reads_pixels = pair.number == 1
    if reads_pixels:
        likelihood = model.likelihood
    elif likelihood is None:
        likelihood = hidden_likelihood(activations_of(model)[pair.number - 2])
    stage = Autoencoder(
        encoder=DenseEncoder(pair.input_shape, (), "identity"),
        bottleneck=bottleneck,
        decoder=DenseDecoder(pair.input_shape, [pair.decoder_layer], ()),
        likelihood=likelihood if reads_pixels else copy.deepcopy(likelihood),
        code_activation=code_transform,
        sparsifier=nn.Identity(),
        image_shape=pair.input_shape,
        scale=(model.low, model.high) if reads_pixels else (0.0, 1.0),
    )
    if reads_pixels:
        stage.kind, stage.has_missing = model.kind, model.has_missing
    return stage


def hidden_likelihood(activation: nn.Module) -> Likelihood:
    """Return the likelihood of hidden units.

    The cross-entropy for sigmoid units (Vincent et al. 2010, eq. 3), the squared error for all others (their eq. 4).
    """
    return Bernoulli() if isinstance(activation, nn.Sigmoid) else HiddenLikelihood(activation)


class HiddenLikelihood(Gaussian):
    """Squared error of hidden units, computed behind their activation: no density of pixels, so it has no constant."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.linear = isinstance(activation, nn.Identity)
        self.output = activation

    def constant(self, num_pixels: int) -> float:
        """Return 0."""
        return 0.0

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Raise NotImplementedError: not every activation has an inverse, and no stage needs it."""
        raise NotImplementedError


@dataclass(frozen=True)
class HiddenNoise:
    """Noise on activations [B, units, 1, 1], rescaled so that a batch's smallest is 0 and its largest 1."""

    noise: Noise

    def __call__(self, x: Tensor) -> Tensor:
        low, high = x.amin(), x.amax()
        scaled = (x - low) / (high - low).clamp_min(1e-12)
        noisy = self.noise(scaled)
        return x if noisy is scaled else low + (high - low) * noisy.nan_to_num(0.0)  # units are not missing


@dataclass(frozen=True)
class StageObjective:
    """The losses of a stage."""

    stage: Autoencoder
    objective: Objective
    noise: Noise | HiddenNoise

    def __call__(self, x: Tensor) -> LossDict:
        return sharded(self._losses, self.noise(x), x)

    def _losses(self, x_in: Tensor, x: Tensor) -> LossDict:
        return self.objective(self.stage, self.stage(x_in, x))
