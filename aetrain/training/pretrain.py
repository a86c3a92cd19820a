"""What happens to the weights before training begins: nothing, the mean image, PCA, or stages of training."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aetrain.data.batches import Batches
from aetrain.data.noise import Noise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective


@dataclass(frozen=True)
class Supplies:
    """What pretraining may use."""

    batches: Batches
    noise: Noise
    objective: Objective  # what training will descend
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    seed: int
    record: Callable[[int, Mapping[str, float]], None]  # an epoch of a stage, and its figures by TensorBoard tag


class Pretrain(Protocol):
    """Prepares the weights of a model."""

    def check(self, model: Autoencoder) -> None:
        """Refuse, with a ValueError, a model that it cannot prepare; called before any data is read."""
        ...

    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Change the weights of the model in place."""
        ...


@dataclass(frozen=True)
class Untouched:
    """The weights as they were drawn."""

    def check(self, model: Autoencoder) -> None:
        """Any model will do."""

    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Nothing is done."""


@dataclass(frozen=True)
class MeanImage:
    """The decoder begins with the mean image: its last bias is what paints it."""

    def check(self, model: Autoencoder) -> None:
        """Any model will do."""

    @torch.no_grad()
    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Where one bias serves a whole map, it is that of the map's mean."""
        bias = model.decoder.output_bias
        mean = mean_image(supplies.batches).flatten(1)  # [C, H * W]
        pixels = mean.flatten() if bias.numel() == mean.numel() else mean.mean(1)
        bias.copy_(model.likelihood.decoded_for(pixels))


@dataclass(frozen=True)
class ExactPCA:
    """The exact solution of a linear autoencoder: z = V (x - mean), x = V^T z + mean, V the principal directions."""

    def check(self, model: Autoencoder) -> None:
        """Only a model that can be PCA."""
        if model.encoder.first_layer() is not None:
            raise ValueError("pca solves a model without hidden layers: use model=linear, or model.hidden=[]")
        if not model.likelihood.linear:
            raise ValueError("pca needs the squared error of a linear output: use likelihood=gaussian")
        if not all(isinstance(layer, nn.Identity) for layer in model.finish):
            raise ValueError("pca needs a linear code: use sparsity=none and model.code_activation=null")

    @torch.no_grad()
    def __call__(self, model: Autoencoder, supplies: Supplies) -> None:
        """Write it."""
        low, high = model.low, model.high
        pixels = supplies.batches.pixels.split(8192)
        pca = PCA.fit((low + (high - low) * supplies.batches.prepare(part) for part in pixels), model.code_dim)
        directions = torch.zeros_like(model.bottleneck.project.weight)  # [D, P], more units than directions stay idle
        directions[: len(pca.components)] = pca.components
        model.bottleneck.project.weight.copy_(directions)
        model.bottleneck.project.bias.copy_(-directions @ pca.mean)
        for weight in model.decoder.parameters():
            if weight.dim() == 2:  # where it is tied it has none of its own
                weight.copy_(directions.t())
        model.decoder.output_bias.copy_(pca.mean)


def mean_image(batches: Batches) -> Tensor:
    """The mean of the training images as they are shown, [C, H, W] in [0, 1]."""
    total = torch.stack([batches.prepare(part).sum(0) for part in batches.pixels.split(8192)]).sum(0)
    return total / len(batches.pixels)
