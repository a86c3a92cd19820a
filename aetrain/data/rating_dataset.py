"""Data sets of ratings: an example is the row of a user or of an item, and most of its entries are missing.

With `implicit` the high ratings are ones, all other entries are zeros, and whole users are held out.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from aetrain.data.class_selection import ClassSelection
from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples, Values
from aetrain.data.rating_bias import Center, RatingBias, fit_bias, fit_offsets
from aetrain.data.rating_files import RatingTable
from aetrain.data.rating_splits import Split, hold_out_ratings, hold_out_targets, hold_out_users
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.user_files import Array, check_fraction
from aetrain.model.records import Kind

if TYPE_CHECKING:  # the import takes 0.1 s
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class FittedRatings:
    """All that a data set has learnt: the names of the users and items, their offsets, and the range of ratings."""

    user_names: tuple[str, ...]
    item_names: tuple[str, ...]  # with `implicit` those that a training user has
    titles: tuple[str, ...]  # of the items
    bias: RatingBias | None  # None with `implicit`
    rating_range: tuple[float, float]


@dataclass(kw_only=True)
class RatingDataset(Dataset):
    """Ratings as rows of `users` or of `items`, with the settings of all such data sets. A subclass reads them.

    Of explicit ratings, `test_fraction` of all, random ones or the last ones of each user (`split`), are for the test,
    and `validation` more ratings for validation. All rows are in the training set with their training ratings. Test
    examples have the training ratings as values and the held-out ratings as targets. `center` names what is subtracted
    from ratings before a model sees them: the mean, and offsets of each user, each item or both (`bias`), which are
    fitted to the training ratings with `center_shrinkage`.

    With `implicit`, ratings from `threshold` on are ones and all other entries zeros, as in Liang et al. (2018),
    "Variational autoencoders for collaborative filtering". Users with fewer than `min_ratings` ones are left out.
    `test_fraction` of the users are for the test and `validation` more for validation: `target_fraction` of their ones
    are the targets, the others the values. Items are those of the training users.

    Ratings outside of `rating_range` are an error; null allows all, and the range is that of the file.
    """

    rows: Literal["users", "items"] = "users"
    split: Split = "random"
    test_fraction: float = 0.1
    center: Center = "bias"
    center_shrinkage: float = 4.0
    implicit: bool = False
    threshold: float = 4.0
    min_ratings: int = 5
    target_fraction: float = 0.2
    rating_range: Sequence[float] | None = None
    _table: RatingTable | None = field(default=None, init=False, repr=False, compare=False)
    _splits: tuple[Examples, ...] = field(default=(), init=False, repr=False, compare=False)
    _sentences: list[str] = field(default_factory=list, init=False, repr=False, compare=False)  # about the ratings
    _fitted: FittedRatings | None = field(default=None, init=False, repr=False, compare=False)
    _is_restored: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.single_set:
            raise ValueError("single_set=true does not fit ratings, of which some are held out: use false")
        check_fraction(self.test_fraction)
        if not 0 < self.target_fraction < 1:
            raise ValueError(f"target_fraction={self.target_fraction} is no share: use a number between 0 and 1")
        if self.center_shrinkage < 0:
            raise ValueError(f"center_shrinkage={self.center_shrinkage} is negative: use 0 or more")
        if self.min_ratings < 1:
            raise ValueError(f"min_ratings={self.min_ratings} is too small: use 1 or more")
        limits = self.rating_range
        if limits is not None and (len(limits) != 2 or not limits[0] < limits[1]):
            raise ValueError(f"rating_range={list(limits)} is no range: use two numbers such as [1,5], or null")
        if self.implicit and self.rows == "items":
            raise ValueError("rows=items does not fit implicit=true, which holds users out: use rows=users")

    @abstractmethod
    def read_table(self) -> tuple[RatingTable, list[str]]:
        """Return all ratings, and sentences about their conversion. Raise ValueError where a row is no rating."""

    def read_titles(self, item_names: Sequence[str]) -> tuple[str, ...]:
        """Return the titles of items; their names where they have no titles."""
        return tuple(item_names)

    @property
    def kind(self) -> Kind:  # type: ignore[override]  # it depends on a setting
        """The kind of the examples: counts with `implicit`, else ratings."""
        return "counts" if self.implicit else "ratings"

    @property
    def has_missing(self) -> bool:
        """Tell whether values may be missing (NaN)."""
        return not self.implicit or self.missing > 0

    @property
    def fitted(self) -> FittedRatings:
        """What has been learnt; the ratings are read where this is not yet known."""
        if self._fitted is None:
            self.read()
        assert self._fitted is not None
        return self._fitted

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, D) for D items, or users with `rows=items`."""
        return 1, 1, len(self.fitted.item_names if self.rows == "users" else self.fitted.user_names)

    def fitted_state(self) -> Mapping[str, Any]:
        """Return the names of users and items and the offsets of the ratings."""
        if self._fitted is None:
            return {}
        fitted = self._fitted
        return {
            "users": fitted.user_names,
            "items": fitted.item_names,
            "titles": fitted.titles,
            "bias": None if fitted.bias is None else fitted.bias.state(),
            "rating_range": fitted.rating_range,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the `fitted_state` of a saved run."""
        self._fitted = FittedRatings(
            tuple(state["users"]),
            tuple(state["items"]),
            tuple(state["titles"]),
            None if state["bias"] is None else RatingBias.from_state(state["bias"]),
            (float(state["rating_range"][0]), float(state["rating_range"][1])),
        )
        self._is_restored, self._table, self._splits = True, None, ()

    def read(self) -> tuple[Examples, ...]:
        """Return training and test examples; third, validation examples where `validation` is set."""
        if not self._splits:
            splits, description = self._read_implicit() if self.implicit else self._read_explicit()
            self._splits = splits if self.validation else splits[:2]
            self._sentences.append(description)
        for sentence in self._sentences:
            self.add_conversion(sentence)
        return self._splits

    def load_all(self) -> Examples:
        """Return the rows of all users or items with all their ratings, without a split."""
        self.conversions.clear()
        self.warnings.clear()
        ClassSelection(self.classes).check_labels(Examples(torch.empty(0), kind=self.kind))
        table = self._aligned_table()
        fitted = self._extend(self.fitted, table, table) if self._is_restored else self.fitted
        if self.implicit:
            table = self._select_ones(table)
        for sentence in self._sentences[:-1] if self._splits else self._sentences:
            self.add_conversion(sentence)
        return self._cut(self._examples(fitted, table), self.subset, "", "subset")

    def to_ratings(self, users: Array, items: Array, values: Array) -> Array:
        """Return predicted ratings [n], in the range of ratings, for the values [n] of a model's reconstructions."""
        fitted = self.fitted
        if fitted.bias is None:
            return values
        ratings: Array = np.clip(values + fitted.bias.predict(users, items), *fitted.rating_range)
        return ratings

    def baseline_metrics(self, test: Examples) -> Mapping[str, float]:
        """Return the errors of the mean training rating and of user + item offsets on the held-out ratings."""
        if self.implicit or test.targets is None or test.rows is None:
            return {}
        row, column, values = known_entries(test.targets)
        places = test.rows.cpu().numpy()[row]
        users, items = (places, column) if self.rows == "users" else (column, places)
        assert self.fitted.bias is not None
        ratings = values + self.fitted.bias.predict(users, items)
        table = self._aligned_table()
        train = table[hold_out_ratings(table, self.split, self.test_fraction, self.validation)[0]]
        bias = fit_bias(train, "bias", self.center_shrinkage)
        errors = {"mean": ratings - train.values.mean(), "bias": ratings - bias.predict(users, items)}
        return {f"{name}_rmse": float(np.sqrt(np.square(error).mean())) for name, error in errors.items()}

    def _read_explicit(self) -> tuple[tuple[Examples, ...], str]:
        table = self._aligned_table()
        parts = hold_out_ratings(table, self.split, self.test_fraction, self.validation)
        train = table[parts[0]]
        if self._is_restored:
            fitted = self._extend(self.fitted, table, train)
        else:
            limits = self.rating_range or (float(table.values.min()), float(table.values.max()))
            titles = self.read_titles(table.item_names)
            bias = fit_bias(train, self.center, self.center_shrinkage)
            fitted = FittedRatings(table.user_names, table.item_names, titles, bias, (limits[0], limits[1]))
        self._fitted = fitted
        examples = [self._examples(fitted, train)]
        examples += [self._examples(fitted, table[part], train) for part in parts[:0:-1]]
        low, high = float(table.values.min()), float(table.values.max())
        return tuple(examples), (
            f"{len(table):,} ratings from {low:g} to {high:g} of {len(table.user_names):,} users and "
            f"{len(table.item_names):,} items: {describe_counts(*map(len, parts))}"
        )

    def _read_implicit(self) -> tuple[tuple[Examples, ...], str]:
        table = self._aligned_table()
        table = table[table.values >= self.threshold]
        counts = np.bincount(table.users, minlength=len(table.user_names))
        kept = np.flatnonzero(counts >= self.min_ratings)
        if len(kept) < 2:
            raise ValueError(
                f"threshold={self.threshold:g} and min_ratings={self.min_ratings} leave {len(kept)} of "
                f"{len(counts):,} users, 2 are needed to train and to test: lower them"
            )
        parts = hold_out_users(kept, self.test_fraction, self.validation)
        if not self._is_restored:
            is_known = np.bincount(table.items[np.isin(table.users, parts[0])], minlength=len(table.item_names)) > 0
            names = tuple(np.array(table.item_names)[is_known].tolist())
            low, high = float(table.values.min()), float(table.values.max())
            self._fitted = FittedRatings(table.user_names, names, self.read_titles(names), None, (low, high))
        fitted = self.fitted
        table = self._select_ones(table)
        is_target = hold_out_targets(table, self.split, self.target_fraction)
        examples = [self._examples(fitted, table[np.isin(table.users, parts[0])])]
        for part in parts[:0:-1]:
            is_own = np.isin(table.users, part)
            examples.append(self._examples(fitted, table[is_own & is_target], table[is_own & ~is_target]))
        return tuple(examples), (
            f"{len(table):,} ratings of {self.threshold:g} or more are ones, of {len(kept):,} users and "
            f"{len(fitted.item_names):,} items; users: {describe_counts(*map(len, parts))}"
        )

    def _select_ones(self, table: RatingTable) -> RatingTable:
        """Return the ratings from `threshold` on of the items that the training users have."""
        names = self.fitted.item_names
        items, _ = renumber(table.items, table.item_names, names, extend=False)
        kept = (items >= 0) & (table.values >= self.threshold)
        return replace(table, items=items, item_names=names)[kept]

    def _residuals(self, fitted: FittedRatings, table: RatingTable) -> Array:
        """Return the ratings [n] less the offsets of their users and items; ones with `implicit`."""
        if fitted.bias is None:
            return np.ones(len(table))
        residuals: Array = table.values - fitted.bias.predict(table.users, table.items)
        return residuals

    def _aligned_table(self) -> RatingTable:
        """Return all ratings; after `restore` with the numbers of the saved users and items, without new columns."""
        if self._table is None:
            table, self._sentences = self.read_table()
            self._table = self._align(table) if self._is_restored else table
        return self._table

    def _align(self, table: RatingTable) -> RatingTable:
        fitted = self.fitted
        by_users = self.rows == "users"
        users, user_names = renumber(table.users, table.user_names, fitted.user_names, extend=by_users)
        items, item_names = renumber(table.items, table.item_names, fitted.item_names, extend=not by_users)
        is_known = (users >= 0) & (items >= 0)
        if not is_known.all():
            noun = "items" if by_users else "users"
            number = int((~is_known).sum())
            self._sentences.append(f"{number:,} ratings are left out, of {noun} that the run was not trained on")
        aligned = replace(table, users=users, items=items, user_names=user_names, item_names=item_names)
        if not is_known.any():
            raise ValueError("no rating is of an item and user that the run was trained on: use data of the same kind")
        return aligned[is_known]

    def _extend(self, fitted: FittedRatings, table: RatingTable, train: RatingTable) -> FittedRatings:
        """Return what was restored with the names of new rows and with offsets fitted to their training ratings."""
        if fitted.bias is None:
            return fitted
        offsets = {"users": fitted.bias.users, "items": fitted.bias.items}
        num_new = len(table.user_names if self.rows == "users" else table.item_names) - len(offsets[self.rows])
        if not num_new:
            return fitted
        offsets[self.rows] = np.pad(offsets[self.rows], (0, num_new))
        bias = RatingBias(fitted.bias.mean, **offsets)
        if self.center in ("bias", self.rows.removesuffix("s")):
            numbers = train.users if self.rows == "users" else train.items
            residuals = train.values - bias.predict(train.users, train.items)
            new = fit_offsets(numbers, residuals, len(offsets[self.rows]), self.center_shrinkage)
            offsets[self.rows][-num_new:] = new[-num_new:]
            bias = RatingBias(fitted.bias.mean, **offsets)
        titles = fitted.titles
        if self.rows == "items":
            titles += self.read_titles(table.item_names[-num_new:])
        return replace(fitted, user_names=table.user_names, item_names=table.item_names, titles=titles, bias=bias)

    def _examples(self, fitted: FittedRatings, table: RatingTable, inputs: RatingTable | None = None) -> Examples:
        """Return the rows that have ratings in a table; with `inputs`, the ratings in the table are their targets."""
        names = (fitted.user_names, fitted.titles)
        row_names, feature_names = names if self.rows == "users" else names[::-1]
        shape = len(row_names), len(feature_names)
        matrix = self._matrix(fitted, table, shape)
        rows = np.flatnonzero(np.diff(matrix.indptr))
        absent = 0.0 if self.implicit else np.nan
        values = SparseRows(matrix[rows], absent)
        targets = None
        if inputs is not None:
            values, targets = SparseRows(self._matrix(fitted, inputs, shape)[rows], absent), values
        numbers = torch.from_numpy(rows)
        return Examples(
            values, None, (), None, (), numbers, row_names, kind=self.kind, feature_names=feature_names, targets=targets
        )

    def _matrix(self, fitted: FittedRatings, table: RatingTable, shape: tuple[int, int]) -> "csr_array":
        from scipy.sparse import csr_array

        place = (table.users, table.items) if self.rows == "users" else (table.items, table.users)
        return csr_array((self._residuals(fitted, table).astype(np.float32), place), shape=shape)


def describe_counts(train: int, validation: int, test: int) -> str:
    """Return the sizes of the three splits."""
    middle = f"{validation:,} for validation, " if validation else ""
    return f"{train:,} for training, {middle}{test:,} for the test"


def renumber(
    numbers: Array, names: Sequence[str], known: tuple[str, ...], extend: bool
) -> tuple[Array, tuple[str, ...]]:
    """Return numbers [n] of `names` as those of the names `known`; new names get -1, or `extend` the known ones."""
    places = {name: place for place, name in enumerate(known)}
    new = [name for name in names if name not in places] if extend else []
    places |= {name: len(known) + place for place, name in enumerate(new)}
    table = np.array([places.get(name, -1) for name in names], dtype=np.int64)
    return table[numbers], (*known, *new)


def known_entries(values: Values) -> tuple[Array, Array, Array]:
    """Return the rows, the columns and the values, [n] each, of the entries of rows [N, 1, 1, D] that are not NaN."""
    if isinstance(values, Tensor):
        dense = values.flatten(1).cpu().numpy()
        row, column = np.nonzero(~np.isnan(dense))
        return row, column, dense[row, column].astype(float)
    assert isinstance(values, SparseRows)
    matrix = values.matrix.tocoo()
    return matrix.coords[0], matrix.coords[1], matrix.data.astype(float)
