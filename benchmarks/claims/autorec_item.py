"""Sedhain et al. (2015): an autoencoder of the rows of items predicts ratings better than user + item offsets."""

from experiments import Outcome
from measurements import rating_errors

from aetrain.api import Trained

CLAIM = (
    "With a loss on observed ratings only, an autoencoder whose examples are films predicts the held-out tenth of the "
    "ratings of MovieLens latest-small better than the mean with an offset of each user and each film."
)
LESSON = "An autoencoder of items, trained on observed ratings only, predicts missing ratings."
RESULT = "RMSE {RMSE}, user + item offsets {RMSE of user + item offsets}, mean rating {RMSE of the mean rating}"
RUNS = {"item": ["experiment=autorec_item"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is below that of the offsets."""
    metrics = rating_errors(runs["item"])
    return Outcome(metrics, metrics["RMSE"] < metrics["RMSE of user + item offsets"])
