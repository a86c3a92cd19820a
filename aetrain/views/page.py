"""A page of a figure: title, key, note and caption around a rectangle for its content, written as PNG, SVG or PDF.

matplotlib draws by its objects, without pyplot and its global state. It is imported late: a run draws figures only at
its end. Lengths are units of the page, `WIDTH` of which are its width or more, from the upper left corner.
"""

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aetrain.views.annotations import Annotations, FigureOptions, KeyEntry
from aetrain.views.drawing_parameters import METADATA
from aetrain.views.render import INK, RGB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 1600  # smallest width
DPI = 160
MARGIN = 36  # on each side
TITLE_SIZE, LABEL_SIZE, NOTE_SIZE = 36, 24, 22  # of fonts; keys and captions have that of notes
LINE_SPACING = 1.4  # in font sizes
SWATCH = 26  # side of a colour in the key
TEXT_OFFSET = 1.4 * SWATCH  # from the left of a colour to its text
SWATCH_LINE = 5  # width of a frame in the key
MAX_TEXT_LENGTH = 60  # characters of a label, such as a class name of the user's
KEY_GAP = 36  # between two entries of the key
CAPTION_COLOUR: RGB = (110, 110, 110)


class Page:
    """A figure with its title above, and its key, note and caption below a rectangle that is left for the content.

    The content has the size `width`, `height` and is in the middle of the page. The PNG file has `resolution` pixels
    for a unit of length.
    """

    def __init__(
        self, annotations: Annotations, options: FigureOptions, width: float, height: float, resolution: float = 1
    ) -> None:
        from matplotlib.figure import Figure

        self.resolution = resolution
        self.width = max(WIDTH, width + 2 * MARGIN)
        inner = self.width - 2 * MARGIN
        note = options.description if annotations.note is None else annotations.note
        title_lines = wrap(annotations.title, TITLE_SIZE, inner)
        note_lines, caption_lines = wrap(note, NOTE_SIZE, inner), wrap(options.caption, NOTE_SIZE, inner)
        key = [] if not annotations.key else place_key(annotations.key_title, annotations.key, inner)

        self.content_left = (self.width - width) / 2
        self.content_top = MARGIN / 2 + (len(title_lines) + 0.2) * LINE_SPACING * TITLE_SIZE
        key_top = self.content_top + height + MARGIN / 2
        note_top = key_top + (1 + max((row for *_, row in key), default=-1)) * LINE_SPACING * SWATCH
        caption_top = note_top + len(note_lines) * LINE_SPACING * NOTE_SIZE
        self.height = caption_top + len(caption_lines) * LINE_SPACING * NOTE_SIZE + MARGIN / 2
        self._images: list[tuple[Any, tuple[slice, slice], Any, int]] = []  # artist, area, pixels, enlargement
        self._size = round(self.width * resolution), round(self.height * resolution)  # of the PNG file
        dpi = DPI * resolution
        self.figure: Figure = Figure(figsize=(self._size[0] / dpi, self._size[1] / dpi), dpi=dpi)

        self._add_lines(title_lines, MARGIN / 2, TITLE_SIZE, INK)
        self._add_key(key, key_top)
        self._add_lines(note_lines, note_top, NOTE_SIZE, INK)
        self._add_lines(caption_lines, caption_top, NOTE_SIZE, CAPTION_COLOUR)

    def _add_lines(self, lines: Sequence[str], top: float, size: float, colour: RGB) -> None:
        for number, line in enumerate(lines):
            self.add_text(MARGIN, top + number * LINE_SPACING * size, line, size, "lt", colour)

    def _add_key(self, key: Sequence[tuple[KeyEntry | str, float, int]], top: float) -> None:
        for entry, offset, row in key:
            x, y = MARGIN + offset, top + row * LINE_SPACING * SWATCH
            if isinstance(entry, KeyEntry):
                self.add_key_entry(entry, x, y)
            else:
                self.add_text(x, y + SWATCH / 2, entry, NOTE_SIZE, "lm")

    def add_key_entry(self, entry: KeyEntry, x: float, y: float) -> None:
        """Draw the colour of an entry at a position, and its text to the right of it."""
        self._add_swatch(entry, x, y)
        self.add_text(x + TEXT_OFFSET, y + SWATCH / 2, entry.text, NOTE_SIZE, "lm")

    def _add_swatch(self, entry: KeyEntry, x: float, y: float) -> None:
        from matplotlib.patches import Rectangle

        colour = as_fractions(entry.colour)
        size = SWATCH / self.width, SWATCH / self.height
        line = SWATCH_LINE if entry.is_frame else 1
        self.figure.add_artist(
            Rectangle(
                (x / self.width, 1 - (y + SWATCH) / self.height),
                *size,
                facecolor="white" if entry.is_frame else colour,
                edgecolor=colour if entry.is_frame else as_fractions(CAPTION_COLOUR),
                linewidth=line * 72 / DPI,
                transform=self.figure.transFigure,
            )
        )

    def add_text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        anchor: str,
        colour: RGB = INK,
        is_vertical: bool = False,
    ) -> None:
        """Write a text with its anchor (as in `PlacedText`) at a position."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            size=size * 72 / DPI,
            color=as_fractions(colour),
            ha={"l": "left", "m": "center", "r": "right"}[anchor[0]],
            va="center" if is_vertical else {"t": "top", "m": "center_baseline", "b": "baseline"}[anchor[1]],
            rotation="vertical" if is_vertical else "horizontal",
            parse_math=False,
        )

    def add_image(self, pixels: Tensor, box: tuple[float, float, float, float], factor: int) -> None:
        """Draw a picture [1 or 3, H, W] in a box (left, top, width, height).

        In the PNG file it is `factor` times as large.
        """
        axes = self.add_axes(box)
        axes.set_axis_off()
        if pixels.dtype is not torch.uint8:
            pixels = pixels.clamp(0, 1).mul(255).round().to(torch.uint8)
        values = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        artist = axes.imshow(values, interpolation="none", aspect="auto")
        left, top, width, height = self._in_pixels(box)
        self._images.append((artist, (slice(top, top + height), slice(left, left + width)), values, factor))

    def _in_pixels(self, box: tuple[float, float, float, float]) -> tuple[int, ...]:
        """Return a box in pixels of the PNG file."""
        return tuple(round(length * self.resolution) for length in box)

    def encode_png(self) -> bytes:
        """Return the content of a PNG file. The pixels of pictures are copied, which is faster than resampling."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        renderer = FigureCanvasAgg(self.figure).get_renderer()
        canvas = np.asarray(renderer.buffer_rgba())
        canvas[:] = 255
        for artist, area, values, factor in self._images:
            artist.set_visible(False)
            canvas[(*area, slice(3))] = values.repeat(factor, 0).repeat(factor, 1)
        self.figure.patch.set_visible(False)
        self.figure.draw(renderer)
        for artist, *_ in self._images:
            artist.set_visible(True)
        red, green, blue = (canvas[:, :, channel] for channel in range(3))
        is_grey = np.array_equal(red, green) and np.array_equal(green, blue)
        image = Image.fromarray(np.ascontiguousarray(red if is_grey else canvas[:, :, :3]))
        content = io.BytesIO()
        image.save(content, "PNG", compress_level=1, dpi=(self.figure.dpi, self.figure.dpi))
        return content.getvalue()

    def encode_vectors(self, kind: str) -> bytes:
        """Return the content of an svg or pdf file, in which texts are texts."""
        content = io.BytesIO()
        self.figure.savefig(content, format=kind, metadata=METADATA[kind])
        return content.getvalue()

    def add_axes(self, box: tuple[float, float, float, float]) -> "Axes":
        """Return new axes in a box (left, top, width, height), at whole pixels of the PNG file."""
        left, top, width, height = self._in_pixels(box)
        page_width, page_height = self._size
        bottom = page_height - top - height
        sides = left / page_width, bottom / page_height, width / page_width, height / page_height
        return self.figure.add_axes(sides)


