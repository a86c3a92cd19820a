"""Windows of a time series: consecutive rows of a table as one row. T rows, C columns, N windows of W rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aetrain.data.columns import is_number
from aetrain.data.table_content import TableContent
from aetrain.data.user_files import Array, test_count


def check_window(window: int | None, stride: int) -> None:
    """Raise ValueError for a window or a stride that is too small."""
    if window is not None and window < 2:
        raise ValueError(f"window={window} is no window: use 2 rows or more, or null for single rows")
    if stride < 1:
        raise ValueError(f"stride={stride} is too small: use 1 or more rows from one window to the next")


def make_windows(content: TableContent, window: int, stride: int, test_fraction: float | None) -> TableContent:
    """Return a table with one row for each window of `window` rows, whose first rows are `stride` apart.

    A column `a` becomes the columns `a[t-2]`, `a[t-1]`, `a[t]` (W = 3), and t is the row of the window. All rows of a
    window are in one split; where the table states no test rows, the last `test_fraction` of the rows are for testing.
    Without a fraction, None, windows may have rows of two splits, and have none themselves.
    The class of a window is the rarest one in the table of the classes of its rows, so that a window with an anomalous
    row is anomalous. Missing values stay missing. Raise ValueError for texts, and where no window fits into a split.
    """
    import pandas as pd

    frame = content.frame
    if content.rows is not None:
        raise ValueError(f"window={window} needs a dense table: use dataset.window=null with a sparse matrix")
    for name in frame.columns:
        if not is_number(frame[name]):
            raise ValueError(f"column {name!r} has texts, and windows have numbers alone: use dataset.drop=[{name}]")
    if test_fraction is None:
        splits = np.full(len(frame), "all")
    else:
        splits = series_splits(content.splits, len(frame), test_fraction)
    starts = window_starts(splits, window, stride)
    check_starts(starts, splits, window)
    values = np.lib.stride_tricks.sliding_window_view(frame.to_numpy(dtype=np.float64, na_value=np.nan), window, axis=0)
    columns = [f"{name}[{describe_lag(lag)}]" for name in frame.columns for lag in reversed(range(window))]
    return replace(
        content,
        frame=pd.DataFrame(values[starts].reshape(len(starts), -1), columns=columns),
        labels=None if content.labels is None else window_labels(content.labels, starts, window),
        splits=None if test_fraction is None else splits[starts],
        places=starts + window - 1,
    )


def describe_lag(lag: int) -> str:
    """Return `t` for 0 and `t-3` for 3."""
    return f"t-{lag}" if lag else "t"


def series_splits(splits: Array | None, count: int, test_fraction: float) -> Array:
    """Return the split of each of `count` rows: the last training rows are for testing where no others are."""
    result = np.full(count, "train", dtype="<U10") if splits is None else splits.astype("<U10")
    if "test" not in result:
        rows = np.flatnonzero(result == "train")
        result[rows[len(rows) - test_count(len(rows), test_fraction) :]] = "test"
    return result


def window_starts(splits: Array, window: int, stride: int) -> Array:
    """Return the first row [N] of each window: every `stride` rows of each run of rows of one split."""
    ends = np.flatnonzero(np.append(splits[1:] != splits[:-1], True)) + 1
    begins = np.append(0, ends[:-1])
    parts = [np.arange(begin, end - window + 1, stride) for begin, end in zip(begins, ends, strict=True)]
    return np.concatenate(parts).astype(np.int64)


def check_starts(starts: Array, splits: Array, window: int) -> None:
    """Raise ValueError where a split has rows and no window."""
    for split in np.unique(splits):
        if not (splits[starts] == split).any():
            raise ValueError(
                f"window={window} is longer than all {(splits == split).sum()} {split} rows in a row: use a shorter one"
            )


def window_labels(labels: Array, starts: Array, window: int) -> Array:
    """Return the class [N] of each window: the rarest one in the table among the labels [T] of its rows."""
    classes, positions, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(classes), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(classes))  # higher for rarer classes
    highest = np.lib.stride_tricks.sliding_window_view(rank[positions], window)[starts].max(axis=1)
    result: Array = classes[np.argsort(rank)][highest]
    return result


def last_windows(rows: Sequence[int], count: int, window: int) -> tuple[list[int], list[int]]:
    """Return the places of windows to train on, and of the last `count` ones, which have no row in common with them.

    `rows` are the last rows of the windows, ascending.
    """
    held_out = [*range(len(rows) - count, len(rows))]
    first_row = rows[held_out[0]] - window + 1
    return [place for place in range(held_out[0]) if rows[place] < first_row], held_out
