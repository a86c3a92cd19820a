"""Greedy stages: a dense autoencoder's pairs of layers, trained one after the other, each on the last one's code."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.dense import DenseDecoder, DenseEncoder
from aetrain.training.fit import EpochOfBatches, Run, Update, fit
from aetrain.training.pretrain import Supplies

log = logging.getLogger("aetrain")


@dataclass(frozen=True)
class Pair:
    """A layer on the way to the code and the decoder's that mirrors it."""

    number: int  # 1 reads pixels
    up: nn.Linear
    down: nn.Module  # an nn.Linear, or a TiedLinear that has only its bias
    shape: tuple[int, int, int]  # of what it reads: the picture, or the units below as maps of one pixel
    makes_code: bool


def layers_of(model: Autoencoder) -> list[nn.Linear]:
    """The layers from the pixels to the code; a ValueError where the model is not made of such layers alone."""
    encoder, decoder = model.encoder, model.decoder
    layers: list[nn.Linear] = []
    if isinstance(encoder, DenseEncoder) and isinstance(decoder, DenseDecoder):
        layers = [cast(nn.Linear, layer) for layer in (*encoder.layers, model.bottleneck.project)]
    if not isinstance(decoder, DenseDecoder) or len(decoder.layers) != len(layers):
        raise ValueError(
            "it goes layer by layer through a fully connected model: use model=deep, model=tied or model=vae, "
            "or pretrain=none"
        )
    return layers


def activations_of(model: Autoencoder) -> list[nn.Module]:
    """The activations of the model's hidden layers, first layer first."""
    assert isinstance(model.encoder, DenseEncoder)
    return list(model.encoder.activations)


def pairs(model: Autoencoder) -> list[Pair]:
    """The layers two by two, those that touch the pixels first and those that touch the code last."""
    ups = layers_of(model)
    assert isinstance(model.decoder, DenseDecoder)
    downs = reversed(list(model.decoder.layers))
    shapes = [model.image_shape, *((up.out_features, 1, 1) for up in ups[:-1])]
    return [
        Pair(number, up, down, shape, makes_code=number == len(ups))
        for number, (up, down, shape) in enumerate(zip(ups, downs, shapes, strict=True), start=1)
    ]


def units_below(model: Autoencoder, number: int) -> Callable[[Tensor], Tensor]:
    """What layer `number` reads: pixels [B, C, H, W] as they are, or the activations below as [B, units, 1, 1]."""
    below = list(zip(layers_of(model)[: number - 1], activations_of(model)[: number - 1], strict=True))

    def units(x: Tensor) -> Tensor:
        if not below:
            return x
        h = (model.low + (model.high - model.low) * x).flatten(1)  # [B, C * H * W]
        for layer, activation in below:
            h = activation(layer(h))  # [B, units]
        return h[:, :, None, None]

    return units


@dataclass(frozen=True)
class Passed:
    """An epoch of batches as a layer further up sees them. What is below is left as it is."""

    batches: EpochOfBatches
    below: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        for x in self.batches:
            with torch.no_grad():
                h = self.below(x)
            yield h


def train_stage(
    stage: nn.Module, update: Update, batches: EpochOfBatches, epochs: int, number: int, supplies: Supplies
) -> None:
    """Train stage `number` by `fit`. Its curves are logged as `pretrain/<number>/...`, over its own epochs."""

    def record(run: Run) -> None:
        for name, value in run.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"layer {number} diverged in epoch {run.epoch}: {name} is {value}; use a smaller lr")
        supplies.record(run.epoch, {f"pretrain/{number}/{name}": value for name, value in run.metrics.items()})
        figures = " ".join(f"{name} {value:.4g}" for name, value in run.metrics.items())
        log.info("pretrain layer %d, epoch %d/%d | %s | %.2f s", number, run.epoch, epochs, figures, run.seconds)

    # Seeds beyond any user's, so that no stage draws what another stage or the training draws.
    fit(Run(stage, supplies.seed + (number << 32), epochs), [update], batches, [record])
