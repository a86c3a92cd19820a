"""`mode=recommend`: the ratings of a user, and the items that a run recommends to them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.data.examples import Examples, in_order
from aetrain.data.rating_dataset import RatingDataset
from aetrain.data.user_files import Array, abbreviate
from aetrain.modes.evaluate import load_trained
from aetrain.modes.other_data import load_all
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.training.backend.setup import backend

log = logging.getLogger("aetrain")

NUM_ITEMS = 10  # of each list
BATCH_SIZE = 1000


@dataclass(frozen=True, eq=False)
class Predictions:
    """The known and the predicted ratings of one user, [D] each; a known rating is NaN where there is none."""

    names: Sequence[str]  # of the items
    known: Array
    predicted: Array


def recommend(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Log the items that `user` rated highest, and those without a rating of theirs that are predicted highest.

    All ratings of the user are the input, also those that were held out from training. Return the names of the items,
    as `rated` and `recommended`.
    """
    if settings.user is None:
        raise ConfigError("mode=recommend needs a user: user=17")
    _, components, _ = load_trained(request, settings, "recommend")
    dataset = components.dataset
    if not isinstance(dataset, RatingDataset):
        raise ConfigError(
            "mode=recommend needs a run on ratings: train one with dataset=movielens, or dataset=ratings and your file"
        )
    examples = load_all(request, components)
    with backend():
        predictions = predict(components, dataset, examples, str(settings.user))
    is_known = ~np.isnan(predictions.known)
    rated = best(predictions.known, is_known)
    recommended = best(predictions.predicted, ~is_known)
    word = "score" if dataset.implicit else "rating"
    log.info(
        "user %s has %s ratings; the highest:\n%s",
        settings.user,
        f"{is_known.sum():,}",
        table(predictions, rated, word),
    )
    log.info("recommended:\n%s", table(predictions, recommended, word))
    return {
        "rated": [predictions.names[item] for item in rated],
        "recommended": [predictions.names[item] for item in recommended],
    }


def predict(components: Components, dataset: RatingDataset, examples: Examples, user: str) -> Predictions:
    """Return the predictions of a user from all ratings; raise ConfigError for an unknown user.

    With `rows=users` the user is one example; with `rows=items` each example is an item, with the user as a feature.
    """
    names = examples.file_names if dataset.rows == "users" else examples.feature_names
    if user not in names:
        raise ConfigError(f"user={user}: there is no such user in the ratings: use one of {abbreviate(names)}")
    number = names.index(user)
    assert examples.rows is not None
    if dataset.rows == "users":
        places = (examples.rows == number).nonzero().flatten()
        if not len(places):
            raise ConfigError(f"user={user} has no ratings to recommend from: use another one")
        examples = examples[places]
    known, outputs = [], []
    with torch.no_grad():
        for x in in_order(examples, BATCH_SIZE, dataset.prepare):
            y = components.model.reconstruct(x)
            own = slice(None) if dataset.rows == "users" else number
            known.append(x.flatten(1)[:, own].flatten().cpu())
            outputs.append(y.flatten(1)[:, own].flatten().cpu())
    values, output = torch.cat(known).double().numpy(), torch.cat(outputs).double().numpy()
    if dataset.implicit:
        return Predictions(examples.feature_names, np.where(values > 0, values, np.nan), output)
    if dataset.rows == "users":
        items, item_names = np.arange(len(output)), examples.feature_names
    else:
        assert examples.rows is not None  # of every loaded data set
        items, item_names = examples.rows.cpu().numpy(), tuple(examples.names)
    users = np.array([number])
    bias = dataset.to_ratings
    return Predictions(item_names, bias(users, items, values), bias(users, items, output))


def best(ratings: Array, allowed: Array) -> list[int]:
    """Return the indices of the highest ratings [D] among those allowed [D], highest first."""
    order = np.argsort(np.where(allowed, -ratings, np.inf), kind="stable")
    return order[: min(NUM_ITEMS, int(allowed.sum()))].tolist()


def table(predictions: Predictions, items: Sequence[int], word: str) -> str:
    """Return a line for each item: the known rating, the predicted one, and the name."""
    lines = [f"  {word:>9}  predicted  item"]
    for item in items:
        known, predicted = predictions.known[item], predictions.predicted[item]
        form = ".2%" if word == "score" else ".2f"
        own = "" if np.isnan(known) else f"{known:.1f}"
        lines.append(f"  {own:>9}  {predicted:>9{form}}  {predictions.names[item]}")
    return "\n".join(lines)
