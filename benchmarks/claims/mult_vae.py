"""Liang et al. (2018): a variational autoencoder of items recommends others to users who were held out."""

from experiments import Outcome
from measurements import recommendation_metrics

from aetrain.api import Trained

CLAIM = (
    "A variational autoencoder with a multinomial likelihood recommends films of MovieLens latest-small to "
    "held-out users with a higher recall at 20 and NDCG at 100 than popularity and a truncated SVD of the same size."
)
LESSON = "A variational autoencoder with a multinomial likelihood recommends items to users it has not seen."
RESULT = "NDCG@100 {NDCG at 100}, SVD {NDCG at 100, SVD}, popularity {NDCG at 100, popularity}"
RUNS = {"vae": ["experiment=mult_vae"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that both metrics are above those of both baselines."""
    metrics = recommendation_metrics(runs["vae"])
    baselines = [f"{name}, {other}" for name in ("recall at 20", "NDCG at 100") for other in ("SVD", "popularity")]
    return Outcome(metrics, all(metrics[name.partition(",")[0]] > metrics[name] for name in baselines))
