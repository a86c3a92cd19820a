"""Documents: texts with their classes and splits, read from a table or from a folder of text files."""

import codecs
import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aetrain.data.split_names import SPELLINGS, split_of
from aetrain.data.user_files import describe_error, describe_path

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".jsonl.gz")
DELIMITERS = (",", ";", "\t")
MAX_FIELD = 2**31 - 1  # characters of a field, the largest limit that the module csv accepts everywhere

INVALID_BYTE = re.compile("[\udc80-\udcff]")  # as the error handler `surrogateescape` decodes it
ENCODING_ADVICE = "set dataset.encoding to that of the file, such as latin-1 or cp1252"
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Documents:
    """Texts in the order of their source, with their classes and their splits where the source has them."""

    texts: Sequence[str]
    labels: Sequence[str] | None = None  # of each text
    splits: Sequence[str] | None = None  # train, test or validation, of each text


@dataclass(frozen=True)
class Stamp:
    """A file as it is now: its path, its size in bytes and its modification time in ns."""

    path: str
    size: int
    time: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the stamp of a file."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class TextTable:
    """A table of documents: a .csv or .tsv file with a header, or .jsonl with one object a line; or these as .gz.

    `text`, `label` and `split` are names of columns; `label` may be None, and a file without the column `split` has
    documents without splits.
    """

    path: str
    text: str = "text"
    label: str | None = "label"
    split: str | None = "split"
    encoding: str = "utf-8"
    stamp: Stamp | None = field(init=False)  # part of the value, so that a changed file is another table

    def __post_init__(self) -> None:
        if not os.path.isfile(self._file) or not self._file.name.lower().endswith(TABLE_SUFFIXES):
            problem = "is of another kind" if os.path.isfile(self._file) else describe_path(self._file)
            raise ValueError(
                f"path={self.path!r} {problem}: use a file {', '.join(TABLE_SUFFIXES)}, or a folder of .txt files"
            )
        object.__setattr__(self, "stamp", Stamp.of(self._file))

    @property
    def _file(self) -> Path:
        return Path(os.path.expanduser(self.path))

    def read(self) -> Documents:
        """Return the documents. Raise ValueError, with the row, for a row that cannot be read."""
        is_json = ".jsonl" in "".join(self._file.suffixes).lower()
        records = list(self._objects() if is_json else self._rows())
        if not records:
            raise self._error("has no documents")
        names = dict.fromkeys(name for _, record in records for name in record)
        self._check_columns(list(names))
        texts = [self._text(number, record) for number, record in records]
        labels = None if self.label is None else [self._label(number, record) for number, record in records]
        has_splits = self.split is not None and self.split in names
        splits = [self._split(number, record) for number, record in records] if has_splits else None
        return Documents(texts, labels, splits)

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"path={self.path!r} {problem}")

    def _lines(self) -> Iterator[str]:
        """Yield the lines of the file, in which bytes of another encoding are surrogates."""
        try:
            content = self._file.read_bytes()
            if self._file.suffix.lower() == ".gz":
                content = gzip.decompress(content)
        except (OSError, EOFError, ValueError) as error:
            raise self._error(f"cannot be read ({describe_error(error)})") from None
        yield from io.StringIO(decode(content, self.encoding, f"path={self.path!r}"), newline="")

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the number of each row of a .csv or .tsv file, counted from 1 after the header, and its fields."""
        lines = self._lines()
        first_line = next(lines, "")
        headers = {delimiter: next(csv.reader([first_line], delimiter=delimiter), []) for delimiter in DELIMITERS}
        delimiter = max(headers, key=lambda each: len(headers[each]))  # the first of those with the most columns
        header, number = headers[delimiter], 0
        csv.field_size_limit(MAX_FIELD)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for number, row in enumerate(reader, 1):
                if row and len(row) != len(header):
                    raise self._error(
                        f"row {number} (line {reader.line_num + 1}) has {len(row)} columns, but the header has "
                        f"{len(header)}: put a text with {delimiter!r} or a line break in quotes"
                    )
                if row:
                    yield number, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise self._error(f"cannot be read after row {number} ({error}): check the quotes there") from None

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the number of each line of a .jsonl file and its object."""
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._error(
                    f"row {number} is no JSON ({describe_error(error)}): write one object a line"
                ) from None
            if not isinstance(record, dict):
                raise self._error(f'row {number} is no object: write one object a line, such as {{"text": "..."}}')
            yield number, record

    def _check_columns(self, names: Sequence[str]) -> None:
        """Raise ValueError where a column is missing; `split` may be, unless another name than the default is set."""
        needed = {"text": self.text, "label": self.label, "split": self.split if self.split != "split" else None}
        for setting, name in needed.items():
            if name is not None and name not in names:
                alternative = "" if setting == "text" else ", or to null"
                raise self._error(
                    f"has no column {name!r}, but {', '.join(map(repr, names))}: set dataset.{setting} to one of "
                    f"them{alternative}"
                )

    def _text(self, number: int, record: Mapping[str, Any]) -> str:
        text = record.get(self.text)
        if not isinstance(text, str):
            raise self._error(f"row {number} has {text!r} as {self.text!r}: use a text, which may be empty")
        check_encoding(text, f"path={self.path!r} row {number}", self.encoding)
        return text

    def _label(self, number: int, record: Mapping[str, Any]) -> str:
        label = record.get(self.label or "")
        if label in (None, "") or not isinstance(label, str | int | float):
            raise self._error(
                f"row {number} has {label!r} as {self.label!r}: give each document a label, or use dataset.label=null"
            )
        return str(label)

    def _split(self, number: int, record: Mapping[str, Any]) -> str:
        value = record.get(self.split or "")
        split = split_of(value) if isinstance(value, str) else None
        if split is None:
            known = ", ".join(spellings[0] for spellings in SPELLINGS.values())
            raise self._error(
                f"row {number} has {value!r} as {self.split!r}: use {known}, or dataset.split=null to read a split "
                "from no column"
            )
        return split


