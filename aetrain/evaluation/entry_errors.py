"""Errors per entry of a vector: a root of a mean over entries is not a mean over examples.

Shapes: B examples of a batch, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aetrain.model.records import Forward, Kind
from aetrain.utils.devices import to_float64

# The description of each metric of `EntryErrors`.
ENTRY_METRICS: Mapping[str, str] = {
    "rmse": (
        "root of the mean squared error per held-out value: one that is missing in the input and known in the target, "
        "such as a rating"
    ),
    "mae": "mean absolute error per held-out value",
    "mean_rmse": "rmse if every held-out rating is predicted by the mean training rating",
    "bias_rmse": "rmse if a rating is the mean and an offset of its user and of its item, fitted to training ratings",
    "token_perplexity": (
        "exp of the mean negative log probability of a counted item, such as a word, under the reconstruction"
    ),
}

MIN_PROBABILITY = 1e-12  # of a counted item, which keeps its logarithm finite


@dataclass
class EntryErrors:
    """Accumulate errors over the entries of all examples: call `update` for each batch, then `metrics`."""

    kind: Kind
    _totals: list[Tensor] = field(default_factory=list)  # [3] each: two sums of errors, and the number of entries

    def update(self, expected: Tensor, out: Forward) -> None:
        """Add the entries of one batch, with the reconstructions `expected` [B, C, H, W]."""
        if self.kind == "counts":
            log_probability = probabilities(expected.flatten(1)).clamp_min(MIN_PROBABILITY).log()
            errors, counts = -(out.x.flatten(1) * log_probability).sum(), out.x.sum()
            self._totals.append(to_float64(torch.stack([errors, errors, counts])))
        elif out.x is not out.x_in:
            error = to_float64((expected - out.x)[out.x_in.isnan() & ~out.x.isnan()])
            self._totals.append(torch.stack([error.square().sum(), error.abs().sum(), error.new_tensor(len(error))]))

    def metrics(self) -> dict[str, float]:
        """Return the errors by name; none where no value was held out."""
        if not self._totals:
            return {}
        squared, absolute, count = torch.stack(self._totals).sum(0).tolist()
        if not count:
            return {}
        if self.kind == "counts":
            return {"token_perplexity": float(torch.tensor(squared / count, dtype=torch.float64).exp())}
        return {"rmse": (squared / count) ** 0.5, "mae": absolute / count}


def probabilities(expected: Tensor) -> Tensor:
    """Return the probability of each item in proportion to its expected count, [B, D]; equal ones where all are 0.

    An expected count below 0, which a normal distribution may have, is 0.
    """
    counts = expected.clamp_min(0)
    totals = counts.sum(1, keepdim=True)
    return torch.where(totals == 0, 1 / counts.shape[1], counts / totals)
