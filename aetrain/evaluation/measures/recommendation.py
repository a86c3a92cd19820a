"""Recommendation: how many of the items that a held-out user has are among the first that a model recommends.

Shapes: B users of a batch, D items, K components.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Splits, in_order, with_targets
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.measures.measure import EvalInputs, Measure
from aetrain.model.autoencoder import Autoencoder

BATCH_SIZE = 500

Score = Callable[[Tensor], Tensor]  # from the items of users [B, D] to scores of all items [B, D]


@final
@dataclass(frozen=True)
class Recommendation(Measure):
    """Recall and NDCG of the items of held-out users, of which the model sees a part and predicts the others.

    Items are ranked by the model's expected value, without those that it sees. The baselines are the number of training
    users who have an item, and a truncated SVD of the training users with as many components as the code has units
    (PureSVD of Cremonesi, Koren & Turrin 2010). `recall_at` and `ndcg_at` are numbers of recommended items.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "recall_K": (
            "share of a held-out user's hidden items that are among the K recommended, of min(K, hidden items); mean "
            "over users (Liang et al. 2018, eq. 9)"
        ),
        "ndcg_K": (
            "sum of 1 / log2(rank + 1) of a held-out user's hidden items among the K recommended, divided by its "
            "largest possible value; mean over users (Liang et al. 2018)"
        ),
        "MEASURE_popularity": "baseline of MEASURE: items are ranked by the number of training users who have them",
        "MEASURE_svd": "baseline of MEASURE: a truncated SVD of as many components as the code has units",
    }

    recall_at: Sequence[int] = (20, 50)
    ndcg_at: Sequence[int] = (100,)

    def __post_init__(self) -> None:
        for name in ("recall_at", "ndcg_at"):
            numbers = getattr(self, name)
            if any(number < 1 for number in numbers):
                raise ValueError(f"{name}={list(numbers)} recommends nothing: use numbers of items, each 1 or more")

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError for a model of other data than counts."""
        if model.kind != "counts":
            raise ValueError(
                "this measure needs users who are held out: use dataset=movielens or ratings with "
                "dataset.implicit=true, or leave it out"
            )

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError for examples without targets."""
        if splits.test.targets is None:
            raise ValueError(
                "this measure needs held-out items of the test examples, but there are none: use dataset=movielens or "
                "ratings with dataset.implicit=true, or leave it out"
            )

    @torch.no_grad()
    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `recall_20`, `recall_20_popularity`, `recall_20_svd` and so on."""
        model, train = inputs.model, inputs.splits.train
        shape = model.image_shape
        counts = item_counts(train, inputs)
        scores: dict[str, Score] = {
            "": lambda x: model.reconstruct(x.view(-1, *shape)).flatten(1),
            "_popularity": lambda x: counts.expand(len(x), -1),
        }
        if components := fit_svd(train, inputs, model.code_dim):
            factors = components[0]
            scores["_svd"] = lambda x: x @ factors @ factors.t()
        metrics = {}
        for suffix, score in scores.items():
            for name, value in self._mean(score, inputs).items():
                metrics[name + suffix] = value
        return metrics

    def _mean(self, score: Score, inputs: EvalInputs) -> Metrics:
        """Return the mean metrics over the test users that have hidden items."""
        totals: dict[str, float] = {}
        num_users = 0
        for x, targets in user_batches(inputs):
            ranked = rank_items(score(x), x, max(*self.recall_at, *self.ndcg_at, 1))
            for name, values in self._metrics(ranked, targets).items():
                totals[name] = totals.get(name, 0.0) + float(values.double().sum())
            num_users += len(x)
        return {name: total / max(num_users, 1) for name, total in totals.items()}

    def _metrics(self, ranked: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the metrics [B] of ranked items [B, K] for hidden items, bool [B, D]."""
        hits = targets.gather(1, ranked).double()
        recalls = {f"recall_{k}": recall(hits, targets.sum(1), k) for k in self.recall_at}
        return recalls | {f"ndcg_{k}": ndcg(hits, targets.sum(1), k) for k in self.ndcg_at}


def recall(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Return the share of min(k, relevant) items that are among the first k: hits [B, K] in ranked order, [B]."""
    return hits[:, :k].sum(1) / num_relevant.clamp(max=k)


def ndcg(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Return the discounted gain of the first k items divided by that of the best order: hits [B, K], [B]."""
    discounts = 1 / torch.arange(2, hits.shape[1] + 2, dtype=torch.double, device=hits.device).log2()
    ideal = discounts[:k].cumsum(0)[num_relevant.clamp(max=min(k, len(discounts))) - 1]
    return (hits * discounts)[:, :k].sum(1) / ideal


def rank_items(scores: Tensor, x: Tensor, count: int) -> Tensor:
    """Return the indices [B, count] of the items with the highest scores [B, D], without those of x [B, D]."""
    scores = scores.masked_fill(x > 0, -torch.inf)
    return scores.topk(min(count, scores.shape[1]), dim=1).indices


def user_batches(inputs: EvalInputs) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the known items, float [B, D], and the hidden items, bool [B, D], of test users that have hidden ones."""
    for x, targets in with_targets(inputs.splits.test, BATCH_SIZE, inputs.prepare):
        hidden = targets.flatten(1) > 0
        has_hidden = hidden.any(1)
        yield x.flatten(1)[has_hidden], hidden[has_hidden]


def item_counts(train: Examples, inputs: EvalInputs) -> Tensor:
    """Return the number of training users who have each item, [D]."""
    counts = [(x.flatten(1) > 0).sum(0) for x in in_order(train, BATCH_SIZE, inputs.prepare)]
    return torch.stack(counts).sum(0).float()


def fit_svd(train: Examples, inputs: EvalInputs, count: int) -> list[Tensor]:
    """Return the first `count` right singular vectors [D, K] of the training users; nothing where there are fewer."""
    from scipy.sparse import csr_array, vstack
    from scipy.sparse.linalg import svds

    batches = in_order(train, BATCH_SIZE, inputs.prepare)
    matrix = csr_array(vstack([csr_array(x.flatten(1).cpu().numpy()) for x in batches]))
    if count >= min(matrix.shape):
        return []
    _, _, vectors = svds(matrix, k=count, random_state=0)
    return [torch.from_numpy(vectors.T.copy()).to(train.device)]
