"""The interface of the data sets of vectors: a table of columns, one feature per number or category.

Shapes: N examples, D features.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from aetrain.data.columns import Columns
from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples, Values
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.mapped_vectors import Summary, check_finite, summarise_vectors, vector_chunks
from aetrain.data.scaling import FittedScaling, Scaling
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.split_rows import split_rows
from aetrain.data.table_content import SPLIT_COLUMN, TableContent, separate_columns
from aetrain.data.user_files import abbreviate, check_fraction
from aetrain.data.vector_format import VectorFormat
from aetrain.data.windows import check_window, last_windows, make_windows
from aetrain.model.records import Kind


@dataclass(kw_only=True)
class VectorDataset(Dataset):
    """A table whose numbers are scaled by the training examples and whose texts are categories (see `Columns`).

    `scaling`: `standard` (mean 0, standard deviation 1), `minmax` ([0, 1]), `robust` (median 0, interquartile range 1)
    or `none`. Missing values stay missing (NaN), all features of a column together.
    """

    kind: ClassVar[Kind] = "vector"

    scaling: Scaling = "standard"
    test_fraction: float = field(default=0.1, init=False)
    _content: TableContent | None = field(default=None, init=False, repr=False, compare=False)
    _columns: Columns | None = field(default=None, init=False, repr=False, compare=False)
    _fitted: FittedScaling | None = field(default=None, init=False, repr=False, compare=False)
    _fitted_scaling: str = field(default="", init=False, repr=False, compare=False)  # the setting of `_fitted`
    _summary: Summary | None = field(default=None, init=False, repr=False, compare=False)  # of a table in a mapped file
    _has_missing: bool = field(default=False, init=False, repr=False, compare=False)

    @abstractmethod
    def read_content(self) -> TableContent:
        """Return the table. Raise ValueError for one that cannot be read."""

    @property
    def rows_per_example(self) -> int:
        """The number of rows of the table that form an example: 1, or those of a window of a time series."""
        return 1

    def read_rows(self, is_divided: bool = True) -> TableContent:
        """Return the table with one row for each example, also of rows of two splits where it is not divided."""
        return self.read_content()

    @property
    def source(self) -> str:
        """The beginning of a message about the table, such as `path='a.csv': `."""
        return ""

    def make_columns(self, content: TableContent) -> Columns:
        """Return the columns of a table that is read for the first time."""
        return Columns.of(content.frame)

    @property
    def columns(self) -> Columns:
        """The columns, read from the table unless a saved run has stated them."""
        if self._columns is None:
            with self._errors():
                self._content = self.read_rows()
                self._columns = self.make_columns(self._content)
                self._has_missing = self._is_incomplete(self._content)
        return self._columns

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, D)."""
        return 1, 1, len(self.columns.feature_names)

    @property
    def has_missing(self) -> bool:
        """Tell whether values may be missing: hidden ones, or entries of the table that are empty."""
        return self.missing > 0 or (len(self.columns.feature_names) > 0 and self._has_missing)

    @property
    def hidden_together(self) -> torch.Tensor:
        """The column of each feature, [D]."""
        return torch.from_numpy(self.columns.column_of_feature)

    @property
    def vector_format(self) -> VectorFormat:
        """The columns, and the scaling that the training examples gave: `inverse` returns original units."""
        return VectorFormat(self.columns, self._fitted)

    def inverse(self, values: Any) -> Any:
        """Return values of the model, [N, D] or [N, 1, 1, D], as a DataFrame in original units."""
        return self.vector_format.inverse(values)

    def read(self) -> tuple[Examples, ...]:
        """Return the features of the splits in original units, float64 [N, 1, 1, D]."""
        columns = self.columns
        with self._errors():
            content, self._content = self._content or self.read_rows(), None
            splits = split_rows(self._make_examples(content, columns), content.splits, self.test_fraction)
        if len(splits) == 3:
            self.check_own_validation(f"column {SPLIT_COLUMN!r}")
        return splits

    def read_undivided(self) -> tuple[Examples, ...]:
        """Return the features of all rows as `read`, without a split."""
        columns = self.columns
        with self._errors():
            return (self._make_examples(self.read_rows(is_divided=False), columns),)

    def _make_examples(self, content: TableContent, columns: Columns) -> Examples:
        """Return the features of a table in original units, float64 [N, 1, 1, D]."""
        values = self._values(content, columns)
        self._add_notes(content, columns)
        return Examples(
            values,
            None if content.labels is None else torch.from_numpy(content.labels),
            content.class_names,
            rows=torch.arange(len(values)) if content.places is None else torch.from_numpy(content.places),
            kind=self.kind,
            feature_names=columns.feature_names,
        )

    def split_examples(
        self, train: Examples, test: Examples, validation: Examples | None = None
    ) -> tuple[Examples, Examples, Examples]:
        """Return training, validation and test examples as `Dataset`, and fit the scaling to the training examples."""
        splits = super().split_examples(train, test, validation)
        if self._fitted is None:
            self._fit(splits[0])
        return splits

    def convert(self, examples: Examples, split_number: int) -> Examples:
        """Return the examples in the units of the model, float32."""
        if self._fitted is None:
            self._fit(examples)
        if self._fitted_scaling != self.scaling:
            raise ValueError(f"scaling={self.scaling}, but the run was trained with scaling={self._fitted_scaling}")
        if isinstance(examples.values, SparseRows):
            return examples
        if isinstance(examples.values, MappedRows):
            assert self._summary is not None
            extremes = torch.from_numpy(np.stack([self._summary.low, self._summary.high]))
            self._scaled(extremes)
            return replace(examples, values=replace(examples.values, scaling=self._fitted))
        return replace(examples, values=self._scaled(examples.values))

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        """Return features in the units of the model, float32. Raise ValueError where one is too large."""
        assert self._fitted is not None
        values = self._fitted.apply(features).to(torch.float32)
        if values.isinf().any():
            raise ValueError(f"scaling={self.scaling}: a value is too large for 32-bit floats: use scaling=standard")
        return values

    def fitted_state(self) -> Mapping[str, Any]:
        """Return the columns and the scaling."""
        if self._fitted is None:
            return {}
        state = {"setting": self._fitted_scaling, "has_missing": self._has_missing}
        return {**self.vector_format.state(), **state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the columns and the scaling of a saved run."""
        vector_format = VectorFormat.from_state(state)
        self._columns, self._fitted = vector_format.columns, vector_format.scaling
        self._fitted_scaling, self._has_missing = str(state["setting"]), bool(state["has_missing"])

    def _hold_out(self, train: Examples) -> tuple[Examples, Examples]:
        """Return the training and the validation examples; the last windows of a series, without a row in common."""
        if self.rows_per_example == 1 or not 0 < self.validation < len(train):
            return super()._hold_out(train)
        assert train.rows is not None
        kept, held_out = last_windows(train.rows.tolist(), self.validation, self.rows_per_example)
        if not kept:
            raise ValueError(
                f"validation={self.validation} leaves nothing to train on: all other windows have rows of these windows"
            )
        return train[torch.tensor(kept)], train[torch.tensor(held_out)]

    def _fit(self, train: Examples) -> None:
        """Fit the scaling to training examples and warn of constant features; raise ValueError without an example."""
        if not len(train):
            raise ValueError(f"{self.source}there is no training example, only test examples: add rows")
        columns = self.columns
        self._fitted_scaling = self.scaling
        values = train.values
        if isinstance(values, SparseRows):
            self._fitted = FittedScaling.fit("none", list, columns.is_number)
            return
        low, high = (summary := summarise_vectors(values)).low, summary.high
        if (is_unknown := np.isnan(low)).any():
            name = columns.columns[columns.column_of_feature[is_unknown][0]].name
            raise ValueError(f"{self.source}column {name!r} has no value in a training row: use dataset.drop=[{name}]")
        self._fitted = FittedScaling.fit(self.scaling, partial(vector_chunks, values), columns.is_number)
        if len(values) > 1 and (is_constant := low == high).any():
            names = [columns.feature_names[number] for number in np.flatnonzero(is_constant)]
            self.add_warning(f"constant in all training rows: {abbreviate(names)}")

    def _values(self, content: TableContent, columns: Columns) -> Values:
        """Return the features in original units [N, 1, 1, D]: float64, or the rows of the content."""
        values: Values
        if content.rows is None:
            values = torch.from_numpy(columns.to_features(content.frame))[:, None, None]
            has_missing = bool(values.isnan().any())
        else:
            values, has_missing = content.rows, self._is_incomplete(content)
        if has_missing and not self._has_missing:
            raise ValueError("it has missing values, but the run was trained on complete data: fill them in")
        return values

    def _is_incomplete(self, content: TableContent) -> bool:
        """Tell whether a table has missing values, reading the rows of a file at most once."""
        if content.rows is None:
            return bool(content.frame.isna().to_numpy().any())
        if isinstance(content.rows, SparseRows):
            return False
        if self._summary is None:
            self._summary = summarise_vectors(content.rows)
            check_finite(content.rows, self._summary, list(content.frame.columns))
        return self._summary.has_missing

    def _add_notes(self, content: TableContent, columns: Columns) -> None:
        for text in content.conversions:
            self.add_conversion(text)
        for text in content.warnings:
            self.add_warning(text)
        for name, categories in columns.unknown_categories(content.frame).items():
            self.add_warning(f"column {name!r} has categories that the run does not know: {abbreviate(categories)}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Begin the message of a ValueError about the table with its source."""
        try:
            yield
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(self.source) else self.source + text) from error