@dataclass(frozen=True)
class TextFiles:
    """Files of one document each, with the splits and the classes of the folders that they are in."""

    files: Sequence[Stamp]
    labels: Sequence[str] | None
    splits: Sequence[str]
    encoding: str = "utf-8"

    def read(self) -> Documents:
        """Return the documents. Raise ValueError for a file that cannot be read."""
        texts = []
        for file in self.files:
            try:
                texts.append(decode(Path(file.path).read_bytes(), self.encoding, file.path))
            except OSError as error:
                raise ValueError(f"{file.path} cannot be read ({error.strerror})") from None
            check_encoding(texts[-1], file.path, self.encoding)
        return Documents(texts, self.labels, self.splits)


def decode(content: bytes, encoding: str, place: str) -> str:
    """Return the text of a file, in the encoding that its byte order mark states, or in `encoding`.

    Bytes that are no characters become surrogates, which `check_encoding` finds. Raise ValueError where that is not
    possible.
    """
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), encoding)
    try:
        return content.decode(marked, errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not in {marked} ({error.reason}): {ENCODING_ADVICE}") from None


def check_encoding(text: str, place: str, encoding: str) -> None:
    """Raise ValueError where a text has bytes that are not of `encoding`."""
    if invalid := INVALID_BYTE.search(text):
        byte, before = ord(invalid[0]) - 0xDC00, text[max(0, invalid.start() - 20) : invalid.start()]
        raise ValueError(f"{place} is not in {encoding}: byte 0x{byte:02x} follows {before!r}; {ENCODING_ADVICE}")


def check_encoding_name(encoding: str) -> None:
    """Raise ValueError where no encoding has this name."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError(f"encoding={encoding!r} is not known: use one such as utf-8, latin-1 or cp1252") from None
