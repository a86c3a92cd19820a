"""A mean rating with an offset of each user and each item: the baseline of recommenders, and a centre of ratings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aetrain.data.rating_files import RatingTable
from aetrain.data.user_files import Array

Center = Literal["none", "mean", "user", "item", "bias"]

NUM_SWEEPS = 100  # of alternating least squares at most; each is a pass over the ratings
TOLERANCE = 1e-6  # of the offsets, in the unit of ratings


@dataclass(frozen=True)
class RatingBias:
    """The prediction mean + user offset + item offset (Koren, Bell & Volinsky 2009, eq. 3).

    "Matrix factorization techniques for recommender systems", IEEE Computer 42(8).
    """

    mean: float
    users: Array  # [users] float64
    items: Array  # [items] float64

    def predict(self, users: Array, items: Array) -> Array:
        """Return the predicted ratings [n] of users [n] and items [n]."""
        prediction: Array = self.mean + self.users[users] + self.items[items]
        return prediction

    def state(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {"mean": self.mean, "users": self.users.tolist(), "items": self.items.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "RatingBias":
        """Return what `state` has described."""
        return cls(float(state["mean"]), np.array(state["users"], dtype=float), np.array(state["items"], dtype=float))


def fit_bias(table: RatingTable, center: Center, shrinkage: float) -> RatingBias:
    """Fit the offsets that `center` names to ratings; `bias` has those of users and of items, `none` a mean of 0.

    They minimise the squared error plus `shrinkage` times the squared offsets, so that an offset of few ratings is
    small. Users and items without ratings have the offset 0.
    """
    num_users, num_items = table.shape
    mean = float(table.values.mean()) if center != "none" and len(table) else 0.0
    users, items = np.zeros(num_users), np.zeros(num_items)
    for _ in range(NUM_SWEEPS):
        before = users
        if center in ("item", "bias"):
            items = fit_offsets(table.items, table.values - mean - users[table.users], num_items, shrinkage)
        if center in ("user", "bias"):
            users = fit_offsets(table.users, table.values - mean - items[table.items], num_users, shrinkage)
        if np.abs(users - before).max(initial=0) < TOLERANCE:
            break
    return RatingBias(mean, users, items)


def fit_offsets(groups: Array, residuals: Array, num_groups: int, shrinkage: float) -> Array:
    """Return sum / (count + shrinkage) of the residuals [n] of each group [num_groups]; 0 for an empty group."""
    sums = np.bincount(groups, residuals, num_groups)
    counts = np.bincount(groups, minlength=num_groups)
    offsets: Array = sums / np.maximum(counts + shrinkage, np.finfo(float).tiny)
    return offsets
