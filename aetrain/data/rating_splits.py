"""The splits of ratings: held-out ratings of all users, or held-out users of whose items a part is to be predicted."""

from typing import Literal

import numpy as np

from aetrain.data.dataset import SPLIT_SEED, fixed_order
from aetrain.data.rating_files import RatingTable
from aetrain.data.user_files import Array, test_count

Split = Literal["random", "last"]


def hold_out_ratings(table: RatingTable, split: Split, fraction: float, validation: int) -> tuple[Array, Array, Array]:
    """Return the indices of training, validation and test ratings, each in ascending order.

    `random` holds out a random `fraction` of all ratings for the test, `last` that of each user's ratings by time, and
    at least one of a user who has two. `validation` more are held out in the same way. Raise ValueError where no rating
    would be left for training.
    """
    if split == "random":
        order = fixed_order(len(table)).numpy()
        num_test = test_count(len(table), fraction)
    else:
        ages, counts = rank_from_last(table)
        own_counts = counts[table.users]
        num_own_test = _count_of_share(own_counts, fraction)
        num_test = int((ages < num_own_test).sum())
        # Test ratings first, then by age; the first rating of each user is last.
        is_first = ages == own_counts - 1
        order = np.lexsort((ages, is_first, ages >= num_own_test))
    test, rest = order[:num_test], order[num_test:]
    if validation >= len(rest):
        raise ValueError(
            f"validation={validation} leaves nothing to train on: {len(rest)} ratings are not for the test; use less"
        )
    return np.sort(rest[validation:]), np.sort(rest[:validation]), np.sort(test)


def hold_out_users(users: Array, fraction: float, validation: int) -> tuple[Array, Array, Array]:
    """Return training, validation and test users of those given: a random `fraction` for the test, `validation` more.

    Raise ValueError where no user would be left for training.
    """
    shuffled = users[fixed_order(len(users)).numpy()]
    num_test = test_count(len(users), fraction)
    if num_test + validation >= len(users):
        raise ValueError(
            f"validation={validation} leaves nothing to train on: there are {len(users)} users, of which {num_test} "
            "are for the test; use less"
        )
    test, rest = shuffled[:num_test], shuffled[num_test:]
    return np.sort(rest[validation:]), np.sort(rest[:validation]), np.sort(test)


def hold_out_targets(table: RatingTable, split: Split, fraction: float) -> Array:
    """Return whether each rating is to be predicted [n]: a `fraction` of each user's, random ones or the last ones.

    A user with two ratings or more has at least one rating of each kind; one with a single rating has an input alone.
    """
    if split == "random":
        ages, counts = rank(table.users, np.random.default_rng(SPLIT_SEED).random(len(table)))
    else:
        ages, counts = rank_from_last(table)
    own_counts = counts[table.users]
    targets: Array = ages < _count_of_share(own_counts, fraction)
    return targets


def rank_from_last(table: RatingTable) -> tuple[Array, Array]:
    """Return the place of each rating among its user's, 0 for the last one by time or in the file, and the counts."""
    places = np.arange(len(table))
    if table.times is not None:
        places[np.argsort(table.times, kind="stable")] = np.arange(len(table))
    return rank(table.users, -places)


def rank(users: Array, keys: Array) -> tuple[Array, Array]:
    """Return the place [n] of each rating among its user's by ascending key, and the number of ratings by user."""
    order = np.lexsort((keys, users))
    counts = np.bincount(users)
    starts = np.cumsum(counts) - counts
    places = np.empty(len(users), dtype=np.int64)
    places[order] = np.arange(len(users)) - starts[users[order]]
    return places, counts


def _count_of_share(counts: Array, fraction: float) -> Array:
    """Return the rounded fraction of each count, at least 1 and at most count - 1; 0 of 1."""
    shares: Array = np.where(counts > 1, np.clip(np.rint(counts * fraction), 1, np.maximum(counts - 1, 1)), 0)
    return shares
