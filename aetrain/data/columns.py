"""The columns of a table as features: a number is one feature, a text is one feature (0 or 1) per category.

Shapes: N rows, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from aetrain.config.errors import did_you_mean
from aetrain.data.user_files import Array, quote_names

if TYPE_CHECKING:  # the import takes 0.5 s
    from pandas import DataFrame, Series

MAX_CATEGORIES = 100  # of a column of texts: more are names or free text


@dataclass(frozen=True)
class Column:
    """A column of a table; `categories` is None where it has numbers."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features: its own, or `colour=blue`, `colour=red` and so on."""
        if self.categories is None:
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)


@dataclass(frozen=True)
class Columns:
    """The columns of a table in their order."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, frame: "DataFrame", categorical: Sequence[str] = ()) -> Self:
        """Return the columns of a frame, its texts and the columns `categorical` as categories.

        Raise ValueError for a column that is neither numbers nor categories.
        """
        columns = []
        for name in frame.columns:
            column = frame[name]
            if is_number(column) and name not in categorical:
                columns.append(Column(name))
            else:
                columns.append(Column(name, _categories(column, name in categorical)))
        return cls(tuple(columns))

    @classmethod
    def numbered(cls, count: int) -> Self:
        """Return `count` columns of numbers, x1, x2 and so on."""
        return cls(tuple(Column(name) for name in numbered_names(count)))

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the D features."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @cached_property
    def column_of_feature(self) -> Array:
        """The number of the column of each feature, [D]."""
        return np.repeat(np.arange(len(self.columns)), [len(column.feature_names) for column in self.columns])

    @cached_property
    def is_number(self) -> Array:
        """Tell for each feature whether it is a number and not a category, [D]."""
        return np.array([column.categories is None for column in self.columns], dtype=bool)[self.column_of_feature]

    def to_features(self, frame: "DataFrame") -> Array:
        """Return the features of a frame, float64 [N, D]; all features of a missing entry are NaN.

        A category that these columns do not know is 0 in all features of its column. Other columns of the frame are
        ignored. Raise ValueError for a column that is missing, infinite, or has texts in place of numbers.
        """
        features = np.empty((len(frame), len(self.feature_names)))
        start = 0
        for column in self.columns:
            end = start + len(column.feature_names)
            features[:, start:end] = self._column_features(column, frame)
            start = end
        return features

    def to_frame(self, features: Array, index: Any = None) -> "DataFrame":
        """Return the table of features [N, D]: the likeliest category of each column, numbers as they are."""
        import pandas as pd

        values: dict[str, Any] = {}
        start = 0
        for column in self.columns:
            end = start + len(column.feature_names)
            part = features[:, start:end]
            values[column.name] = part[:, 0] if column.categories is None else _likeliest(column.categories, part)
            start = end
        return pd.DataFrame(values, index=index)

    def unknown_categories(self, frame: "DataFrame") -> dict[str, list[str]]:
        """Return the categories of a frame that its columns here do not have, by column."""
        unknown = {}
        for column in self.columns:
            known = set(column.categories or ())
            if known and (values := sorted(set(_texts(frame[column.name]).dropna()) - known)):
                unknown[column.name] = values
        return unknown

    def state(self) -> list[Mapping[str, Any]]:
        """Return the columns as JSON."""
        return [
            {"name": column.name, "categories": None if column.categories is None else list(column.categories)}
            for column in self.columns
        ]

    @classmethod
    def from_state(cls, state: Sequence[Mapping[str, Any]]) -> Self:
        """Return the columns of `state`."""
        columns = []
        for column in state:
            categories = column["categories"]
            columns.append(Column(str(column["name"]), None if categories is None else tuple(map(str, categories))))
        return cls(tuple(columns))

    def _column_features(self, column: Column, frame: "DataFrame") -> Array:
        """Return the features of one column, [N, number of its features]."""
        if column.name not in frame.columns:
            hint = did_you_mean(column.name, [str(name) for name in frame.columns])
            raise ValueError(f"column {column.name!r} is missing{hint}")
        entries = frame[column.name]
        if column.categories is None:
            return _numbers(entries)[:, None]
        texts = _texts(entries)
        features = np.stack([(texts == category).to_numpy(dtype=float) for category in column.categories], axis=1)
        features[texts.isna().to_numpy()] = np.nan
        return features


def is_number(column: "Series") -> bool:
    """Tell whether a column has numbers or bools; one of Python's objects may have missing entries beside numbers."""
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype, is_object_dtype

    if is_object_dtype(column):
        known = column.dropna()
        return len(known) > 0 and all(
            isinstance(entry, Real | Decimal) and not isinstance(entry, bool) for entry in known
        )
    return bool((is_numeric_dtype(column) or is_bool_dtype(column)) and not is_complex_dtype(column))


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError where two columns have one name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two columns are called {twice[0]!r}: rename one")