@dataclass(kw_only=True)
class ColumnsDataset(VectorDataset):
    """A user's own table, of whose columns some have other roles than features.

    `label` is the column of the classes, `drop` are columns to leave out, `categorical` are columns whose numbers are
    categories. A column `split` with the words train, test and validation states the splits; without it, and without
    test rows, `test_fraction` of the rows are for testing, the same ones in every run.

    `window` takes the rows as a time series: an example is that many consecutive rows, and `stride` are the rows from
    one example to the next (see `make_windows`). The last rows are then for testing.
    """

    label: str | int | None = None
    drop: Sequence[str | int] = ()
    categorical: Sequence[str | int] = ()
    test_fraction: float = 0.1
    window: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)
        check_window(self.window, self.stride)
        if self.window is not None and self.categorical:
            raise ValueError(f"window={self.window} is for numbers alone: use dataset.categorical=[] and dataset.drop=")

    @property
    def can_map(self) -> bool:
        """Tell whether the rows can stay in their file: categories and windows are made in memory."""
        return not self.categorical and self.window is None

    @property
    def rows_per_example(self) -> int:
        """`window`, or 1."""
        return self.window or 1

    def read_rows(self, is_divided: bool = True) -> TableContent:
        """Return the table, or its windows."""
        content = self.read_content()
        if self.window is None:
            return content
        return make_windows(content, self.window, self.stride, self.test_fraction if is_divided else None)

    def make_columns(self, content: TableContent) -> Columns:
        """Return the columns of the table, those of `categorical` as categories."""
        names = [*map(str, self.categorical)]
        for name in names:
            if name not in content.frame.columns:
                raise ValueError(
                    f"no column {name!r} for dataset.categorical among {abbreviate(content.frame.columns)}"
                )
        return Columns.of(content.frame, names)

    def separate(self, frame: Any, splits: Any = None) -> TableContent:
        """Return the content of a frame, by the settings."""
        return separate_columns(frame, self.label, self.drop, splits)
