"""Tensors to pictures: floats in [0, 1], [1, H, W] in grey or [3, H, W] in colour, on the CPU.

Shapes: N images, C channels, h, w of one image.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.training import disk

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

DEAD: Colour = (214, 39, 40)
SATURATED: Colour = (31, 119, 180)

GAP = 6  # pixels between tiles: at 4, some vanish on a Time Series card, which shows every fourth or fifth pixel
GREY = 0.5  # of gaps between images: neither ink nor paper, so that neighbours do not flow together
WHITE = 1.0  # of gaps where grey itself means zero
TILE = 112  # widest tile, in pixels: 4 x MNIST's 28, 14 x the 8 of the small digits
SMALL = 84  # a tile beside a caption that says more than a word, which would be too small else
CAPTION = 32  # height of the captions' letters, of which a card shows a third


def grid(
    images: Tensor, columns: int = 8, captions: Sequence[str] = (), gaps: float = GREY, width: int = TILE
) -> Tensor:
    """Images [N, C, h, w] row by row, enlarged to about `width`, with gaps between; `captions` name the rows."""
    images = images.detach().cpu().nan_to_num(GREY).clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    tiles = enlarged(images, width)
    rows = -(-len(tiles) // columns)
    blank = tiles.new_full((rows * columns - len(tiles), *tiles.shape[1:]), gaps)
    tiles = F.pad(torch.cat([tiles, blank]), (0, GAP, 0, GAP), value=gaps)  # each brings its gap to the right and below
    sheet = tiles.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)  # [C, H, W]
    sheet = F.pad(sheet, (GAP, 0, GAP, 0), value=gaps)
    if not captions:
        return sheet
    gutter = F.pad(gutter_of(captions, tiles.shape[2], gaps), (0, 0, GAP, 0), value=gaps)
    return torch.cat([gutter.expand(len(sheet), -1, -1), sheet], dim=2)


def framed(sheet: Tensor, colours: Sequence[Colour | None], shape: tuple[int, int], columns: int) -> Tensor:
    """A sheet of tiles of `shape` (height, width) with frames around some of them, half the gaps wide; [3, H, W]."""
    if not any(colours):
        return sheet  # as it is, grey if it was
    sheet = sheet.expand(3, -1, -1).clone()
    (height, width), line = shape, GAP // 2
    for number, colour in enumerate(colours):
        if colour is not None:
            top = GAP + number // columns * (height + GAP)
            left = GAP + number % columns * (width + GAP)
            tile = sheet[:, top : top + height, left : left + width].clone()
            around = sheet[:, top - line : top + height + line, left - line : left + width + line]
            around[:] = torch.tensor(colour)[:, None, None] / 255
            sheet[:, top : top + height, left : left + width] = tile
    return sheet


def enlarged(images: Tensor, width: int) -> Tensor:
    """Images [N, C, h, w] repeated pixel by pixel to at most a width, or as they are where they are wider."""
    factor = max(1, width // images.shape[3])
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def gutter_of(captions: Sequence[str], height: int, background: float) -> Tensor:
    """A column of words [1, rows * height, width], each in the middle of its row."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(CAPTION)
    width = math.ceil(max(font.getlength(caption) for caption in captions)) + 2 * GAP
    image = Image.new("L", (width, height * len(captions)), round(background * 255))
    draw = ImageDraw.Draw(image)
    for row, caption in enumerate(captions):
        draw.text((width - GAP, (row + 0.5) * height), caption, fill=0, font=font, anchor="rm")
    return pixels_of(image.tobytes(), (image.height, image.width, 1))


def signed_grey(values: Tensor, limit: float) -> Tensor:
    """Values of either sign to grey: zero is the middle, `limit` white and -`limit` black."""
    return (0.5 + 0.5 * values / limit).clamp(0, 1)


def bytes_of(data: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Bytes of height x width x channels to a picture [channels, height, width] of bytes."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape).permute(2, 0, 1)


def pixels_of(data: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Bytes of height x width x channels to a picture [channels, height, width]."""
    return bytes_of(data, shape).to(torch.float32).div(255)


def stamps(pictures: Tensor, side: int) -> list["Image"]:
    """Pictures [N, C, h, w] as images to be pasted, the longer side of each with so many pixels."""
    from PIL import Image

    values = pictures.detach().cpu().nan_to_num(GREY).clamp(0, 1)
    if values.shape[1] not in (1, 3):
        values = values.mean(1, keepdim=True)
    high, wide = values.shape[2:]
    size = [max(1, round(side * length / max(high, wide))) for length in (high, wide)]
    values = F.interpolate(values, size=size, mode="nearest" if max(high, wide) <= side else "area")
    pixels = values.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(each[:, :, 0] if each.shape[2] == 1 else each) for each in pixels]


def png(picture: Tensor) -> bytes:
    """A picture as a PNG file's content, grey or RGB as its channels say; bytes are taken as they are."""
    from PIL import Image

    if picture.dtype is not torch.uint8:
        picture = picture.clamp(0, 1).mul(255).round().to(torch.uint8)
    values = picture.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)  # a third of the time of the default level, for a tenth of the size
    return content.getvalue()


def write_png(picture: Tensor, path: Path) -> None:
    """Write a picture so that a reader finds the old file or the new one, never half of it."""
    disk.replace(path, png(picture))
