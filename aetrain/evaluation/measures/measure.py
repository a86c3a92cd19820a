"""Measures: metrics beside the standard ones, computed on request, such as probes of a code or an image likelihood."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, Splits, in_order
from aetrain.data.noise import Noise
from aetrain.evaluation.evaluator import Metrics
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.model.records import noun_of
from aetrain.objective.objective import Objective


@dataclass(frozen=True, eq=False)
class EvalInputs:
    """A trained model in evaluation mode, and the data on which it is measured."""

    model: Autoencoder
    objective: Objective
    noise: Noise
    splits: Splits
    prepare: Prepare
    make_untrained: Callable[[], Autoencoder]  # returns the model before training; seeds the global generator
    seed: int  # of the run
    pca: PCA | None = None  # of the training images, as many components as the code has units; None for large images


class Measure(ABC):
    """A group of metrics that is computed on request. A subclass is final, and its signature lists its settings.

    `descriptions` are those of its metrics by name, with units. A name may be a pattern: in `precision_K` a single
    capital stands for a number, in `noisy_sse_NOISE_K` a longer word in capitals for any word.
    """

    descriptions: ClassVar[Mapping[str, str]] = {}

    def check(self, model: Autoencoder) -> None:  # noqa: B027  # most measures accept every model
        """Raise ValueError for a model that the measure does not apply to. Called before any data is read."""

    def check_images(self, splits: Splits) -> None:  # noqa: B027
        """Raise ValueError for images that the measure does not apply to. Called before training."""

    @abstractmethod
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return metrics by name. Random numbers come from own generators, so that a second call returns the same."""


class LabelledMeasure(Measure):
    """A measure that needs the classes of the images."""

    @property
    def reads_training_classes(self) -> bool:
        """Tell whether the measure needs the classes of training images."""
        return True

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for images without classes, and where there are no training images or no others to test."""
        if not len(splits.train):
            noun = noun_of(splits.test.kind)
            raise ValueError(f"this measure needs training {noun}s, but the only {noun} is for testing: leave it out")
        if splits.train.labels is None or splits.test.labels is None:
            raise ValueError(
                "this measure needs the classes of the examples, but these have none: sort the images of a folder "
                "into one folder per class, add labels to an .npz file, name the column of a table (dataset.label=), "
                "or leave this measure out"
            )
        if splits.single_set and self.reads_training_classes:
            raise ValueError(
                "with dataset.single_set=true this measure would be tested on its own training examples: use "
                "dataset.single_set=false, or leave it out; measures.probes.methods=[kmeans] reads no training classes"
            )


def check_enough_images(name: str, counts: Sequence[int], splits: Splits) -> None:
    """Raise ValueError if each number of the setting `name` is larger than the number of training images."""
    if min(counts) > len(splits.train):
        noun = noun_of(splits.train.kind)
        raise ValueError(f"{name}={list(counts)} asks for more than the {len(splits.train)} training {noun}s: use less")


@torch.no_grad()
def encode_all(model: Autoencoder, images: Examples, prepare: Prepare, batch_size: int = 1000) -> Tensor:
    """Return the codes of all images in order, [N, D]; the mean of a random code."""
    codes: Sequence[Tensor] = [model.mean_code(x) for x in in_order(images, batch_size, prepare)]
    return torch.cat([*codes])
