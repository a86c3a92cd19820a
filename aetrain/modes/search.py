"""`mode=search`: find the examples nearest to an image file, to words or to a row, by the run's code and by input."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.data.digests import digest_data
from aetrain.data.examples import Examples
from aetrain.data.folder import Folder
from aetrain.data.image_reader import read_image
from aetrain.data.text import TextDataset
from aetrain.data.user_files import describe_path
from aetrain.evaluation.measures.baselines import flatten_pixels
from aetrain.evaluation.measures.measure import encode_all
from aetrain.evaluation.measures.retrieval import default_distance, find_nearest
from aetrain.modes.evaluate import load_trained, warn_of_changed_data
from aetrain.modes.other_data import chooses_data, load_all
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.runs.train import load_data, log_data
from aetrain.storage.run_directory import display_path
from aetrain.views.render import grid, write_png

log = logging.getLogger("aetrain")

NUM_RESULTS = 10
MAX_TEXT = 70  # characters of a document that are shown
MIN_CONTRAST = 0.25  # distance of the border's mean from 0.5 that makes it clearly dark or light
MAX_BORDER_IMAGES = 10_000  # training images whose border is compared with that of the query


@dataclass(frozen=True)
class Query:
    """An example to which others are compared: its name, a description and, if it is of the data set, its row."""

    examples: Examples
    name: str
    description: str
    row: int | None = None


def search(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Find the examples nearest to `query`, log them, and write a picture of images into the run's directory.

    The query is an image file, words for a run on documents, or `row:N`, an example of the data. The examples are the
    training examples of the run, or all examples of another data set that the command line chooses. Documents are
    compared by the cosine, other data by the Euclidean distance. Return the indices of the nearest among them, by
    `code` and by `pixels`, or by `input` where there are none.
    """
    if settings.query is None:
        raise ConfigError('mode=search needs a query: query=picture.png, query="some words" or query=row:17')
    source, components, _ = load_trained(request, settings, "search")
    row = parse_row(settings.query)
    query = read_own_query(settings.query, components) if row is None else None
    if chooses_data(request):
        train = load_all(request, components)
        parts = [train]
    else:
        splits = load_data(components)
        warn_of_changed_data(request, source, digest_data(splits))
        log_data(components, splits)
        train = splits.train
        parts = [train, splits.validation, splits.test]
    if row is not None:
        query = find_row(row, parts)
    assert query is not None
    is_image = components.dataset.kind == "image"
    if is_image and row is None:
        query = match_query(query, train, components.dataset.binarize in ("threshold", "static"))
    log.info("query: %s", query.description)

    results = find_nearest_examples(components, query, train)
    if is_image:
        tiles = [
            torch.cat([query.examples.pixels, train[torch.tensor(index)].pixels]).float() / 255
            for index in results.values()
        ]
        path = source.path / "search" / f"{query.name}.png"
        write_png(grid(torch.cat(tiles), len(tiles[0]), [f"by {name}" for name in results]), path)
        log.info("picture: %s", display_path(path))
    return results


def parse_row(query: str) -> int | None:
    """Return N of a query `row:N`; None for another query."""
    match = re.fullmatch(r"row:(\d+)", query)
    return int(match[1]) if match else None


def read_own_query(query: str, components: Components) -> Query:
    """Return the query that an image file or words are."""
    dataset = components.dataset
    if isinstance(dataset, TextDataset):
        return read_words(query, dataset)
    if dataset.kind != "image":
        raise ConfigError(
            f"query={query} is no example of this data set: use the number of a row, such as query=row:17"
        )
    file = Path(query)
    white = dataset.white if isinstance(dataset, Folder) else None
    image = read_query(file, dataset.stored_shape, white).to(components.device)
    description = f"{display_path(file)}, {image.shape[2]}x{image.shape[3]}"
    return Query(Examples(image), file.stem, description)


