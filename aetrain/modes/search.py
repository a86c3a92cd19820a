"""`mode=search`: the training images nearest to an image of the user's own, by the run's code and by raw pixels."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aetrain.attempt import Job
from aetrain.build import Parts
from aetrain.config.errors import ConfigError
from aetrain.data.dataset import Images
from aetrain.data.folder import picture
from aetrain.data.own import instead
from aetrain.directory import shown
from aetrain.evaluation.measures import codes
from aetrain.evaluation.spaces import nearest, pixels
from aetrain.experiment import load
from aetrain.modes.evaluate import trained
from aetrain.views.render import grid, write_png

log = logging.getLogger("aetrain")

COUNT = 10  # images that are found


def search(job: Job) -> dict[str, Any]:
    """Find what is nearest to `query` by Euclidean distance, print it, and write it as a picture into the run.

    What is found, by `code` and by `pixels`: indices among the training images as the run sees them.
    """
    if job.plain["query"] is None:
        raise ConfigError("mode=search needs an image: query=picture.png")
    file = Path(job.plain["query"])
    source, parts, _ = trained(job, "search")
    asked = read(file, parts.dataset.stored_shape).to(parts.device)
    train = load(parts).train
    asked, read_as = like(asked, train.pixels, parts.dataset.binarize in ("threshold", "static"))
    log.info("query: %s, %dx%d, %s", shown(file), *asked.shape[2:], read_as)

    found = {}
    for space, (one, all_of_them) in spaces(parts, Images(asked), train).items():
        index = nearest(one, all_of_them, min(COUNT, len(train)))[0]
        distances = (all_of_them[index] - one).norm(dim=1).tolist()
        found[space] = index.tolist()
        log.info("nearest by %s:\n%s", space, table(train, found[space], distances))
    tiles = [torch.cat([asked, train.pixels[index]]).float() / 255 for index in found.values()]
    path = source.path / "search" / f"{file.stem}.png"
    write_png(grid(torch.cat(tiles), len(tiles[0]), [f"by {space}" for space in found]), path)
    log.info("picture: %s", shown(path))
    return found


def read(file: Path, shape: tuple[int, int, int]) -> Tensor:
    """An image file as `dataset=folder` reads it, grey or in colour and as large as the run's images: [1, C, H, W]."""
    channels, height, width = shape
    if channels not in (1, 3) or height != width:
        raise ConfigError(
            f"mode=search reads square images, grey or RGB, but the run's are {channels}x{height}x{width}"
        )
    if not file.is_file():
        raise ConfigError(f"query={file} {instead(file)}: give an image file")
    try:
        return torch.from_numpy(picture(file, height, channels).copy())[None]
    except Exception as reason:  # decoders raise anything about a file that is none of theirs
        raise ConfigError(f"query={file} cannot be read as an image: {' '.join(str(reason).split())}") from reason


def like(asked: Tensor, others: Tensor, binary: bool) -> tuple[Tensor, str]:
    """A query [1, C, H, W] in the manner of the training images, and in words what was done to it.

    Ink on paper becomes light on dark where the training images' border is dark and the query's is nearer to light;
    the other way round where theirs is light. With a border between light and dark nothing can be told.
    """
    own, theirs = border(asked), border(others)
    invert = abs(theirs - 0.5) > 0.25 and abs(1 - own - theirs) < abs(own - theirs)
    asked = 255 - asked if invert else asked
    if binary:
        asked = (asked > 127).to(torch.uint8).mul_(255)
    shade = ["dark", "light"][theirs > 0.5]
    said = f"made negative, as the training images' border is {shade} and its own is not" if invert else "as it is"
    return asked, said


def border(images: Tensor) -> float:
    """The mean of the outermost pixels of uint8 images [N, C, H, W], in [0, 1]."""
    frame = torch.ones(images.shape[2:], dtype=torch.bool, device=images.device)
    frame[1:-1, 1:-1] = False
    return float(images.to(torch.float32).mean((0, 1))[frame].mean()) / 255


def spaces(parts: Parts, asked: Images, train: Images) -> dict[str, tuple[Tensor, Tensor]]:
    """The query [1, D] and the training images [N, D], as codes and as pixels."""
    prepare = parts.dataset.prepare
    return {
        "code": (codes(parts.model, asked, prepare), codes(parts.model, train, prepare)),
        "pixels": (pixels(asked, prepare), pixels(train, prepare)),
    }


def table(train: Images, found: list[int], distances: list[float]) -> str:
    """A line for each image: its index, its class where it has one, how far it is."""
    rows = [["index", *(["class"] if train.labels is not None else []), "distance"]]
    for index, distance in zip(found, distances, strict=True):
        kind = [] if train.labels is None else [str(int(train.labels[index]))]
        rows.append([str(index), *kind, f"{distance:.3f}"])
    return "\n".join("  " + "  ".join(f"{word:>8}" for word in row) for row in rows)
