"""Read the table in a file: text with separators, Parquet, or arrays of NumPy."""

import csv
import gzip
import io
import os
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aetrain.data.columns import check_names, numbered_names
from aetrain.data.npz_file import NpzFile
from aetrain.data.user_files import Array, abbreviate, describe_error, describe_path

if TYPE_CHECKING:  # the import takes 0.5 s
    from pandas import DataFrame

SEPARATORS = (",", ";", "\t", "|")
MISSING_WORDS = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL")  # None may be a category
WHOLE_NUMBER = r"[+-]?\d+"
DECIMAL_COMMA = rf"{WHOLE_NUMBER},\d+(?:[eE][+-]?\d+)?"
THOUSANDS_COMMA = r"[+-]?\d{1,3},\d{3}"
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npy", ".npz")

AddNote = Callable[[str], None]


class TableFile(NamedTuple):
    """The table in a file; the labels and the splits [N] that the names of its arrays state."""

    frame: "DataFrame"
    labels: Array | None = None
    splits: Array | None = None


def read_table_file(path: str, encoding: str, add_conversion: AddNote, add_warning: AddNote) -> TableFile:
    """Return the table in a file. Raise ValueError for one that is missing, damaged or of another format.

    The message names the row or line, and the mend.
    """
    file = Path(os.path.expanduser(path))
    name = file.name.lower()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None or not file.is_file():
        problem = "is no table" if suffix is None else describe_path(file)
        raise ValueError(f"it {problem}: use a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    if suffix == ".parquet":
        return TableFile(_read_parquet(file))
    if suffix == ".npy":
        return TableFile(_read_npy(file))
    if suffix == ".npz":
        return _read_npz(path)
    content = _unpacked(file) if suffix.endswith(".gz") else file.read_bytes()
    return TableFile(_read_text(_decoded(content, encoding), suffix, add_conversion, add_warning))


def _unpacked(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is a damaged .gz file ({describe_error(error)}): get it again") from None


def _decoded(content: bytes, encoding: str) -> str:
    """Return the text of a file. Raise ValueError, with the line, where it is of another encoding."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if marked == "utf-8-sig" and encoding == "utf-8":
        encoding = marked
    try:
        return content.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding={encoding} is not known: use utf-8, cp1252, latin-1, utf-16 or another") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        other = marked if marked not in (None, encoding) else "cp1252" if encoding != "cp1252" else "latin-1"
        raise ValueError(
            f"line {line} is not {encoding} text: use dataset.encoding={other}, or save the file as UTF-8"
        ) from None


def _read_text(text: str, suffix: str, add_conversion: AddNote, add_warning: AddNote) -> "DataFrame":
    """Return the table in a text whose first line is the header, or in one of numbers alone."""
    import pandas as pd

    first_line = next((line for line in text.splitlines() if line.strip()), "")
    if not first_line:
        raise ValueError("it is empty")
    separator = "\t" if suffix.startswith(".tsv") else max(SEPARATORS, key=_outside_quotes(first_line).count)
    header = next(csv.reader([first_line], delimiter=separator, skipinitialspace=True))
    numeric = [cell for cell in header if _is_number(cell)]
    has_header = len(numeric) < len([cell for cell in header if cell.strip()])
    names: Mapping[str, Any] = {}
    if has_header:
        check_names([name for name in header if name])  # pandas would rename the second one
        if numeric:
            add_warning(
                f"the header of the table has numbers ({abbreviate(numeric)}): is its first row missing above it?"
            )
    else:
        names = {"header": None, "names": numbered_names(len(header))}
        add_conversion(f"the file has no header: its columns are called {abbreviate(names['names'])}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame: DataFrame = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=[*MISSING_WORDS],
                low_memory=False,
                **names,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(_describe_parser_error(str(error), len(header))) from None
    return _without_decimal_commas(frame, separator, add_conversion)


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _describe_parser_error(text: str, num_columns: int) -> str:
    """Return the message for an error of pandas, with the line of the file where it states one."""
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        expected, line, count = match.groups()
        return f"line {line} has {count} entries, and the header has {expected}: mend it, or quote its separators"
    if match := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"a quote opens in line {int(match[1]) + 1} and is not closed: close it"
    if "Length of header" in text:
        return f"its rows have more entries than its header, which has {num_columns}: name every column"
    return f"it cannot be read as a table ({' '.join(text.split())})"


def _without_decimal_commas(frame: "DataFrame", separator: str, add_conversion: AddNote) -> "DataFrame":
    """Return the frame with numbers in the columns of texts such as 3,14, beside whole numbers.

    Raise ValueError where the commas of a column may be those of thousands: the file has commas as separators, and
    three digits follow each comma of the column.
    """
    import pandas as pd

    converted = []
    for number, dtype in enumerate(frame.dtypes):
        known = frame.iloc[:, number].dropna() if not pd.api.types.is_numeric_dtype(dtype) else frame.iloc[:0, number]
        if not len(known) or not all(isinstance(value, str) for value in known):
            continue
        name, texts = str(frame.columns[number]), known.str.strip()
        with_comma = texts.str.fullmatch(DECIMAL_COMMA)
        if not with_comma.any() or not (with_comma | texts.str.fullmatch(WHOLE_NUMBER)).all():
            continue
        if separator == "," and texts[with_comma].str.fullmatch(THOUSANDS_COMMA).all():
            raise ValueError(
                f"column {name!r} has {texts[with_comma].iloc[0]}, and its comma may be one of thousands or of "
                "decimals: write numbers without commas"
            )
        converted.append(name)
        frame = frame.assign(**{frame.columns[number]: pd.to_numeric(texts.str.replace(",", ".", regex=False))})
    if converted:
        add_conversion(f"decimal commas are read as points: {abbreviate(converted)}")
    return frame


def _read_parquet(file: Path) -> "DataFrame":
    import pandas as pd

    try:
        return pd.read_parquet(file)
    except ImportError:
        raise ValueError("a .parquet file needs pyarrow: pip install 'aetrain[parquet]', or save it as .csv") from None
    except Exception as error:  # pyarrow raises its own errors about damaged files
        raise ValueError(f"it cannot be read as a .parquet file ({describe_error(error)}): write it again") from None


def _read_npy(file: Path) -> "DataFrame":
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"it cannot be read ({describe_error(error)}): save it again with numpy.save") from None
    return array_frame(array, "it")


def _read_npz(path: str) -> TableFile:
    """Return the vectors of all splits in an .npz file, with the names in its array `feature_names`, if any."""
    import pandas as pd

    file = NpzFile(path)
    headers = file.headers()
    names = file.splits(headers)
    frames = [array_frame(file.array(arrays.images), arrays.images) for arrays in names.values()]
    if len({frame.shape[1] for frame in frames}) > 1:
        widths = " and ".join(str(headers[arrays.images]) for arrays in names.values())
        raise file.error(f"its arrays are {widths}: their rows must be of one length")
    frame = pd.concat(frames, ignore_index=True)
    if "feature_names" in headers:
        feature_names = file.array("feature_names").reshape(-1)
        if len(feature_names) != frame.shape[1]:
            raise file.error(f"it has {len(feature_names)} feature_names for {frame.shape[1]} features: name each once")
        frame.columns = [str(name) for name in feature_names]
    labels = [file.array(arrays.labels).reshape(-1) for arrays in names.values() if arrays.labels is not None]
    if labels and [*map(len, labels)] != [*map(len, frames)]:
        raise file.error("it has not one label for each vector")
    splits = np.repeat([*names], [*map(len, frames)]) if len(names) > 1 else None
    return TableFile(frame, np.concatenate(labels) if labels else None, splits)


def array_frame(array: Any, name: str) -> "DataFrame":
    """Return the frame of an array of vectors [N, D], or of records [N]."""
    import pandas as pd

    if array.dtype.names and array.ndim == 1:
        return pd.DataFrame({field: array[field] for field in array.dtype.names})
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        hint = "; for images use dataset=npz" if array.ndim in (3, 4) else ""
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}: use numbers [N, D]{hint}")
    return pd.DataFrame(array, columns=numbered_names(array.shape[1]))
