"""Few labels: fine-tuning of the trained encoder on few labelled images, with the untrained encoder as baseline."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from aetrain.data.examples import Examples, IndexBatches, Prepare, Splits, in_order
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure, check_enough_images
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import LossDict
from aetrain.training.loop import TrainState, fit
from aetrain.training.step import OptimizerStep, after_step_hooks
from aetrain.utils.devices import keep_random_state, seed_generators, to_float64

log = logging.getLogger("aetrain")

BATCH_SIZE = 1000  # of evaluation


@final
@dataclass(frozen=True)
class FewLabels(LabelledMeasure):
    """Accuracy in % of the test images after the encoder and a linear layer are trained on few labelled images.

    Both are trained twice: from the run's trained weights and from its random initial weights. All else is equal: the
    images, their order, and Adam with a constant `lr` and batches of `batch_size`. The images are balanced over the
    classes and drawn with the run's seed; the images of a smaller number are among those of a larger number. Training
    takes `steps` steps or `epochs` epochs, whichever is longer. No images are held out to choose anything. Numbers of
    `labels` above the number of training images are left out.

    Erhan et al. (2010), "Why does unsupervised pre-training help deep learning?"
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "finetuned_N": (
            "test images classified correctly by encoder and linear classifier trained together on N labels, "
            "from the run's trained weights, %"
        ),
        "finetuned_N_random": (
            "test images classified correctly by encoder and linear classifier trained together on N labels, "
            "from the run's random initial weights, %"
        ),
    }

    labels: Sequence[int] = (100, 1000, 10000)
    steps: int = 1000
    epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not self.labels or min(self.labels) < 2:
            raise ValueError(f"labels={list(self.labels)} are too few: use one or more numbers, each 2 or more")
        if min(self.steps, self.epochs) < 0 or self.steps + self.epochs < 1:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs} train nothing: use 1 or more of one of them")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr} is not positive: use a learning rate above 0")

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for images without classes, or fewer images than the smallest number of labels."""
        super().check_images(splits)
        check_enough_images("labels", self.labels, splits)

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `finetuned_100`, `finetuned_100_random` and so on."""
        train, metrics = inputs.splits.train, {}
        device = train.values.device
        counts = [count for count in self.labels if count <= len(train)]
        with keep_random_state(device):
            for count in counts:
                labelled = train[balanced_subset(train.classes, count, inputs.seed)]
                for suffix, model in {"": copy.deepcopy(inputs.model), "_random": inputs.make_untrained()}.items():
                    log.info("fine-tuning with %d labels, from %s weights", count, "random" if suffix else "trained")
                    classifier = self.fine_tune(model, labelled, inputs.prepare, inputs.seed)
                    percent = 100 * accuracy(classifier, inputs.splits.test, inputs.prepare)
                    metrics[f"finetuned_{count}{suffix}"] = percent
        return metrics

    def fine_tune(self, model: Autoencoder, images: Examples, prepare: Prepare, seed: int) -> "Classifier":
        """Return a classifier trained on labelled images; the weights of `model` are changed."""
        seed_generators(seed)
        classifier = Classifier(model, int(images.classes.max()) + 1).to(images.values.device)
        batches = IndexBatches(images, self.batch_size)
        optimizer = Adam(classifier.parameters(), lr=self.lr, fused=True)
        losses = CrossEntropy(classifier, images, prepare)
        optimizer_step = OptimizerStep(losses, optimizer, after_step=after_step_hooks(classifier))
        epochs = max(self.epochs, math.ceil(self.steps / len(batches)))
        fit(TrainState(classifier, seed, epochs), [optimizer_step], batches)
        return classifier


class Classifier(nn.Module):
    """An encoder and a linear layer on its code, on the mean of a random code."""

    def __init__(self, model: Autoencoder, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.linear = nn.Linear(model.code_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes, [B, classes]."""
        return self.linear(self.model.mean_code(x))


@dataclass(frozen=True)
class CrossEntropy:
    """The loss of a classifier on a batch of indices of labelled images."""

    classifier: Classifier
    images: Examples
    prepare: Prepare

    def __call__(self, index: Tensor) -> LossDict:
        """Return the mean cross-entropy of the images at index [B] as `loss`."""
        batch = self.images[index]
        return {"loss": F.cross_entropy(self.classifier(self.prepare(batch.values)), batch.classes)}


def balanced_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return indices [count] of random images that take turns through the classes of labels [N].

    A larger subset with the same seed begins with the smaller one.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = labels.cpu()[order].argsort(stable=True)
    counts = labels.cpu().unique(return_counts=True)[1]
    start = (counts.cumsum(0) - counts).repeat_interleave(counts)  # [N] of the image's class in `by_class`
    turn = torch.empty_like(by_class)
    turn[by_class] = torch.arange(len(labels)) - start  # 0 for the first image of its class
    return order[turn.argsort(stable=True)[:count]].to(labels.device)


@torch.no_grad()
def accuracy(classifier: Classifier, images: Examples, prepare: Prepare) -> float:
    """Return the share of images that are classified correctly."""
    predicted = torch.cat([classifier(x).argmax(1) for x in in_order(images, BATCH_SIZE, prepare)])
    return float(to_float64(predicted == images.classes).mean())
