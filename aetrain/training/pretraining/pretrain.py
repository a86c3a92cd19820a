"""Initialise the weights before training: as drawn, from the mean image, or by PCA."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aetrain.data.examples import Batches, known_mean
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import are_linear
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective

MEAN_BATCH_SIZE = 8192  # images of which moments are summed at a time


@dataclass(frozen=True)
class PretrainContext:
    """The data and functions that pretraining may use."""

    batches: Batches
    noise: Noise
    objective: Objective  # of the training that follows
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    seed: int
    record: Callable[[int, Mapping[str, float]], None]  # takes an epoch of a stage and its metrics by TensorBoard tag


class Pretrain(Protocol):
    """A method that prepares the weights of a model."""

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError for a model that it cannot prepare; called before any data is read."""
        ...

    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Change the weights of the model in place."""
        ...


@dataclass(frozen=True)
class NoPretraining:
    """Keep the weights as they were drawn."""

    def check(self, model: Autoencoder) -> None:
        """Accept any model."""

    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class MeanImage:
    """Set the decoder's last bias so that training begins with the mean image."""

    def check(self, model: Autoencoder) -> None:
        """Accept a model whose decoder has an output bias."""
        if model.decoder.output_bias is None:
            name = type(model.decoder).__name__
            raise ValueError(f"mean needs a decoder with an output bias, and {name} states none: use pretrain=none")

    @torch.no_grad()
    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Set the bias of each pixel, or of each channel to the channel's mean where there is one bias a channel."""
        bias = model.decoder.output_bias
        assert bias is not None  # checked before
        mean = mean_image(context.batches)  # [C, H, W]
        per_bias = mean if bias.numel() == mean.numel() else mean.flatten(1).mean(1)[:, None, None]
        bias.copy_(model.likelihood.inverse_mean(per_bias[None]).flatten())


@dataclass(frozen=True)
class ExactPCA:
    """Set the exact solution of a linear autoencoder: z = V (x - mean), x = V^T z + mean, V the components."""

    def check(self, model: Autoencoder) -> None:
        """Accept a linear autoencoder with a linear output and a linear code."""
        if not model.encoder.passes_pixels:
            raise ValueError("pca needs a model without hidden layers: use model=linear, or model.hidden=[]")
        if model.encoder.reads_missing:
            raise ValueError("pca needs an encoder that reads the values alone: use model.observed=false")
        if not model.likelihood.linear:
            raise ValueError("pca needs the squared error of a linear output: use likelihood=gaussian")
        if not are_linear(model.code_transform):
            raise ValueError("pca needs a linear code: use sparsity=none and model.code_activation=null")
        if model.has_missing:
            raise ValueError("pca needs complete data, and these have missing values: use pretrain=mean or none")

    @torch.no_grad()
    def __call__(self, model: Autoencoder, context: PretrainContext) -> None:
        """Set the weights."""
        low, high = model.low, model.high
        pixels = context.batches.values.split(MEAN_BATCH_SIZE)
        pca = PCA.fit((low + (high - low) * context.batches.prepare(part) for part in pixels), model.code_dim)
        directions = torch.zeros_like(
            model.bottleneck.project.weight
        )  # [D, P]; units beyond the number of directions stay 0
        directions[: len(pca.components)] = pca.components
        model.bottleneck.project.weight.copy_(directions)
        model.bottleneck.project.bias.copy_(-directions @ pca.mean)
        for weight in model.decoder.parameters():
            if weight.dim() == 2:  # a tied layer has no matrix of its own
                weight.copy_(directions.t())
        assert model.decoder.output_bias is not None  # of a dense decoder
        model.decoder.output_bias.copy_(pca.mean)


def mean_image(batches: Batches) -> Tensor:
    """Return the mean of the known values of the prepared training examples, [C, H, W]; 0 where none is known."""
    return known_mean(batches.prepare(part) for part in batches.values.split(MEAN_BATCH_SIZE))
