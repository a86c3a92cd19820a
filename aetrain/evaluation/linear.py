"""Linear classifiers: logistic regression and support vector machine, solved by L-BFGS on the data's own device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.training.optimizers import LBFGS

Loss = Callable[[Tensor, Tensor], Tensor]  # scores [N, classes] and classes [N] to the sum over images

STRENGTHS = (1.0, 0.1, 0.01)  # of which C is chosen
ITERATIONS = 200  # scikit-learn stops at 100 by default


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(scores)[label]: logistic regression of several classes."""
    return F.cross_entropy(scores, labels, reduction="sum")


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """max(0, 1 - y s)^2 summed over classes, y = 1 for the image's own and -1 for the rest.

    One against the rest, as LIBLINEAR solves it (Fan et al. 2008, eq. 2; scikit-learn's LinearSVC, whose solvers
    take ten times as long for 784 pixels).
    """
    sign = 2 * F.one_hot(labels, scores.shape[1]) - 1
    return (1 - sign * scores).clamp_min(0).square().sum()


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores of classes, w.x + b."""

    weight: Tensor  # [classes, D]
    bias: Tensor  # [classes]

    @staticmethod
    def fit(rows: Tensor, labels: Tensor, classes: int, loss: Loss, strength: float) -> "Linear":
        """Minimise |w|^2 / 2 + C * sum of losses for C = `strength`, from zero."""
        weight = nn.Parameter(torch.zeros(classes, rows.shape[1], device=rows.device))
        bias = nn.Parameter(torch.zeros(classes, device=rows.device))
        optimizer = LBFGS([weight, bias], max_iter=ITERATIONS)

        def closure() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            # Divided by C and the number of images, so that the solver's tolerances mean the same for all.
            penalty = weight.square().sum() / (2 * strength)
            value = (loss(F.linear(rows, weight, bias), labels) + penalty) / len(rows)
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)
        return Linear(weight.detach(), bias.detach())

    def accuracy(self, rows: Tensor, labels: Tensor) -> float:
        """Share of the rows [N, D] whose own class scores highest."""
        return float((F.linear(rows, self.weight, self.bias).argmax(1) == labels).to(torch.float64).mean())


def linear_accuracy(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, loss: Loss) -> float:
    """Share of the test rows that a linear classifier gives their own class; nothing of them is used to choose C.

    Rows are centred and divided by the root of their mean variance. C is the one of STRENGTHS that is best on the last
    fifth of the training rows, of equals the smallest; then all of them teach.
    """
    middle = train.mean(0)
    size = (train - middle).square().mean().sqrt().clamp_min(1e-12)
    train, test = (train - middle) / size, (test - middle) / size
    classes = int(torch.cat([labels, test_labels]).max()) + 1
    cut = len(train) - len(train) // 5
    held_out = {
        strength: Linear.fit(train[:cut], labels[:cut], classes, loss, strength).accuracy(train[cut:], labels[cut:])
        for strength in sorted(STRENGTHS)
    }
    best = max(held_out, key=lambda strength: held_out[strength])
    return Linear.fit(train, labels, classes, loss, best).accuracy(test, test_labels)
