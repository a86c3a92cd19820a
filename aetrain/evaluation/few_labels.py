"""Few labels: what a trained encoder is worth as the start of a classifier, beside the same network's random start."""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from aetrain.data.batches import in_order
from aetrain.data.dataset import Images, Prepare, Splits
from aetrain.evaluation.measures import MeasureOfClasses, Subject, enough_images
from aetrain.evaluation.ruler import Figures
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import Settled
from aetrain.training.fit import Run, Terms, Update, fit

log = logging.getLogger("aetrain")


@final
@dataclass(frozen=True)
class FewLabels(MeasureOfClasses):
    """The encoder and a linear layer of classes on its code, trained together on few labelled images.

    It is trained twice, from the run's weights and from the random ones that the run began with, and judged by the
    whole test set: accuracy in %. Everything else is the same for both: the images, balanced over the classes and
    drawn with the run's seed (those of a smaller number are among those of a larger), their order, Adam at a constant
    `lr` in batches of `batch_size`, for as many epochs as come to `steps` steps, but at least `epochs`. Nothing is
    chosen by looking at images that are held out. Numbers of `labels` above that of the training images are left out.
    Erhan et al. (2010), "Why does unsupervised pre-training help deep learning?"
    """

    labels: Sequence[int] = (100, 1000, 10000)
    steps: int = 1000
    epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not self.labels or min(self.labels) < 2:
            raise ValueError(f"labels={list(self.labels)} teach nothing: use one or more numbers from 2 up")
        if min(self.steps, self.epochs) < 0 or self.steps + self.epochs < 1:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs} train nothing: use 1 or more of one of them")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr} teaches nothing: use a number above 0")

    def check_images(self, splits: Splits) -> None:
        """Enough images for the smallest number of labels."""
        super().check_images(splits)
        enough_images("labels", self.labels, splits)

    def __call__(self, subject: Subject) -> Figures:
        """`finetuned_100` and `finetuned_100_random`, and so on."""
        train, figures = subject.splits.train, {}
        device = train.pixels.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for count in [count for count in self.labels if count <= len(train)]:
                chosen = train[balanced(train.classes, count, subject.seed)]
                for name, start in {"": copy.deepcopy(subject.model), "_random": subject.untrained()}.items():
                    accuracy = self.accuracy(start, chosen, subject)
                    figures[f"finetuned_{count}{name}"] = accuracy
                    log.info("%d labels%s: %.2f %%", count, ", random start" if name else "", accuracy)
        return figures

    def accuracy(self, start: Autoencoder, images: Images, subject: Subject) -> float:
        """In % of the test images."""
        classifier = self.trained(start, images, subject.prepare, subject.seed)
        return 100 * right(classifier, subject.splits.test, subject.prepare)

    def trained(self, model: Autoencoder, images: Images, prepare: Prepare, seed: int) -> "Classifier":
        """A classifier that begins with the weights of `model`, and changes them."""
        torch.manual_seed(seed)
        classifier = Classifier(model, int(images.classes.max()) + 1).to(images.pixels.device)
        batches = Indices(images, self.batch_size)
        settle = [module.settle for module in classifier.modules() if isinstance(module, Settled)]
        terms = CrossEntropy(classifier, images, prepare)
        update = Update(terms, Adam(classifier.parameters(), lr=self.lr, fused=True), after_step=settle)
        epochs = max(self.epochs, -(-self.steps // len(batches)))
        fit(Run(classifier, seed, epochs), [update], batches)
        return classifier


class Classifier(nn.Module):
    """Log-odds of classes [B, classes], read by a linear layer from the code: its mean where it is random."""

    def __init__(self, model: Autoencoder, classes: int) -> None:
        super().__init__()
        self.model = model
        self.read = nn.Linear(model.code_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.model.mean_code(x))


@dataclass(frozen=True)
class CrossEntropy:
    """The terms of a classifier on images that are named by their indices [B]."""

    classifier: Classifier
    images: Images
    prepare: Prepare

    def __call__(self, index: Tensor) -> Terms:
        chosen = self.images[index]
        return {"loss": F.cross_entropy(self.classifier(self.prepare(chosen.pixels)), chosen.classes)}


@dataclass(frozen=True)
class Indices:
    """An epoch of shuffled indices [B], by which a batch's images and their classes are found together."""

    images: Images
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.images), device=self.images.pixels.device)
        return iter(order.split(self.batch_size))


def balanced(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices [count] of images drawn at random, in turns from all classes; more of them begin with the same ones."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    member = F.one_hot(labels.cpu()[order])  # [N, classes]
    turn = (member.cumsum(0) * member).sum(1)  # [N] 1 for the first of its class
    return order[turn.argsort(stable=True)[:count]].to(labels.device)


@torch.no_grad()
def right(classifier: Classifier, images: Images, prepare: Prepare) -> float:
    """Share of the images that are given their own class."""
    guessed = torch.cat([classifier(x).argmax(1) for x in in_order(images, 1000, prepare)])
    return float((guessed == images.classes).double().mean())
