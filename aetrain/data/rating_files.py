"""Files of ratings: one user, item, rating and, where known, time in each row, in the usual formats.

    .csv             separated by commas, semicolons or tabs; fields may be quoted and hold line breaks
    .tsv, .data      separated by tabs
    .dat             separated by ::

Each may be packed with gzip (.gz). The first row may have the names of the columns.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aetrain.data.user_files import Array, abbreviate, describe_path

SUFFIXES = (".csv", ".tsv", ".dat", ".data")
MAX_FIELD_LENGTH = 2**20  # characters of one field, such as a title

# The usual names of the columns, in lower case and without other characters than letters and digits.
SPELLINGS: Mapping[str, Sequence[str]] = {
    "user": ("user", "userid", "uid", "users", "userno", "username", "reviewer", "reviewerid", "customerid"),
    "item": (
        *("item", "itemid", "iid", "items", "movie", "movieid", "film", "filmid", "product", "productid", "asin"),
        *("book", "bookid", "isbn", "song", "songid", "track", "trackid", "artist", "artistid"),
    ),
    "rating": ("rating", "ratings", "score", "stars", "value", "overall", "bookrating"),
    "time": ("time", "timestamp", "date", "datetime", "unixreviewtime"),
}

Row = tuple[int, list[str]]  # the number of its line, from 1, and its fields


@dataclass(frozen=True)
class RatingTable:
    """n ratings, in the order of their file, of users and items that are numbered by their names."""

    users: Array  # [n] int64: the number of each rating's user in `user_names`
    items: Array  # [n] int64
    values: Array  # [n] float64
    times: Array | None  # [n] float64 seconds; None where they are unknown
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Array) -> "RatingTable":
        times = None if self.times is None else self.times[index]
        return replace(self, users=self.users[index], items=self.items[index], values=self.values[index], times=times)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of users and of items."""
        return len(self.user_names), len(self.item_names)


class Columns(NamedTuple):
    """The names of a file's columns, or their places from 1; None for a column with a usual name."""

    user: str | int | None = None
    item: str | int | None = None
    rating: str | int | None = None
    time: str | int | None = None


def read_ratings(
    file: Path, columns: Columns, encoding: str | None, rating_range: tuple[float, float] | None
) -> tuple[RatingTable, str]:
    """Return the ratings of a file, and a sentence about repeated ones, of which the last is kept ("" for none).

    Raise ValueError with the file, the line and the mend where a row is no rating, or one outside of `rating_range`.
    """
    rows = read_rows(file, encoding)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{file} is empty: use a file with a user, an item and a rating in each row")
    places, has_header = find_columns(file, first, columns)
    body: Iterable[Row] = rows if has_header else _chain(first, rows)
    users, items, values, times = _parse_rows(file, body, places, rating_range)
    if not users:
        raise ValueError(
            f"{file} has a header but no ratings: use a file with a user, an item and a rating in each row"
        )
    user_numbers, user_names = number_names(users)
    item_numbers, item_names = number_names(items)
    table = RatingTable(
        user_numbers,
        item_numbers,
        np.array(values),
        np.array(times) if times else None,
        user_names,
        item_names,
    )
    return _drop_repeated(file, table)


def read_rows(file: Path, encoding: str | None = None, delimiter: str | None = None) -> Iterator[Row]:
    """Yield the rows of a text file that are not empty, with the numbers of their lines.

    `encoding` is by default UTF-8, or the UTF-16 that a byte order mark states; `delimiter` by default that of the
    file's name. Raise ValueError where the file cannot be read.
    """
    if not file.is_file():
        raise ValueError(f"{file} {describe_path(file)}: use a file of ratings ({', '.join(SUFFIXES)} or .gz)")
    text = _decode(file, _read_bytes(file), encoding)
    return _split_rows(file, text, delimiter or _find_delimiter(file, text))


def find_columns(file: Path, first: Row, columns: Columns) -> tuple[dict[str, int], bool]:
    """Return the place of each column from 0, and whether the first row is a header.

    Without a header the columns are user, item, rating and, where there are four, time.
    """
    _, names = first
    by_place = {"user": 0, "item": 1, "rating": 2, "time": 3}
    rating_place = columns.rating - 1 if isinstance(columns.rating, int) else by_place["rating"]
    has_header = not (rating_place < len(names) and _is_number(names[rating_place]))
    places = {}
    for column, setting in columns._asdict().items():
        place: int | None = by_place[column]
        if isinstance(setting, int):
            place = _check_place(file, column, setting, names)
        elif has_header:
            place = _find_name(file, column, setting, names)
        elif setting is not None:
            raise ValueError(
                f"{file} has no header ({abbreviate(names)} is a rating), but dataset.{column}={setting}: use the "
                f"place of the column, such as dataset.{column}={by_place[column] + 1}"
            )
        if place is not None and place < len(names):
            places[column] = place
        elif column != "time":
            raise ValueError(f"{file} line {first[0]} has {len(names)} columns: {column} is missing")
    return places, has_header


