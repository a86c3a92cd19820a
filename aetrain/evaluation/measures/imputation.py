"""Imputation: baselines of the error at values that are missing in the input and known in the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, Splits, in_order
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.iterative_pca import IterativePCA
from aetrain.evaluation.measures.measure import EvalInputs, Measure

BATCH_SIZE = 1000
VALIDATION_SHARE = 0.1  # of the known training values, on which the number of components is chosen


@final
@dataclass(frozen=True)
class Imputation(Measure):
    """The baselines of `rmse`: the mean of each column, and iterative PCA, both fitted to the training examples.

    `components` are numbers of components, of which the best on a hidden tenth of the known training values is taken;
    null for as many as the code has units. There is at least one component fewer than columns (`IterativePCA.fit`).
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "rmse_column_mean": "rmse if every held-out value is the mean of the known training values of its column",
        "rmse_iterative_pca": "rmse if held-out values are filled in by iterative PCA of the training examples",
        "iterative_pca_components": (
            "number of components of the iterative PCA in rmse_iterative_pca, fewer than the columns"
        ),
    }

    components: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.components is not None and (not self.components or min(self.components) < 1):
            raise ValueError(f"components={list(self.components)} must be numbers of 1 or more, or null for the code's")

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError where no value is held out."""
        if splits.test.targets is None:
            raise ValueError("this measure needs values that are held out: use dataset.missing=0.3, or leave it out")

    @torch.no_grad()
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return the errors of the baselines and the number of components."""
        train, test = (_rows(part, inputs.prepare) for part in (inputs.splits.train, inputs.splits.test))
        assert inputs.splits.test.targets is not None
        target = _rows(Examples(inputs.splits.test.targets), inputs.prepare)
        held_out = test.isnan() & ~target.isnan()
        pca = IterativePCA.fit(train, self._choose(train, inputs.model.code_dim))
        means = train.nanmean(0).nan_to_num(0.0).expand_as(test)
        return {
            "rmse_column_mean": rmse(means, target, held_out),
            "rmse_iterative_pca": rmse(pca.fill(test), target, held_out),
            "iterative_pca_components": float(len(pca.components)),
        }

    def _choose(self, train: Tensor, code_dim: int) -> int:
        """Return the number of components with the least error at training values that are hidden for the choice."""
        if self.components is None:
            return code_dim
        if len(self.components) == 1:
            return self.components[0]
        generator = torch.Generator().manual_seed(0)
        hidden = (torch.rand(train.shape, generator=generator) < VALIDATION_SHARE).to(train.device) & ~train.isnan()
        rest = train.masked_fill(hidden, torch.nan)
        return min(self.components, key=lambda k: rmse(IterativePCA.fit(rest, k).fill(rest), train, hidden))


def rmse(expected: Tensor, target: Tensor, held_out: Tensor) -> float:
    """Return the root of the mean squared error of the values [N, D] that are `held_out`."""
    return float((expected - target)[held_out].square().mean().sqrt())


def _rows(examples: Examples, prepare: Prepare) -> Tensor:
    """Return the values of all examples as rows, float64 [N, D]."""
    return torch.cat([x.flatten(1).to(torch.float64) for x in in_order(examples, BATCH_SIZE, prepare)])
