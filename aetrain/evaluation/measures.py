"""Measures beside the ruler, asked for by name: what a code is good for, and how likely images are."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.data.batches import in_order
from aetrain.data.dataset import Images, Prepare, Splits
from aetrain.data.noise import Noise
from aetrain.evaluation.ruler import Figures
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model in evaluation mode, and the data it is measured on."""

    model: Autoencoder
    objective: Objective
    noise: Noise
    splits: Splits
    prepare: Prepare
    untrained: Callable[[], Autoencoder]  # the model as it was before training; seeds the global generator
    seed: int  # of the run
    pca: PCA | None = None  # of the training images, with a code of the model's size; None where they are too large


class Measure(ABC):
    """Figures that not every run needs. A subclass is final, and its own settings are its signature."""

    def check(self, model: Autoencoder) -> None:  # noqa: B027  # most measure anything
        """Refuse, with a ValueError, a model that it cannot measure; called before any data is read."""

    def check_images(self, splits: Splits) -> None:  # noqa: B027
        """Refuse, with a ValueError, images that it cannot measure by; called before training."""

    @abstractmethod
    def __call__(self, subject: Subject) -> Figures:
        """Figures by name. What is random comes from generators of its own, so that looking twice shows the same."""


class MeasureOfClasses(Measure):
    """A measure of what the code says of the images' classes."""

    def check_images(self, splits: Splits) -> None:
        """Only images whose classes are known."""
        if splits.train.labels is None or splits.test.labels is None:
            raise ValueError(
                "what the code says of the images' classes is measured, but these have none: sort a folder's images "
                "into a folder for each class, give an .npz file labels, or leave this measure out"
            )


def enough_images(name: str, counts: Sequence[int], splits: Splits) -> None:
    """Refuse, with a ValueError, a setting whose numbers of training images are all larger than there are."""
    if min(counts) > len(splits.train):
        raise ValueError(f"{name}={list(counts)} asks for more than the {len(splits.train)} training images: use less")


@torch.no_grad()
def codes(model: Autoencoder, images: Images, prepare: Prepare, batch_size: int = 1000) -> Tensor:
    """The codes of images in order, [N, D]: the mean where they are random."""
    found: Sequence[Tensor] = [model.mean_code(x) for x in in_order(images, batch_size, prepare)]
    return torch.cat([*found])


def digest(*tensors: Tensor) -> str:
    """What tells these numbers from all others."""
    content = hashlib.blake2b()
    for tensor in tensors:
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