def number_names(names: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """Return the number of each name in the sorted names, and these; names that are all integers sort as integers."""
    are_integers = all(name.isdecimal() for name in names)
    unique = sorted(set(names), key=lambda name: (int(name) if are_integers else 0, name))
    numbers = {name: number for number, name in enumerate(unique)}
    return np.fromiter((numbers[name] for name in names), np.int64, len(names)), tuple(unique)


def _chain(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _read_bytes(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file} cannot be unpacked ({error}): it is damaged, or no gzip file; fetch it again"
        ) from None


def _decode(file: Path, content: bytes, encoding: str | None) -> str:
    if encoding is None:
        marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
        encoding = marks.get(content[:2], "utf-8-sig")
    try:
        return content.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding={encoding} is unknown: use a name such as utf-8, latin-1 or cp1252") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file} line {line} is no text in {encoding.removesuffix('-sig')}: name its encoding, such as "
            "dataset.encoding=latin-1 or cp1252"
        ) from None


def _find_delimiter(file: Path, text: str) -> str:
    name = file.name.removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{file} is of an unknown kind: use one of {', '.join(SUFFIXES)}, also with .gz")
    first_line = text[: text.find("\n") if "\n" in text else len(text)]
    choices = {".csv": (",", ";", "\t"), ".tsv": ("\t",), ".data": ("\t",), ".dat": ("::", "\t", ",")}[suffix]
    return max(choices, key=first_line.count)


def _split_rows(file: Path, text: str, delimiter: str) -> Iterator[Row]:
    if len(delimiter) > 1:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, line.split(delimiter)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    last_line = 0
    csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield last_line + 1, fields
            last_line = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num}: {error}; close its quotes or correct the row") from None


def _check_place(file: Path, column: str, place: int, names: Sequence[str]) -> int:
    if not 1 <= place <= len(names):
        raise ValueError(f"dataset.{column}={place}: {file} has the columns 1 to {len(names)}")
    return place - 1


def _find_name(file: Path, column: str, setting: str | None, names: Sequence[str]) -> int | None:
    """Return the place of a column by its name in the header, or by a usual one; None where there is no time."""
    stripped = [name.strip() for name in names]
    listed = ", ".join(map(repr, stripped))
    if setting is not None:
        if setting not in stripped:
            raise ValueError(f"dataset.{column}={setting}: {file} has no such column, but {listed}")
        return stripped.index(setting)
    plain = [re.sub(r"[\W_]", "", name).lower() for name in stripped]
    for spelling in SPELLINGS[column]:
        if spelling in plain:
            return plain.index(spelling)
    if column == "time":
        return None
    raise ValueError(
        f"{file}: no column of the header ({listed}) has a usual name of the {column}s: name it by "
        f"dataset.{column}=NAME (also dataset.user, item, rating, time), or give its place, such as dataset.{column}=1"
    )


def _parse_rows(
    file: Path, rows: Iterable[Row], places: Mapping[str, int], rating_range: tuple[float, float] | None
) -> tuple[list[str], list[str], list[float], list[float]]:
    """Return users, items, ratings and times (none where there is no such column)."""
    user, item, rating, time = places["user"], places["item"], places["rating"], places.get("time")
    width = max(places.values()) + 1
    low, high = rating_range or (-np.inf, np.inf)
    users, items, values, times = [], [], [], []
    for number, fields in rows:
        if len(fields) < width:
            raise ValueError(
                f"{file} line {number} has {len(fields)} of {width} columns ({abbreviate(fields)}): complete it"
            )
        value = _parse_number(fields[rating])
        if value is None or not low <= value <= high:
            expected = "a number" if rating_range is None else f"a number from {low:g} to {high:g}"
            where = "" if rating_range is None else ", or change dataset.rating_range"
            raise ValueError(
                f"{file} line {number}: the rating {fields[rating]!r} is not {expected}: correct it{where}"
            )
        user_name, item_name = fields[user].strip(), fields[item].strip()
        if not user_name or not item_name:
            raise ValueError(f"{file} line {number} has no {'item' if user_name else 'user'}: complete or delete it")
        users.append(user_name)
        items.append(item_name)
        values.append(value)
        if time is not None:
            times.append(_parse_time(file, number, fields[time]))
    return users, items, values, times


def _is_number(text: str) -> bool:
    return _parse_number(text) is not None


def _parse_number(text: str) -> float | None:
    """Return a finite number, also with a decimal comma; None for another text."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _parse_time(file: Path, line: int, text: str) -> float:
    """Return a time in seconds, from a number or a date in ISO format."""
    number = _parse_number(text)
    if number is not None:
        return number
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise ValueError(
            f"{file} line {line}: the time {text!r} is no number and no date such as 2016-10-17 or 2016-10-17T08:30: "
            "correct it, or name another column by dataset.time"
        ) from None


def _drop_repeated(file: Path, table: RatingTable) -> tuple[RatingTable, str]:
    """Return a table with one rating of each user and item, the last by time or else in the file, and a sentence."""
    keys = table.users * len(table.item_names) + table.items
    order = np.arange(len(table)) if table.times is None else np.argsort(table.times, kind="stable")
    _, last = np.unique(keys[order][::-1], return_index=True)  # the first place from the end
    kept = np.sort(order[len(order) - 1 - last])
    repeated = len(table) - len(kept)
    if not repeated:
        return table, ""
    times = "in the file" if table.times is None else "by its time"
    noun = "rating is" if repeated == 1 else "ratings are"
    return table[kept], (
        f"{repeated:,} {noun} left out, because the user rated the item again: the last rating {times} is kept"
    )
