"""Linear classifiers: logistic regression and support vector machine, fitted by L-BFGS on the device of the data."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.training.optimizers import LBFGS
from aetrain.utils.devices import to_float64

ClassifierLoss = Callable[[Tensor, Tensor], Tensor]  # scores [N, classes] and classes [N] to the sum over rows

C_CANDIDATES = (1.0, 0.1, 0.01)  # inverse strengths of the regularisation
MAX_ITERATIONS = 200  # scikit-learn's default is 100
MIN_SCALE = 1e-12


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of -log softmax(scores)[label]: the loss of multinomial logistic regression."""
    return F.cross_entropy(scores, labels, reduction="sum")


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of max(0, 1 - y s)^2 over classes and rows, y = 1 for the row's class and -1 for the others.

    The loss of one-vs-rest support vector machines in LIBLINEAR (Fan et al. 2008, eq. 2) and so in scikit-learn's
    LinearSVC, whose solvers take 10 times as long for 784 pixels.
    """
    sign = 2 * F.one_hot(labels, scores.shape[1]) - 1
    return (1 - sign * scores).clamp_min(0).square().sum()


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """A classifier with the scores w.x + b."""

    weight: Tensor  # [classes, D]
    bias: Tensor  # [classes]

    @staticmethod
    def fit(rows: Tensor, labels: Tensor, num_classes: int, loss: ClassifierLoss, c: float) -> "LinearClassifier":
        """Minimise |w|^2 / 2 + c * (sum of losses), from zero weights, for rows [N, D] and labels [N]."""
        weight = nn.Parameter(torch.zeros(num_classes, rows.shape[1], device=rows.device))
        bias = nn.Parameter(torch.zeros(num_classes, device=rows.device))
        optimizer = LBFGS([weight, bias], max_iter=MAX_ITERATIONS)

        def closure() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            # Divided by c and the number of rows, so that the tolerances of the solver do not depend on them.
            penalty = weight.square().sum() / (2 * c)
            value = (loss(F.linear(rows, weight, bias), labels) + penalty) / len(rows)
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)
        return LinearClassifier(weight.detach(), bias.detach())

    def accuracy(self, rows: Tensor, labels: Tensor) -> float:
        """Return the share of rows [N, D] whose highest score is that of their label."""
        return float(to_float64(F.linear(rows, self.weight, self.bias).argmax(1) == labels).mean())


def linear_accuracy(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, loss: ClassifierLoss) -> float:
    """Return the share of test rows that a linear classifier of the training rows classifies correctly.

    Rows are centred and divided by the root of their mean variance. The inverse strength of the regularisation is the
    candidate with the best accuracy on the last fifth of the training rows, the smallest one if several are best. The
    classifier is then fitted to all training rows.
    """
    center = train.mean(0)
    scale = (train - center).square().mean().sqrt().clamp_min(MIN_SCALE)
    train, test = (train - center) / scale, (test - center) / scale
    num_classes = int(torch.cat([labels, test_labels]).max()) + 1
    cut = len(train) - len(train) // 5
    validation_accuracies = {}
    for c in sorted(C_CANDIDATES):
        classifier = LinearClassifier.fit(train[:cut], labels[:cut], num_classes, loss, c)
        validation_accuracies[c] = classifier.accuracy(train[cut:], labels[cut:])
    best_c = max(validation_accuracies, key=lambda c: validation_accuracies[c])
    return LinearClassifier.fit(train, labels, num_classes, loss, best_c).accuracy(test, test_labels)
