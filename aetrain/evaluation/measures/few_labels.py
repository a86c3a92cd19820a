"""Few labels: fine-tuning of the trained encoder on labelled images, with the untrained encoder as baseline."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, Adam, Optimizer

from aetrain.data.examples import Examples, IndexBatches, Prepare, Splits, in_order
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure, check_enough_images
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import LossDict, noun_of
from aetrain.training.best_weights import BestWeights
from aetrain.training.early_stopping import StopRule
from aetrain.training.loop import TrainState, fit
from aetrain.training.schedules import Constant, Schedule, replace_epochs
from aetrain.training.selectors import name_selectors
from aetrain.training.step import OptimizerStep, after_step_hooks
from aetrain.utils.devices import keep_random_state, seed_generators, to_float64

log = logging.getLogger("aetrain")

BATCH_SIZE = 1000  # of evaluation


MakeOptimizer = Callable[..., Optimizer]  # from parameters, or from groups of them with a learning rate each

NAMES = {"": "trained", "_random": "random initial"}  # weights from which a classifier starts, by the metric's suffix


@final
@dataclass(frozen=True)
class FewLabels(LabelledMeasure):
    """Accuracy in % of the test images after the encoder and a linear layer are trained on few labelled images.

    Both are trained twice: from the run's trained weights and from its random initial weights. All else is equal: the
    images, their order, the optimizer, its schedule and batches of `batch_size`; but `encoder_lr` is the learning rate
    of the trained encoder alone, because a random one has its features still to learn. The optimizer is Adam with
    `lr` where `optimizer` names no other. The images are balanced over the classes and drawn with the run's seed; the
    images of a smaller number are among those of a larger number. Training takes `steps` steps or `epochs` epochs,
    whichever is longer. Numbers of `labels` above the number of training images are left out; null stands for all.

    With `keep` = best the test images see the classifier of the epoch with the best accuracy on the validation images,
    the first of them if several are best. This accuracy is also the objective of `stop`, which ends the training early,
    and of a schedule that reads one. Without any of these no images are held out to choose anything.

    Erhan et al. (2010), "Why does unsupervised pre-training help deep learning?"
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        f"finetuned_N{suffix}{name}": f"{text} encoder and linear classifier trained together on N labels, {end}"
        for suffix, weights in NAMES.items()
        for name, text, end in (
            ("", "test images classified correctly by", f"from the run's {weights} weights, %"),
            (
                "_validation",
                "validation images classified correctly by",
                f"from the run's {weights} weights, in the best epoch (keep=best), %",
            ),
            ("_epoch", "epoch with the best accuracy on validation images of", f"from the run's {weights} weights"),
        )
    }

    labels: Sequence[int | None] = (100, 1000, 10000)
    steps: int = 1000
    epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-3
    encoder_lr: float | None = None
    optimizer: MakeOptimizer | None = None
    schedule: Schedule | None = None
    stop: StopRule | None = None
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        if not self.labels or min(self.numbers, default=2) < 2:
            raise ValueError(f"labels={list(self.labels)} are too few: use one or more numbers, each 2 or more")
        if min(self.steps, self.epochs) < 0 or self.steps + self.epochs < 1:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs} train nothing: use 1 or more of one of them")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        for name in ("lr", "encoder_lr"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ValueError(f"{name}={rate} is not positive: use a learning rate above 0")
        optimizer: Any = self.optimizer  # which a config may give as a text
        if isinstance(optimizer, str):
            advice = f"for few_labels, optimizer@measures.few_labels.optimizer={optimizer}"
            raise ValueError(f"optimizer={optimizer} is no section: use the group: {advice}")
        if self.encoder_lr is not None and _is_lbfgs(self.optimizer):
            raise ValueError(f"encoder_lr={self.encoder_lr} does not fit L-BFGS, which has one step length: use null")

    @property
    def numbers(self) -> list[int]:
        """The numbers in `labels`, without the null that stands for all images."""
        return [count for count in self.labels if count is not None]

    @property
    def selectors(self) -> list[str]:
        """The settings that compare epochs by the accuracy on validation images, in words."""
        return name_selectors(self.keep, self.stop, self.schedule)

    def count_labels(self, splits: Splits) -> list[int]:
        """Return the numbers of training images on which the classifiers are trained, each once."""
        counts = [len(splits.train) if count is None else count for count in self.labels]
        return list(dict.fromkeys(count for count in counts if count <= len(splits.train)))

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError where the optimizer refuses its settings."""
        with keep_random_state(torch.device("cpu")):
            try:
                self.make_optimizer(Classifier(model, num_classes=2))
            except (ValueError, TypeError) as error:
                raise ValueError(f"the optimizer refuses its settings: {error}") from error

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for images without classes, too few of them, or none to choose an epoch by."""
        super().check_images(splits)
        if len(self.numbers) == len(self.labels):
            check_enough_images("labels", self.numbers, splits)
        if self.selectors and not len(splits.validation):
            noun = noun_of(splits.train.kind)
            raise ValueError(
                f"{self.selectors[0]} compares epochs by validation {noun}s, and there are none: hold training {noun}s "
                "out by dataset.validation=, or leave it out"
            )

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `finetuned_100`, `finetuned_100_random` and so on."""
        train, metrics = inputs.splits.train, {}
        with keep_random_state(train.values.device):
            for count in self.count_labels(inputs.splits):
                labelled = train[balanced_subset(train.classes, count, inputs.seed)]
                for suffix, name in NAMES.items():
                    log.info("fine-tuning with %d labels, from %s weights", count, name)
                    measure = replace(self, encoder_lr=None) if suffix else self
                    model = inputs.make_untrained() if suffix else copy.deepcopy(inputs.model)
                    for key, value in measure.evaluate(model, labelled, inputs).items():
                        metrics[f"finetuned_{count}{suffix}{key}"] = value
        return metrics

    def evaluate(self, model: Autoencoder, labelled: Examples, inputs: EvalInputs) -> Metrics:
        """Return the accuracy by the name "", and those of the best epoch; the weights of `model` are changed."""
        best = self.fine_tune(model, labelled, inputs)
        metrics = {"": 100 * accuracy(best.classifier, inputs.splits.test, inputs.prepare)}
        if self.keep == "best":
            metrics |= {"_validation": 100 * best.accuracy, "_epoch": float(best.epoch)}
        return metrics

    def fine_tune(self, model: Autoencoder, images: Examples, inputs: EvalInputs) -> "BestEpoch":
        """Return a classifier trained on labelled images; the weights of `model` are changed."""
        seed_generators(inputs.seed)
        classifier = Classifier(model, int(images.classes.max()) + 1).to(images.values.device)
        batches = IndexBatches(images, self.batch_size)
        optimizer = self.make_optimizer(classifier)
        losses = CrossEntropy(classifier, images, inputs.prepare)
        epochs = max(self.epochs, math.ceil(self.steps / len(batches)))
        schedule = Constant() if self.schedule is None else replace_epochs(self.schedule, epochs)
        step = OptimizerStep(losses, optimizer, schedule.hooks(optimizer), after_step_hooks(classifier))
        state = TrainState(classifier, inputs.seed, epochs)
        best = BestEpoch(classifier, inputs.splits.validation, inputs.prepare)
        comparison = EpochComparison(best, step, self.stop)
        fit(state, [step], batches, [comparison] * bool(self.selectors))
        if state.stop_reason:
            log.info("fine-tuning stops in epoch %d: %s", state.epoch, state.stop_reason)
        if self.keep == "best":
            best.restore(state.epoch)
        return best

    def make_optimizer(self, classifier: "Classifier") -> Optimizer:
        """Return the optimizer of a classifier, with `encoder_lr` for its encoder."""
        make = partial(Adam, lr=self.lr, fused=True) if self.optimizer is None else self.optimizer
        if self.encoder_lr is None:
            return make(classifier.parameters())
        encoder: dict[str, Any] = {"params": classifier.model.parameters(), "lr": self.encoder_lr}
        return make([encoder, {"params": classifier.linear.parameters()}])


def _is_lbfgs(optimizer: MakeOptimizer | None) -> bool:
    kind = getattr(optimizer, "func", optimizer)  # a config gives a functools.partial of the class
    return isinstance(kind, type) and issubclass(kind, LBFGS)


class BestEpoch:
    """A callback of `fit`: the epoch of a classifier with the best accuracy on validation images, and its weights."""

    def __init__(self, classifier: "Classifier", images: Examples, prepare: Prepare) -> None:
        self.classifier = classifier
        self.images = images
        self.prepare = prepare
        self.accuracies: list[float] = []  # of all epochs: shares of the images
        self.weights = BestWeights(classifier)

    @property
    def accuracy(self) -> float:
        """The share of the images in the best epoch."""
        return max(self.accuracies)

    @property
    def epoch(self) -> int:
        """The best epoch, the first one if several are best."""
        return self.accuracies.index(self.accuracy) + 1

    def __call__(self, state: TrainState) -> None:
        """Keep the weights of the epoch that has ended where they are better than those of all before."""
        self.accuracies.append(accuracy(self.classifier, self.images, self.prepare))
        if self.epoch == state.epoch:
            self.weights.store()

    def restore(self, epochs: int) -> None:
        """Put the weights of the best epoch into the classifier."""
        self.weights.swap()
        percent = 100 * self.accuracy
        log.info("epoch %d of %d is best: %.2f %% of the validation images", self.epoch, epochs, percent)


@dataclass(frozen=True)
class EpochComparison:
    """A callback of `fit`: the best epoch, and the schedule and the end of training that depend on the accuracies."""

    best: BestEpoch
    step: OptimizerStep
    stop: StopRule | None

    def __call__(self, state: TrainState) -> None:
        """Compare the epoch that has ended with those before."""
        self.best(state)
        self.step.set_objective(self.best.accuracies, True)
        if self.stop is not None:
            state.stop_reason = self.stop.reason(self.best.accuracies, True)


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
