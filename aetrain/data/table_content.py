"""The content of a table: features, labels and splits, from the columns of a frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from aetrain.config.errors import did_you_mean
from aetrain.data.class_numbers import number_labels
from aetrain.data.columns import check_names, is_number
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.split_names import SPELLINGS, split_of
from aetrain.data.user_files import Array, abbreviate

if TYPE_CHECKING:  # the import takes 0.5 s
    from pandas import DataFrame, Series

SPLIT_COLUMN = "split"
MAX_CLASS_SHARE = 0.5  # classes per row: more are numbers or names


@dataclass(frozen=True, eq=False)
class TableContent:
    """A table without its label and its split, and notes about it for the log. N rows."""

    frame: "DataFrame"  # [N, columns]
    labels: Array | None = None  # [N] int64, numbered
    class_names: tuple[str, ...] = ()
    splits: Array | None = None  # [N] of train, test and validation; None for a random split
    rows: SparseRows | MappedRows | None = None  # of the features, in place of the frame, which has no rows then
    places: Array | None = None  # [N] int64 of the rows in the source; None for 0, 1, ...
    conversions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def separate_columns(
    frame: "DataFrame", label: str | int | None = None, drop: Sequence[str | int] = (), splits: Array | None = None
) -> TableContent:
    """Return the content of a frame: the labels of column `label`, the splits of a column `split`, without `drop`.

    Raise ValueError for a column that is not there, and where no row or no column would be left.
    """
    if not len(frame):
        raise ValueError("there are no rows")
    if frame.columns.nlevels > 1:
        raise ValueError(f"its columns have names of {frame.columns.nlevels} levels: use names of one level")
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    check_names(names)
    for setting, wanted in (("drop", [*map(str, drop)]), ("label", [] if label is None else [str(label)])):
        for name in wanted:
            if name not in names:
                raise ValueError(_describe_missing(setting, name, names))
    frame = frame.drop(columns=[*map(str, drop)])
    warnings: list[str] = []
    labels: Array | None = None
    class_names: tuple[str, ...] = ()
    if label is not None:
        if str(label) not in frame.columns:
            raise ValueError(f"column {str(label)!r} is dataset.label and in dataset.drop: leave it out of one")
        labels, class_names = number_label_column(frame.pop(str(label)), warnings)
    if splits is None:
        splits, frame = _separate_split(frame)
    if not frame.shape[1]:
        raise ValueError(f"there are no columns beside {', '.join(names)}: add some, or drop less")
    count = int(frame.isna().to_numpy().sum())
    conversions = [f"{count:,} of {frame.size:,} entries are missing values"] if count else []
    return TableContent(frame, labels, class_names, splits, conversions=conversions, warnings=warnings)


def _describe_missing(setting: str, name: str, names: Sequence[str]) -> str:
    hint = did_you_mean(name, names) or f"; the columns are {abbreviate(names)}"
    without = ", and dataset.label=null is for a table without" if setting == "label" else ""
    return f"no column {name!r} for dataset.{setting}{hint}{without}"


def number_label_column(column: "Series", warnings: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Return the labels [N] of a column, numbered, and the names of the classes."""
    name = column.name
    if column.isna().any():
        row = int(np.flatnonzero(column.isna().to_numpy())[0]) + 1
        raise ValueError(
            f"column {name!r} (dataset.label) is empty in data row {row}: add the label, or remove the row"
        )
    values: Any = (
        column.infer_objects().to_numpy()
        if is_number(column)
        else column.astype(str).str.strip().to_numpy(dtype=np.str_)
    )
    try:
        labels, class_names = number_table_labels(values)
    except ValueError as error:
        raise ValueError(
            f"column {name!r} (dataset.label): {error}, or dataset.label=null for a table without"
        ) from None
    if (count := int(labels.max()) + 1) > max(2, MAX_CLASS_SHARE * len(labels)):
        warnings.append(
            f"column {name!r} (dataset.label) has {count:,} classes in {len(labels):,} rows: is it a label?"
        )
    return labels, class_names


def number_table_labels(values: Array) -> tuple[Array, tuple[str, ...]]:
    """Return the labels [N] of all rows as `number_labels`."""
    (labels,), class_names = number_labels([values])
    return labels, class_names


def _separate_split(frame: "DataFrame") -> tuple[Array | None, "DataFrame"]:
    """Return the splits [N] that a column `split` states, and the frame without it; None where there is none."""
    name = next((name for name in frame.columns if name.lower() == SPLIT_COLUMN), None)
    if name is None or is_number(frame[name]):
        return None, frame
    splits = [split_of(str(value).strip()) for value in frame[name]]
    if not any(splits):
        return None, frame  # a column of another meaning
    if None in splits:
        row = splits.index(None)
        words = ", ".join(spelling for spellings in SPELLINGS.values() for spelling in spellings)
        raise ValueError(f"column {name!r} is {str(frame[name].iloc[row])!r} in data row {row + 1}: use one of {words}")
    return np.array(splits), frame.drop(columns=name)