def place_key(title: str, entries: Sequence[KeyEntry], width: float) -> list[tuple[KeyEntry | str, float, int]]:
    """Return the title of a key and its entries, each with its offset from the left and its row."""
    placed: list[tuple[KeyEntry | str, float, int]] = []
    x, row = 0.0, 0
    items: list[KeyEntry | str] = [f"{title}:", *entries] if title else [*entries]
    for item in items:
        text, swatch = (item, 0.0) if isinstance(item, str) else (item.text, TEXT_OFFSET)
        length = swatch + text_width(text, NOTE_SIZE)
        if x and x + length > width:
            x, row = 0.0, row + 1
        placed.append((item, x, row))
        x += length + KEY_GAP
    return placed


def wrap(text: str, size: float, width: float) -> list[str]:
    """Return the lines of a text in a font of this size, each at most `width` long where its words allow it."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def shorten(text: str) -> str:
    """Return a text in one line of at most `MAX_TEXT_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT_LENGTH else f"{line[: MAX_TEXT_LENGTH - 1]}…"


def text_width(text: str, size: float) -> float:
    """Return the width of a text in the font of all figures."""
    return size * sum(map(_letter_width, text))


@cache
def _letter_width(letter: str) -> float:
    """Return the width of a letter in a font of size 1."""
    from matplotlib.font_manager import fontManager, get_font

    font = get_font(fontManager.findfont("DejaVu Sans"))
    if not font.get_char_index(ord(letter)):
        return 1.0  # a box in the PNG file, which other programs replace by a letter of another font
    font.set_size(100, 72)
    return font.load_char(ord(letter)).linearHoriAdvance / 65536 / 100


def as_fractions(colour: RGB) -> tuple[float, float, float]:
    """Return a colour with parts in [0, 1]."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
