"""Sedhain et al. (2015): the same autoencoder of the rows of users, beside that of items."""

from experiments import Outcome
from measurements import rating_errors

from aetrain.api import Trained

CLAIM = (
    "Where the examples are users, of whom there are fewer than films, an autoencoder of the observed ratings of "
    "MovieLens latest-small predicts held-out ratings less well than where the examples are films."
)
LESSON = "An autoencoder of users predicts ratings less well than one of items."
RESULT = "RMSE {RMSE, by user} by user, {RMSE, by item} by item, offsets {RMSE of user + item offsets, by user}"
RUNS = {"by user": ["experiment=autorec_user"], "by item": ["experiment=autorec_item"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error by item is below that by user."""
    metrics: dict[str, float] = {}
    for name, run in runs.items():
        metrics |= {f"{title}, {name}": value for title, value in rating_errors(run).items()}
    return Outcome(metrics, metrics["RMSE, by item"] < metrics["RMSE, by user"])
