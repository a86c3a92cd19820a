"""The texts and the layout of figures: plain data that views add to their pictures, drawn when a run ends.

Positions and sizes are pixels of the picture. x runs to the right and y downwards, from its upper left corner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aetrain.utils.wording import reword
from aetrain.views.render import GAP, INK, RGB

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

BLACK_GREY_WHITE: tuple[RGB, RGB, RGB] = ((0, 0, 0), (128, 128, 128), (255, 255, 255))


@dataclass(frozen=True)
class FigureOptions:
    """The caption and the file formats of a run's figures."""

    caption: str = ""  # model, data set, epoch and seed
    formats: Sequence[str] = ("png",)  # of png, svg and pdf
    description: str = ""  # of the view, the note of figures without a note
    noun: str = "image"  # the word for an example


DEFAULT_OPTIONS = FigureOptions()


@dataclass(frozen=True)
class KeyEntry:
    """The meaning of a colour: of an area, or of a frame around a tile."""

    colour: RGB
    text: str
    is_frame: bool = False


@dataclass(frozen=True)
class PlacedText:
    """A text at a position of a sheet; `anchor` is PIL's: horizontally l, m or r, vertically t, m or b."""

    x: float
    y: float
    text: str
    anchor: str = "mm"
    colour: RGB = INK
    size: float | None = None  # of the font; None for the size of all labels
    max_width: float | None = None  # a longer text has a smaller font


@dataclass(frozen=True, eq=False)
class Sheet:
    """A picture without texts, and its texts.

    `drawn` is the same with its texts, for PNG files: a sheet of hundreds of texts takes matplotlib seconds.
    """

    pixels: Tensor  # [1 or 3, H, W], floats in [0, 1] or uint8
    texts: Sequence[PlacedText] = ()
    drawn: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in a plane, with the number and the names of their classes; `beside` are the same examples elsewhere."""

    points: Tensor  # [N, 2]
    labels: Tensor | None  # [N]
    class_names: Sequence[str] = ()  # of the labels in ascending order
    has_y_ticks: bool = True  # False where the vertical axis has no meaning
    title: str = ""  # above the frame, where another one is beside it
    beside: "PointCloud | None" = None
    axes: tuple[str, str] | None = None  # names, where they are not those of the annotations


@dataclass(frozen=True, eq=False)
class Tiles:
    """A picture that `grid` has drawn, whose rows, columns and tiles the annotations may label."""

    pixels: Tensor  # [1 or 3, H, W], floats in [0, 1]
    tile: tuple[int, int]  # height and width of a tile
    columns: int

    @property
    def width(self) -> int:
        """The width of the picture without its column of captions."""
        return self.columns * (self.tile[1] + GAP) + GAP


@dataclass(frozen=True, eq=False)
class Distributions:
    """Sets of numbers by name, each shown as a histogram."""

    values: Mapping[str, Tensor]  # each [any number of finite values]


@dataclass(frozen=True)
class CurvePanel:
    """Curves over epochs of one metric, by the name of their split."""

    metric: str
    unit: str
    curves: Mapping[str, Sequence[tuple[int, float]]]  # epoch and value


@dataclass(frozen=True)
class Curves:
    """Panels of curves, with a line at the best epoch where there is one."""

    panels: Sequence[CurvePanel]
    best_epoch: int | None = None


@dataclass(frozen=True)
class RateLoss:
    """The losses of a learning-rate range test."""

    rates: Sequence[float]  # rising
    losses: Sequence[float]
    smoothed: Sequence[float]
    suggestion: float | None


Content = Sheet | Tiles | PointCloud | Distributions | Curves | RateLoss


@dataclass(frozen=True)
class Annotations:
    """The texts of a figure.

    `rows`, `columns` and `tiles` are labels of a grid of pictures, row by row; the label of a tile is above it.
    """

    title: str
    x_axis: str = ""
    y_axis: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    tiles: Sequence[str] = ()
    key_title: str = ""
    key: Sequence[KeyEntry] = ()
    note: str | None = None  # None for the description of the view


def reword_annotations(annotations: Annotations, noun: str) -> Annotations:
    """Return texts about images for examples called `noun`; the labels, such as names of classes, stay."""
    if noun == "image":
        return annotations
    return replace(
        annotations,
        title=reword(annotations.title, noun),
        x_axis=reword(annotations.x_axis, noun),
        y_axis=reword(annotations.y_axis, noun),
        key_title=reword(annotations.key_title, noun),
        key=[replace(entry, text=reword(entry.text, noun)) for entry in annotations.key],
        note=None if annotations.note is None else reword(annotations.note, noun),
    )


def pixel_key(x: Tensor) -> dict[str, Any]:
    """Return the key of grey images x [N, C, H, W], 0 in black and 1 in white, as arguments.

    Missing pixels (NaN) are grey. Colour images without missing pixels have no key.
    """
    black, grey, white = BLACK_GREY_WHITE
    key = [] if x.shape[1] == 3 else [KeyEntry(black, "0"), KeyEntry(white, "1")]
    if bool(x.isnan().any()):
        key.append(KeyEntry(grey, "missing"))
    return {"key_title": "value of a pixel", "key": tuple(key)} if key else {}


def signed_key(limit: float) -> list[KeyEntry]:
    """Return the key of `signed_grey` with this limit."""
    texts = (f"{-limit:.2g} or less", "0", f"{limit:.2g} or more")
    return [KeyEntry(colour, text) for colour, text in zip(BLACK_GREY_WHITE, texts, strict=True)]


def write_texts(draw: "ImageDraw", font: "FreeTypeFont | ImageFont", texts: Sequence[PlacedText]) -> None:
    """Write the texts of a sheet on a page of its size."""
    for text in texts:
        draw.text((text.x, text.y), text.text, fill=text.colour, font=font, anchor=text.anchor)
