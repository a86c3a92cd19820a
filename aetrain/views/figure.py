"""Figures: the pictures and the data of views with title, labels, key, note and caption, as PNG, SVG or PDF files.

Lengths are units of the page (see `Page`), except those of sheets, which are pixels.
"""

import math
from pathlib import Path

import torch
from torch.nn import functional as F

from aetrain.storage import atomic
from aetrain.views.annotations import (
    Annotations,
    Content,
    Curves,
    Distributions,
    FigureOptions,
    PlacedText,
    PointCloud,
    RateLoss,
    Sheet,
    Tiles,
)
from aetrain.views.drawing_parameters import drawing_parameters
from aetrain.views.page import LABEL_SIZE, LINE_SPACING, Page, shorten, text_width
from aetrain.views.plots import draw_curves, draw_distributions, draw_points, draw_rate_loss
from aetrain.views.render import GAP, WHITE

SHEET_WIDTH = 1440  # of an enlarged sheet, approximately
MAX_TILE_SIDE = 400  # of an enlarged tile
MAX_SHEET_HEIGHT = 4000  # of an enlarged sheet
MIN_LABEL_SIZE = 10  # of the font of a label
LABEL_GAP = 0.3  # between a tile and its label, in font sizes


def save_figure(content: Content, annotations: Annotations, path: Path, options: FigureOptions) -> None:
    """Write a figure to `path`.png and so on, in the formats of `options`, each file as a whole."""
    with drawing_parameters():
        for kind in options.formats:
            if kind == "png":
                drawn = content.drawn if isinstance(content, Sheet) else None
                shown = content if drawn is None else Sheet(drawn)
                data = draw_figure(shown, annotations, options).encode_png()
            else:
                data = draw_figure(content, annotations, options).encode_vectors(kind)
            atomic.replace(path.with_name(f"{path.name}.{kind}"), data)


def draw_figure(content: Content, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of a figure."""
    match content:
        case Sheet():
            return draw_sheet(content, *enlargement(*content.pixels.shape[1:]), annotations, options)
        case Tiles():
            factor, resolution = enlargement(content.pixels.shape[1], content.width, max(content.tile))
            sheet = label_tiles(content, annotations, LABEL_SIZE * resolution / factor)
            return draw_sheet(sheet, factor, resolution, annotations, options)
        case PointCloud():
            return draw_points(content, annotations, options)
        case Distributions():
            return draw_distributions(content, annotations, options)
        case Curves():
            return draw_curves(content, annotations, options)
        case RateLoss():
            return draw_rate_loss(content, annotations, options)


def label_tiles(tiles: Tiles, annotations: Annotations, font: float) -> Sheet:
    """Return a grid without its column of captions, and with the labels as texts of size `font` instead.

    A row of tiles with labels has a white band above it.
    """
    (height, width), columns = tiles.tile, tiles.columns
    step_x, step_y = width + GAP, height + GAP
    half_gap, band = GAP // 2, math.ceil((1 + 2 * LABEL_GAP) * font)
    sheet = tiles.pixels[:, :, -tiles.width :]
    white = 255 if sheet.dtype is torch.uint8 else WHITE
    num_rows = (sheet.shape[1] - GAP) // step_y
    centres = [GAP + column * step_x + width / 2 for column in range(columns)]
    above = F.pad(sheet[:, :0], (0, 0, half_gap, 0), value=white) if any(annotations.tiles) else sheet[:, :half_gap]
    parts, texts, top = [above], [], half_gap
    for row, row_pixels in enumerate(sheet[:, half_gap : half_gap + num_rows * step_y].split(step_y, dim=1)):
        labels = annotations.tiles[row * columns : (row + 1) * columns]
        if any(labels):
            parts.append(F.pad(row_pixels[:, :0], (0, 0, band, 0), value=white))
            top += band
        for x, text in zip(centres, labels, strict=False):
            texts.append(PlacedText(x, top - LABEL_GAP * font, text, "mb", max_width=step_x))
        if row < len(annotations.rows):
            texts.append(PlacedText(-font / 2, top + half_gap + height / 2, annotations.rows[row], "rm"))
        parts.append(row_pixels)
        top += step_y
    for x, text in zip(centres, annotations.columns, strict=False):
        texts.append(PlacedText(x, -LABEL_GAP * font, text, "mb", max_width=width))
    parts.append(sheet[:, half_gap + num_rows * step_y :])
    return Sheet(torch.cat(parts, dim=1), [text for text in texts if text.text])


def draw_sheet(sheet: Sheet, factor: int, resolution: float, annotations: Annotations, options: FigureOptions) -> Page:
    """Return the page of a sheet whose pixels are enlarged by `factor` in the PNG file."""
    _, height, width = sheet.pixels.shape
    scale = factor / resolution  # from pixels of the sheet to units of the page
    left = top = 0.0  # room for the texts outside of the sheet
    for text in sheet.texts:
        if text.x < 0 and text.anchor[0] == "r":
            left = max(left, text_width(shorten(text.text), _font(text, scale)) - text.x * scale)
        if text.y < 0 and text.anchor[1] == "b":
            top = max(top, LINE_SPACING * _font(text, scale) - text.y * scale)
    y_axis = LINE_SPACING * LABEL_SIZE if annotations.y_axis else 0
    x_axis = LINE_SPACING * LABEL_SIZE if annotations.x_axis else 0
    size = y_axis + left + width * scale, x_axis + top + height * scale
    page = Page(annotations, options, *size, resolution)
    box = page.content_left + y_axis + left, page.content_top + x_axis + top, width * scale, height * scale
    page.add_image(sheet.pixels, box, factor)
    for text in sheet.texts:
        position = box[0] + text.x * scale, box[1] + text.y * scale
        page.add_text(*position, shorten(text.text), _font(text, scale), text.anchor, text.colour)
    if annotations.x_axis:
        page.add_text(box[0] + box[2] / 2, page.content_top, annotations.x_axis, LABEL_SIZE, "mt")
    if annotations.y_axis:
        middle = page.content_left, box[1] + box[3] / 2
        page.add_text(*middle, annotations.y_axis, LABEL_SIZE, "lm", is_vertical=True)
    return page


def enlargement(height: int, width: int, tile: int = 1) -> tuple[int, float]:
    """Return the whole number by which a sheet is enlarged in the PNG file, and the resolution of the page.

    `tile` is the longer side of its tiles, of which a few do not fill the page.
    """
    factor = max(1, min(round(SHEET_WIDTH / width), MAX_SHEET_HEIGHT // height, MAX_TILE_SIDE // tile))
    return factor, max(1.0, width * factor / SHEET_WIDTH)


def _font(text: PlacedText, scale: float) -> float:
    """Return the size of a text's font, smaller where the text would be wider than its place."""
    size = LABEL_SIZE if text.size is None else text.size * scale
    if text.max_width is None:
        return size
    width = text_width(shorten(text.text), size)
    return size if width <= text.max_width * scale else max(MIN_LABEL_SIZE, size * text.max_width * scale / width)
