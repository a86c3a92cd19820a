"""Tensors to pictures: floats in [0, 1], [1, H, W] in grey or [3, H, W] in RGB, on the CPU.

Shapes: N images, C channels, h, w pixels of one image.
"""

import bisect
import importlib.util
import io
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.storage import atomic

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

RGB = tuple[int, int, int]

INK: RGB = (50, 50, 50)  # of text, lines and bars
PAPER: RGB = (255, 255, 255)  # of backgrounds
DEAD_COLOUR: RGB = (214, 39, 40)  # red
SATURATED_COLOUR: RGB = (31, 119, 180)  # blue

GAP = 6  # pixels between tiles. The page Time Series shows every fourth or fifth pixel, so gaps of 4 would vanish.
GREY = 0.5  # of gaps between images, unlike the black and the white of their edges
WHITE = 1.0  # of gaps where grey means zero
TILE_WIDTH = 112  # largest width of a tile, in pixels: 4 x MNIST's 28, 14 x the 8 of the small digits
SMALL_TILE_WIDTH = 84  # of a tile beside a long caption, which in a wide picture would be too small to read
CLIPPED_SHARE = 0.005  # of the pixels of changes, which are white or black whatever their size
MIN_LIMIT = 1 / 255  # the smallest change that can be white: one step of an 8-bit image
CAPTION_SIZE = 32  # font size of captions, of which TensorBoard shows a third


