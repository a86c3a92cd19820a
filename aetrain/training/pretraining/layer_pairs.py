"""The stages of greedy pretraining: pairs of encoder and decoder layers, each trained on the code of the last."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.dense import DenseDecoder, DenseEncoder
from aetrain.training.loop import EpochLoader, TrainState, fit
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.step import OptimizerStep

log = logging.getLogger("aetrain")


@dataclass(frozen=True)
class LayerPair:
    """A layer of the encoder and the decoder's layer that mirrors it."""

    number: int  # 1 reads pixels
    encoder_layer: nn.Linear
    decoder_layer: nn.Module  # an nn.Linear, or a TiedLinear, which has a bias alone
    input_shape: tuple[int, int, int]  # of the image, or of the units below as maps of one pixel
    is_code: bool  # whether its output is the code


def layers_of(model: Autoencoder) -> list[nn.Linear]:
    """Return the layers from the pixels to the code. Raise ValueError where the model has others than dense ones."""
    encoder, decoder = model.encoder, model.decoder
    layers: list[nn.Linear] = []
    if isinstance(encoder, DenseEncoder) and isinstance(decoder, DenseDecoder):
        layers = [cast(nn.Linear, layer) for layer in (*encoder.layers, model.bottleneck.project)]
    if not isinstance(decoder, DenseDecoder) or len(decoder.layers) != len(layers):
        raise ValueError("it needs a fully connected model: use model=deep, model=tied or model=vae, or pretrain=none")
    if encoder.reads_missing:
        raise ValueError("its stages reconstruct all that a layer reads: use model.observed=false, or pretrain=none")
    return layers


def activations_of(model: Autoencoder) -> list[nn.Module]:
    """Return the activations of the encoder's hidden layers, first layer first."""
    assert isinstance(model.encoder, DenseEncoder)
    return list(model.encoder.activations)


def layer_pairs(model: Autoencoder) -> list[LayerPair]:
    """Return the pairs from the pixels to the code."""
    encoder_layers = layers_of(model)
    assert isinstance(model.decoder, DenseDecoder)
    decoder_layers = reversed(list(model.decoder.layers))
    shapes = [model.image_shape, *((layer.out_features, 1, 1) for layer in encoder_layers[:-1])]
    return [
        LayerPair(number, *layers, is_code=number == len(encoder_layers))
        for number, layers in enumerate(zip(encoder_layers, decoder_layers, shapes, strict=True), start=1)
    ]


def units_below(model: Autoencoder, number: int) -> Callable[[Tensor], Tensor]:
    """Return a function from images [B, C, H, W] to the input of layer `number`: themselves, or [B, units, 1, 1]."""
    below = list(zip(layers_of(model)[: number - 1], activations_of(model)[: number - 1], strict=True))

    def units(x: Tensor) -> Tensor:
        if not below:
            return x
        known = x.nan_to_num(0.0) if model.has_missing else x
        h = (model.low + (model.high - model.low) * known).flatten(1)  # [B, C * H * W]
        for layer, activation in below:
            h = activation(layer(h))  # [B, units]
        return h[:, :, None, None]

    return units


@dataclass(frozen=True)
class LayerInputBatches:
    """An epoch of the inputs of a layer: batches of images through the layers below, which are not trained."""

    loader: EpochLoader
    below: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Tensor]:
        for x in self.loader:
            with torch.no_grad():
                h = self.below(x)
            yield h


def train_stage(
    stage: nn.Module,
    optimizer_step: OptimizerStep,
    loader: EpochLoader,
    epochs: int,
    number: int,
    context: PretrainContext,
    recorded: Callable[[Mapping[str, float]], dict[str, float]] = dict,
) -> None:
    """Train stage `number`. Its curves are logged as `pretrain/<number>/...`, over its own epochs.

    `recorded` maps means of its losses to the values that are logged.
    """

    def record(state: TrainState) -> None:
        metrics = recorded(state.metrics)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"layer {number} diverged in epoch {state.epoch}: {name} is {value}; use a smaller lr")
        context.record(state.epoch, {f"pretrain/{number}/{name}": value for name, value in metrics.items()})
        text = " ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.info("pretrain layer %d, epoch %d/%d | %s | %.2f s", number, state.epoch, epochs, text, state.seconds)

    # Seeds outside the range of users' seeds, so that no stage draws the random numbers of another or of training.
    state = TrainState(stage, context.seed + (number << 32), epochs)
    fit(state, [optimizer_step], loader, [record])
