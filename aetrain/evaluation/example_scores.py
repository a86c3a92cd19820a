"""Scores of single examples, higher for unusual ones: errors, negative log-likelihoods, and distances between codes.

Shapes: B examples of a batch, N examples, D units of the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, chosen_with_targets, in_order
from aetrain.data.user_files import Array
from aetrain.evaluation.evaluator import known_sse
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward

BATCH_SIZE = 1000
NUM_NEIGHBOURS = 5  # training codes; the distance is that to the farthest of them

# The description of each score. A model has `nll` where its code is not random, else `nll_kl`.
SCORES: Mapping[str, str] = {
    "sse": "squared error of the reconstruction, summed over the known values of the example",
    "nll": "negative log-likelihood of the example given its code, nats",
    "nll_kl": "negative log-likelihood of the example given the mean of its code, plus the KL divergence of the code, "
    "nats: the negative ELBO without the noise of a draw",
    "code_distance": f"Euclidean distance from the code to the {NUM_NEIGHBOURS}th nearest code of a training example",
}


def squared_error(model: Autoencoder, out: Forward) -> Tensor:
    """Return the score `sse` of a batch, [B]. Its mean over the test examples is the metric of that name."""
    return known_sse(model.likelihood.expected(out.decoded, out.x), out.x)


def negative_log_likelihood(model: Autoencoder, out: Forward) -> Tensor:
    """Return the score `nll` or `nll_kl` of a batch, [B], in nats, with all constants of the likelihood.

    The code is that of evaluation, the mean of a random one, so that the score of an example does not depend on others.
    """
    nll = model.likelihood.neg_log_prob(out.decoded, out.x)
    return nll + out.code.kl().sum(1) if out.code.is_random else nll


def score_names(model: Autoencoder) -> tuple[str, str, str]:
    """Return the names of the scores of a model, in the order of `SCORES`."""
    return "sse", "nll_kl" if model.bottleneck.emits.is_random else "nll", "code_distance"


@dataclass(frozen=True, eq=False)
class ExampleScorer:
    """A trained model in evaluation mode and the codes of its training examples."""

    model: Autoencoder
    neighbours: Any  # scikit-learn's NearestNeighbors of the training codes

    @classmethod
    def fit(cls, model: Autoencoder, train: Examples, prepare: Prepare) -> Self:
        """Return the scorer of a model that was trained on the examples `train`, one or more."""
        from sklearn.neighbors import NearestNeighbors

        # Of few training examples, the distance to all others: an example is no neighbour of its own.
        count = max(1, min(NUM_NEIGHBOURS, len(train) - 1))
        return cls(model, NearestNeighbors(n_neighbors=count).fit(_encode(model, train, prepare)))

    def score(self, examples: Examples, prepare: Prepare, are_training: bool = False) -> dict[str, Array]:
        """Return the scores [N] of examples by name, in the order of `score_names`.

        With `are_training` they are the training examples, and none is a neighbour of its own. The distance is that to
        the k-th nearest neighbour (Ramaswamy et al. 2000, Efficient algorithms for mining outliers from large data
        sets).
        """
        if not len(examples):
            return {name: np.empty(0) for name in score_names(self.model)}
        codes = None if are_training else _encode(self.model, examples, prepare)
        distances, _ = self.neighbours.kneighbors(codes)
        return reconstruction_scores(self.model, examples, prepare) | {"code_distance": distances[:, -1]}


@torch.no_grad()
def reconstruction_scores(model: Autoencoder, examples: Examples, prepare: Prepare) -> dict[str, Array]:
    """Return the scores [N] that need no training examples: `sse`, and `nll` or `nll_kl`."""
    names = score_names(model)[:2]
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for x in in_order(examples, BATCH_SIZE, prepare):
        out = model(x)
        for name, function in zip(names, (squared_error, negative_log_likelihood), strict=True):
            parts[name].append(function(model, out))
    return {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}


def prepare_chosen(examples: Examples, index: Tensor, prepare: Prepare) -> Tensor:
    """Return the examples at `index` [K] as they are scored, [K, C, H, W], with the same random values."""
    return chosen_with_targets(examples, index, BATCH_SIZE, prepare)[0]


@torch.no_grad()
def _encode(model: Autoencoder, examples: Examples, prepare: Prepare) -> Array:
    codes: Array = torch.cat([model.mean_code(x) for x in in_order(examples, BATCH_SIZE, prepare)]).cpu().numpy()
    return codes