def grid(
    images: Tensor, columns: int = 8, captions: Sequence[str] = (), gaps: float = GREY, width: int = TILE_WIDTH
) -> Tensor:
    """Return images [N, C, h, w] as one picture [1 or 3, H, W], row by row, with gaps of the grey value `gaps`.

    Images are enlarged to at most `width` pixels. Channels that are neither grey nor RGB are averaged. `captions`, one
    for each row, are written to the left of the rows.
    """
    images = images.detach().cpu().nan_to_num(GREY).clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    tiles = enlarge(images, width)
    rows = -(-len(tiles) // columns)
    blank = tiles.new_full((rows * columns - len(tiles), *tiles.shape[1:]), gaps)
    tiles = F.pad(torch.cat([tiles, blank]), (0, GAP, 0, GAP), value=gaps)  # each tile with a gap right of and below it
    sheet = F.pad(tile_sheet(tiles, columns), (GAP, 0, GAP, 0), value=gaps)
    if not captions:
        return sheet
    caption_column = F.pad(render_captions(captions, tiles.shape[2], gaps), (0, 0, GAP, 0), value=gaps)
    return torch.cat([caption_column.expand(len(sheet), -1, -1), sheet], dim=2)


def tile_sheet(tiles: Tensor, columns: int) -> Tensor:
    """Return tiles [rows * columns, C, h, w] side by side, row by row: [C, rows * h, columns * w]."""
    return tiles.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def draw_frames(sheet: Tensor, colours: Sequence[RGB | None], shape: tuple[int, int], columns: int) -> Tensor:
    """Return a grid [1 or 3, H, W] of tiles of `shape` (height, width) with frames around some tiles: [3, H, W].

    `colours` has an entry for each tile, None for no frame. A frame is half as wide as a gap. Return `sheet` itself
    where no tile has a frame.
    """
    if not any(colours):
        return sheet
    sheet = sheet.expand(3, -1, -1).clone()
    (height, width), line = shape, GAP // 2
    for number, colour in enumerate(colours):
        if colour is not None:
            top = GAP + number // columns * (height + GAP)
            left = GAP + number % columns * (width + GAP)
            tile = sheet[:, top : top + height, left : left + width].clone()
            tile_and_frame = sheet[:, top - line : top + height + line, left - line : left + width + line]
            tile_and_frame[:] = torch.tensor(colour)[:, None, None] / 255
            sheet[:, top : top + height, left : left + width] = tile
    return sheet


def enlarge(images: Tensor, width: int) -> Tensor:
    """Return images [N, C, h, w] with each pixel repeated, at most `width` pixels wide; wider images unchanged."""
    factor = max(1, width // images.shape[3])
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def render_captions(captions: Sequence[str], height: int, background: float) -> Tensor:
    """Return a column of texts [1, rows * height, width], each in the vertical middle of its row of `height` pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(CAPTION_SIZE)
    width = math.ceil(max(font.getlength(caption) for caption in captions)) + 2 * GAP
    image = Image.new("L", (width, height * len(captions)), round(background * 255))
    draw = ImageDraw.Draw(image)
    for row, caption in enumerate(captions):
        draw.text((width - GAP, (row + 0.5) * height), caption, fill=0, font=font, anchor="rm")
    return bytes_to_float_picture(image.tobytes(), (image.height, image.width, 1))


def add_footer(sheet: Tensor, text: str) -> Tensor:
    """Return a picture [1 or 3, H, W] with a line of text below it, and with white to its right where it is narrow."""
    footer = render_captions([text], CAPTION_SIZE + 2 * GAP, WHITE).expand(len(sheet), -1, -1)
    width = max(sheet.shape[2], footer.shape[2])
    return torch.cat([F.pad(part, (0, width - part.shape[2]), value=WHITE) for part in (sheet, footer)], dim=1)


def signed_limit(changes: Tensor) -> float:
    """Return the limit of `signed_grey` for changes of images [U, C, H, W]: `CLIPPED_SHARE` of their pixels pass it.

    It is at least `MIN_LIMIT`, so that changes which no 8-bit image would show stay grey.
    """
    sizes = changes.nan_to_num(0, 0, 0).abs().flatten()
    if not len(sizes):
        return MIN_LIMIT
    return max(MIN_LIMIT, float(sizes.kthvalue(math.ceil((1 - CLIPPED_SHARE) * len(sizes))).values))


def describe_limit(limit: float) -> str:
    """Return the scale of `signed_grey` in words."""
    return f"white: +{limit:.2g}, black: -{limit:.2g}"


def signed_grey(values: Tensor, limit: float) -> Tensor:
    """Return values of either sign as grey values: 0 is 1/2, `limit` or more is 1 (white), `-limit` or less is 0."""
    return (0.5 + 0.5 * values / limit).clamp(0, 1)


def bounding_box(mask: Tensor) -> tuple[slice, slice] | None:
    """Return the smallest rows and columns that hold every True entry of mask [H, W]; None where there is none."""
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    if not rows:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def bytes_to_picture(data: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Return bytes in the order of `shape` (height, width, channels) as a uint8 picture [channels, height, width]."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape).permute(2, 0, 1)


def bytes_to_float_picture(data: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Return bytes in the order of `shape` (height, width, channels) as floats in [0, 1], [channels, height, width]."""
    return bytes_to_picture(data, shape).to(torch.float32).div(255)


@cache
def load_font(size: int) -> "FreeTypeFont":
    """Return the font of the figures, which matplotlib brings along; it has the letters of most alphabets.

    The import of matplotlib would take 0.4 s; only its file is read.
    """
    from PIL import ImageFont

    package = importlib.util.find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    return ImageFont.truetype(str(Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def fit_text(text: str, font: "FreeTypeFont", width: float) -> str:
    """Return a text in one line of at most `width` pixels; a longer one has an ellipsis in place of its middle.

    The end stays, because it may tell similar names apart, such as the year of a film.
    """
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    kept = bisect.bisect_right(range(len(line)), width, key=lambda count: font.getlength(cut_middle(line, count)))
    return cut_middle(line, max(0, kept - 1))


def cut_middle(text: str, count: int) -> str:
    """Return the first two thirds and the last third of `count` letters of a text, with an ellipsis between them."""
    last = count // 3
    return f"{text[: count - last].rstrip()}…{text[len(text) - last :].lstrip()}"


def to_pil_images(pictures: Tensor, side: int) -> list["Image"]:
    """Return pictures [N, C, h, w] as N PIL images, resized so that the longer side has `side` pixels."""
    from PIL import Image

    values = pictures.detach().cpu().nan_to_num(GREY).clamp(0, 1)
    if values.shape[1] not in (1, 3):
        values = values.mean(1, keepdim=True)
    height, width = values.shape[2:]
    longer = max(height, width)
    size = [max(1, round(side * length / longer)) for length in (height, width)]
    values = F.interpolate(values, size=size, mode="nearest" if longer <= side else "area")
    pixels = values.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in pixels]


def encode_png(picture: Tensor) -> bytes:
    """Return the content of a PNG file of a picture [1 or 3, H, W], floats in [0, 1] or uint8."""
    from PIL import Image

    if picture.dtype is not torch.uint8:
        picture = picture.clamp(0, 1).mul(255).round().to(torch.uint8)
    values = picture.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)  # a third of the default level's time, files a tenth larger
    return content.getvalue()


def write_png(picture: Tensor, path: Path) -> None:
    """Write a picture [1 or 3, H, W] as a PNG file, which replaces an existing file atomically."""
    atomic.replace(path, encode_png(picture))