def read_words(query: str, dataset: TextDataset) -> Query:
    """Return words as a document. Raise ConfigError where the vocabulary has none of them."""
    vocabulary, words = dataset.vocabulary.words, dataset.split_words(query)
    known = [word for word in words if word in vocabulary]
    unknown = [word for word in words if word not in vocabulary]
    if not known:
        examples = ", ".join(vocabulary[:: max(len(vocabulary) // 5, 1)][:5])
        raise ConfigError(f"query={query!r} has no word of the vocabulary: use words such as {examples}")
    missing = f"; not in the vocabulary: {', '.join(unknown)}" if unknown else ""
    return Query(dataset.vectorize([query]), "words", f"{', '.join(known)}{missing}")


def find_row(row: int, parts: Sequence[Examples]) -> Query:
    """Return the example of a row of the data set. Raise ConfigError where no split has it."""
    for part in parts:
        if part.rows is not None and len(index := (part.rows == row).nonzero().flatten()):
            example = part[index]
            label = [] if example.labels is None else [f"class {example.class_name(int(example.labels[0]))}"]
            return Query(example, f"row-{row}", ", ".join([f"row {row}", *label, *example.names]), row)
    rows = torch.cat([part.rows for part in parts if part.rows is not None])
    raise ConfigError(
        f"query=row:{row} is none of the {len(rows):,} examples: their rows are {rows.min()} to {rows.max()}"
    )


def find_nearest_examples(components: Components, query: Query, train: Examples) -> dict[str, list[int]]:
    """Log the examples nearest to the query, by code and by input; return their indices by the name of the features."""
    distance = default_distance(components.dataset.kind)
    texts = components.dataset.texts() if isinstance(components.dataset, TextDataset) else ()
    results: dict[str, list[int]] = {}
    for name, (row, rows) in feature_rows(components, query.examples, train).items():
        index = find_nearest(row, rows, min(NUM_RESULTS + 1, len(train)), distance)[0]
        if query.row is not None and train.rows is not None:
            index = index[train.rows[index] != query.row]  # the query itself
        index = index[:NUM_RESULTS]
        values = F.cosine_similarity(row, rows[index]) if distance == "cosine" else (rows[index] - row).norm(dim=1)
        results[name] = index.tolist()
        measure = "cosine" if distance == "cosine" else "distance"
        log.info("nearest by %s:\n%s", name, format_table(train, results[name], values.tolist(), measure, texts))
    return results


def read_query(file: Path, shape: tuple[int, int, int], white: float | None = None) -> Tensor:
    """Return an image file as uint8 [1, C, H, W], read as `dataset=folder` reads it and of the run's size."""
    channels, height, width = shape
    if channels not in (1, 3) or height != width:
        raise ConfigError(
            f"mode=search reads square images, grey or RGB, but the run's are {channels}x{height}x{width}"
        )
    if not file.is_file():
        raise ConfigError(f"query={file} {describe_path(file)}: use an image file")
    try:
        return torch.from_numpy(read_image(file, height, channels, white).copy())[None]
    except Exception as reason:  # decoders raise any exception for a file that is no image
        cause = " ".join(str(reason).split())
        raise ConfigError(f"query={file} cannot be read as an image: {cause}") from reason


def match_query(query: Query, train: Examples, binary: bool) -> Query:
    """Return the query with the polarity of the training images, as `match_polarity`."""
    image, polarity = match_polarity(query.examples.pixels, train[:MAX_BORDER_IMAGES].pixels, binary)
    return replace(query, examples=Examples(image), description=f"{query.description}, {polarity}")


def match_polarity(query: Tensor, images: Tensor, binary: bool) -> tuple[Tensor, str]:
    """Return the query [1, C, H, W] light on dark or dark on light as the training images, and a description.

    The query is inverted if the border of the training images is clearly dark and the border of the query is nearer to
    light, or the reverse. `binary` images make it black and white.
    """
    query_mean, training_mean = border_mean(query), border_mean(images)
    is_nearer_inverted = abs(1 - query_mean - training_mean) < abs(query_mean - training_mean)
    invert = abs(training_mean - 0.5) > MIN_CONTRAST and is_nearer_inverted
    query = 255 - query if invert else query
    if binary:
        query = (query > 127).to(torch.uint8).mul_(255)
    if not invert:
        return query, "as it is"
    shade = "light" if training_mean > 0.5 else "dark"
    return query, f"inverted, because the training images' border is {shade} and its own is not"


def border_mean(images: Tensor) -> float:
    """Return the mean of the outermost pixels of uint8 images [N, C, H, W], in [0, 1]."""
    frame = torch.ones(images.shape[2:], dtype=torch.bool, device=images.device)
    frame[1:-1, 1:-1] = False
    return float(images.to(torch.float32).mean((0, 1))[frame].mean()) / 255


def feature_rows(components: Components, query: Examples, train: Examples) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the query [1, D] and the training examples [N, D], as codes and as pixels or other input."""
    model, prepare = components.model, components.dataset.prepare
    return {
        "code": (encode_all(model, query, prepare), encode_all(model, train, prepare)),
        "pixels" if train.kind == "image" else "input": (
            flatten_pixels(query, prepare),
            flatten_pixels(train, prepare),
        ),
    }


def format_table(
    train: Examples, indices: list[int], values: list[float], measure: str = "distance", texts: Sequence[str] = ()
) -> str:
    """Return a line for each example: its index, the name of its class, its distance or other `measure`, its row.

    Its file and the first of the `texts` of all rows follow where they are known.
    """
    names = train.names
    columns = [["index", *map(str, indices)]]
    if train.labels is not None:
        columns.append(["class", *(train.class_name(int(train.labels[index])) for index in indices)])
    columns.append([measure, *(f"{value:.3f}" for value in values)])
    if train.rows is not None:
        rows = train.rows[indices].tolist()
        columns.append(["row", *map(str, rows)])
    if names:
        columns.append(["file", *(names[index] for index in indices)])
    widths = [max(8, *map(len, column)) for column in columns]
    cells = [[cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]
    if texts and train.rows is not None:
        cells.append(["text", *(shorten(" ".join(texts[row].split()), MAX_TEXT, placeholder="...") for row in rows)])
    return "\n".join(f"  {'  '.join(line)}" for line in zip(*cells, strict=True))
