"""Matrix factorisation as a baseline of the error of held-out ratings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, final

import torch

from aetrain.data.examples import Examples, Splits
from aetrain.data.rating_dataset import known_entries
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.matrix_factorization import Entries, MatrixFactorization
from aetrain.evaluation.measures.measure import EvalInputs, Measure

VALIDATION_SHARE = 0.1  # of the training ratings, on which the number of factors and l2 are chosen


@final
@dataclass(frozen=True)
class Factorization(Measure):
    """The baseline of `rmse` by a regularised matrix factorisation of the training ratings less their offsets.

    The number of factors and the strength of the regularisation are the pair of `factors` and `l2` with the least error
    on a tenth of the training ratings. The matrix is then factorised anew with all of them.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "rmse_factorization": "rmse if held-out ratings are the offsets and a matrix factorisation of training ratings",
        "factorization_factors": "number of factors of the matrix factorisation in rmse_factorization",
        "factorization_l2": "strength of the regularisation of the matrix factorisation in rmse_factorization",
    }

    factors: Sequence[int] = (8, 16, 32)
    l2: Sequence[float] = (0.1, 0.2, 0.4)

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) < 1:
            raise ValueError(f"factors={list(self.factors)} must be one or more numbers of 1 or more")
        if not self.l2 or min(self.l2) <= 0:
            raise ValueError(f"l2={list(self.l2)} must be one or more numbers above 0")

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for other examples than ratings."""
        if splits.train.kind != "ratings":
            raise ValueError("this measure needs ratings, such as those of dataset=movielens: leave it out")

    @torch.no_grad()
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return the error on held-out ratings, and the settings that were chosen."""
        train, test = entries_of(inputs.splits.train), entries_of(inputs.splits.test)
        num_rows = 1 + max(int(train.rows.max()), int(test.rows.max()))
        shape = num_rows, inputs.splits.train.values.shape[-1]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        cut = max(1, int(VALIDATION_SHARE * len(train)))
        held_out, rest = train[order[:cut]], train[order[cut:]]
        errors = {
            (k, l2): MatrixFactorization.fit(rest, shape, k, l2).rmse(held_out)
            for k, l2 in product(self.factors, self.l2)
        }
        k, l2 = min(errors, key=errors.__getitem__)
        error = MatrixFactorization.fit(train, shape, k, l2).rmse(test)
        return {"rmse_factorization": error, "factorization_factors": float(k), "factorization_l2": l2}


def entries_of(examples: Examples) -> Entries:
    """Return the ratings of examples by the rows of their data set; of examples with targets, the held-out ones."""
    row, column, values = known_entries(examples.values if examples.targets is None else examples.targets)
    assert examples.rows is not None
    rows = examples.rows.cpu()[torch.from_numpy(row).long()]
    return Entries(rows, torch.from_numpy(column).long(), torch.from_numpy(values).double())