def numbered_names(count: int) -> list[str]:
    """Return the names x1, x2 and so on of columns without names."""
    return [f"x{number}" for number in range(1, count + 1)]


def _numbers(column: "Series") -> Array:
    """Return the numbers of a column, float64 [N]; ValueError for texts and infinite values."""
    if not is_number(column) and (row := _first_text(column)) is not None:
        raise ValueError(describe_text_among_numbers(column, row))
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0])
        raise ValueError(describe_infinite(column.name, row, numbers[row]))
    return numbers


def describe_infinite(column: Any, row: int, value: float) -> str:
    """Return the message about an infinite value in a row, counted from 0, of a column."""
    place = f"column {column!r}, data row {row + 1}"
    return f"{place} is {value:g}: mend the row, or leave the entry empty for a missing value"


def _first_text(column: "Series") -> int | None:
    """Return the place of the first entry that is no number and not missing; None where there is none."""
    import pandas as pd

    is_text = pd.to_numeric(column, errors="coerce").isna().to_numpy() & column.notna().to_numpy()
    return int(np.flatnonzero(is_text)[0]) if is_text.any() else None


def describe_text_among_numbers(column: "Series", row: int) -> str:
    """Return the message about a text at a place of a column of numbers."""
    name = column.name
    return (
        f"column {name!r} has numbers, but {str(column.iloc[row])!r} in data row {row + 1}: mend the row, leave the "
        f"entry empty for a missing value, or use dataset.drop=[{name}] or dataset.categorical=[{name}]"
    )


def _categories(column: "Series", is_categorical: bool) -> tuple[str, ...]:
    """Return the categories of a column of texts, sorted; ValueError where it has too many, or other entries."""
    import pandas as pd
    from pandas.api.types import is_datetime64_any_dtype, is_object_dtype, is_string_dtype

    name, known = column.name, column.dropna()
    is_text = isinstance(column.dtype, pd.CategoricalDtype) or is_string_dtype(column) or is_object_dtype(column)
    if is_datetime64_any_dtype(column) or not (is_text or is_categorical):
        raise ValueError(
            f"column {name!r} has entries of the type {column.dtype}: turn it into numbers, or use "
            f"dataset.drop=[{name}]"
        )
    categories = tuple(sorted(_texts(known).unique()))
    if not categories:
        raise ValueError(f"column {name!r} has no values: use dataset.drop=[{name}]")
    if not is_categorical and not isinstance(column.dtype, pd.CategoricalDtype):
        is_numeric = pd.to_numeric(pd.Series(categories), errors="coerce").notna()
        row = _first_text(column)
        if is_numeric.mean() >= 0.5 and row is not None:
            raise ValueError(describe_text_among_numbers(column, row))
    if len(categories) > MAX_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(categories):,} different texts such as {quote_names(categories[:2])}, and "
            f"categories are at most {MAX_CATEGORIES}: use dataset.drop=[{name}]"
        )
    return categories


def _texts(column: "Series") -> "Series":
    """Return the entries of a column as texts, missing ones as they are; whole numbers without a decimal point."""

    def text(entry: Any) -> str:
        if isinstance(entry, float | np.floating) and float(entry).is_integer():
            return str(int(entry))
        return str(entry).strip()

    return column.astype(object).map(text, na_action="ignore")


def _likeliest(categories: Sequence[str], part: Array) -> Array:
    """Return the category with the largest feature in each row [N, K]; None where all are missing."""
    is_missing = np.isnan(part).all(axis=1)
    best = np.nan_to_num(part, nan=-np.inf).argmax(axis=1)
    names = np.array(categories, dtype=object)[best]
    names[is_missing] = None
    return names
