"""`mode=search`: find the images nearest to an image file, by the run's code and by raw pixels."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.data.digests import digest_data
from aetrain.data.examples import Examples
from aetrain.data.folder import Folder
from aetrain.data.image_reader import read_image
from aetrain.data.user_files import describe_path
from aetrain.evaluation.measures.baselines import flatten_pixels, nearest_rows
from aetrain.evaluation.measures.measure import encode_all
from aetrain.modes.evaluate import load_trained, warn_of_changed_data
from aetrain.modes.other_data import chooses_data, load_all
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.runs.train import load_data, log_data
from aetrain.storage.run_directory import display_path
from aetrain.views.render import grid, write_png

log = logging.getLogger("aetrain")

NUM_RESULTS = 10
MIN_CONTRAST = 0.25  # distance of the border's mean from 0.5 that makes it clearly dark or light


def search(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Find the images nearest to `query` (Euclidean), log them, and write a picture into the run's directory.

    The images are the training images of the run, or all images of another data set that the command line chooses.
    Return the indices of the nearest among them, by `code` and by `pixels`.
    """
    if settings.query is None:
        raise ConfigError("mode=search needs an image: query=picture.png")
    file = Path(settings.query)
    source, components, _ = load_trained(request, settings, "search")
    dataset = components.dataset
    white = dataset.white if isinstance(dataset, Folder) else None
    query = read_query(file, dataset.stored_shape, white).to(components.device)
    if chooses_data(request):
        train = load_all(request, components)
    else:
        splits = load_data(components)
        warn_of_changed_data(request, source, digest_data(splits))
        log_data(components, splits)
        train = splits.train
    binary = dataset.binarize in ("threshold", "static")
    query, description = match_polarity(query, train.pixels, binary)
    log.info("query: %s, %dx%d, %s", display_path(file), *query.shape[2:], description)

    results: dict[str, list[int]] = {}
    for name, (row, rows) in feature_rows(components, Examples(query), train).items():
        index = nearest_rows(row, rows, min(NUM_RESULTS, len(train)))[0]
        distances = (rows[index] - row).norm(dim=1).tolist()
        results[name] = index.tolist()
        log.info("nearest by %s:\n%s", name, format_table(train, results[name], distances))
    tiles = [torch.cat([query, train.pixels[index]]).float() / 255 for index in results.values()]
    path = source.path / "search" / f"{file.stem}.png"
    write_png(grid(torch.cat(tiles), len(tiles[0]), [f"by {name}" for name in results]), path)
    log.info("picture: %s", display_path(path))
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
    """Return the query [1, D] and the training images [N, D], as codes and as pixels."""
    model, prepare = components.model, components.dataset.prepare
    return {
        "code": (encode_all(model, query, prepare), encode_all(model, train, prepare)),
        "pixels": (flatten_pixels(query, prepare), flatten_pixels(train, prepare)),
    }


def format_table(train: Examples, indices: list[int], distances: list[float]) -> str:
    """Return a line for each image: its index, the name of its class and its file where known, its distance."""
    names = train.names
    rows = [["index", *(["class"] if train.labels is not None else []), "distance", *(["file"] if names else [])]]
    for index, distance in zip(indices, distances, strict=True):
        label = [] if train.labels is None else [train.class_name(int(train.labels[index]))]
        rows.append([str(index), *label, f"{distance:.3f}", *names[index : index + 1]])
    widths = [max(8, *map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(f"  {'  '.join(map(str.rjust, row, widths))}" for row in rows)
