"""The protocols of views and of their outputs, and the outputs: a picture, a set of pictures, histograms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from aetrain.model.records import Kind
from aetrain.utils import compat
from aetrain.utils.wording import reword
from aetrain.views.annotations import (
    DEFAULT_OPTIONS,
    Annotations,
    Content,
    Distributions,
    FigureOptions,
    Sheet,
    Tiles,
    reword_annotations,
)
from aetrain.views.context import ViewContext
from aetrain.views.render import GREY, RGB, TILE_WIDTH, draw_frames, encode_png, enlarge, grid
from aetrain.views.unit_selection import UnitSelection

if TYPE_CHECKING:  # the import takes 0.2 s
    from torch.utils.tensorboard import SummaryWriter


class ViewOutput(Protocol):
    """The output of a view, which can add itself to an event file and save itself as a file."""

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        """Add the output to the event file, under a tag that contains `tag`."""
        ...

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        """Write figures to files whose names begin with `path`, which has no suffix; do nothing without pictures."""
        ...


class View(Protocol):
    """A function from a context to an output, or to None where the model or the data lacks what the view shows.

    It may have an attribute `description`, a sentence that TensorBoard shows beside its pictures, and an attribute
    `selects_units`, True where its pictures differ if the context `is_final`. It is then drawn once more for figures/.
    A view of other data than images has an attribute `data_kinds`, and is left out of runs on other kinds.
    """

    def __call__(self, context: ViewContext) -> ViewOutput | None: ...


def view_kinds(view: View) -> tuple[Kind, ...]:
    """Return the kinds of data that a view draws: its attribute `data_kinds`, or images alone."""
    return getattr(view, "data_kinds", ("image",))


def describe_view(view: View | None, noun: str = "image") -> str:
    """Return the description of a view for examples called `noun`; empty if it has none."""
    return reword(str(getattr(view, "description", "")), noun)


def selects_units(view: View) -> bool:
    """Return whether a view draws other pictures for figures/ than for TensorBoard."""
    return bool(getattr(view, "selects_units", False))


@dataclass(frozen=True, eq=False)
class Picture:
    """An image: tag `views/NAME`; a figure with title and labels: file NAME.png.

    Without `annotations`, the title is the name of the file.
    """

    pixels: Tensor  # [1 or 3, H, W], floats in [0, 1] or uint8
    annotations: Annotations | None = None
    content: Content | None = None  # of the figure, which draws texts itself; None for `pixels`
    selection: UnitSelection | None = None  # the units of the tiles, where the picture shows units
    limit: float | None = None  # the change that is white, where the picture shows changes; black is -`limit`

    @cached_property
    def png(self) -> bytes:
        """The content of the PNG file. Compression runs once, for the event file and the PNG file together."""
        return encode_png(self.pixels)

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        log_image(writer, f"views/{tag}", self, step)

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        save_content(self.content or Sheet(self.pixels), self.annotations, path, options)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures by name, such as one of each layer: tags `views_NAME/LAYER`, files NAME-LAYER.png."""

    pictures: Mapping[str, Picture]

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        for name, picture in self.pictures.items():
            log_image(writer, f"views_{tag}/{name}", picture, step)

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        for name, picture in self.pictures.items():
            picture.save(path.with_name(f"{path.name}-{name}"), options)


@dataclass(frozen=True, eq=False)
class Histograms:
    """Sets of numbers by name, which TensorBoard shows as distributions: tags `views_NAME/LAYER`, file NAME.png."""

    values: Mapping[str, Tensor]  # each [any number of finite values]
    annotations: Annotations | None = None

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        # The tag group `views` would list all histograms before the pictures.
        for name, values in self.values.items():
            writer.add_histogram(f"views_{tag}/{name}", values.to(torch.float32).cpu().numpy(), step)

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        if self.values:
            save_content(Distributions(self.values), self.annotations, path, options)


def save_content(content: Content, annotations: Annotations | None, path: Path, options: FigureOptions) -> None:
    """Write the figure of a content to files whose names begin with `path`."""
    from aetrain.views.figure import save_figure

    annotations = annotations or Annotations(name_as_words(path.name))
    save_figure(content, reword_annotations(annotations, options.noun), path, options)


def name_as_words(name: str) -> str:
    """Return the name of a view's file with spaces: `class_means-code` as `Class means code`."""
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def grid_picture(
    images: Tensor,
    annotations: Annotations,
    columns: int = 8,
    captions: Sequence[str] = (),
    gaps: float = GREY,
    width: int = TILE_WIDTH,
    frames: Sequence[RGB | None] = (),
) -> Picture:
    """Return the picture of a grid of images [N, C, h, w] (see `grid` and `draw_frames`).

    TensorBoard shows `captions`, the figure shows the labels of `annotations`.
    """
    tile_height, tile_width = enlarge(images[:1], width).shape[2:]
    pixels = draw_frames(grid(images, columns, captions, gaps, width), frames, (tile_height, tile_width), columns)
    return Picture(pixels, annotations, Tiles(pixels, (tile_height, tile_width), columns))


def log_image(writer: "SummaryWriter", tag: str, picture: Picture, step: int) -> None:
    """Add a picture to the event file, grey or RGB as it is."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    channels, height, width = picture.pixels.shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=picture.png)
    compat.add_summary(writer, Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def check_positive(**settings: float) -> None:
    """Raise a ValueError for the first setting of a view that is not above 0, with which the view would be empty."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}={value} shows nothing: use a number above 0")
