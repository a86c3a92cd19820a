"""Pictures for claims: rows of images, pictures side by side, units, curves."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from aetrain.api import Trained
from aetrain.views.render import bytes_to_float_picture, encode_png, grid, write_png
from aetrain.views.unit_activations import unit_norm
from aetrain.views.units import Units, draw_units, shade

MAX_WIDTH = 2000  # pixels of all pictures side by side; a wider one is shrunk to its share
FONT_SIZE, TITLE_HEIGHT, GAP = 28, 44, 24  # pixels


def rows(path: Path, images: Mapping[str, Tensor], columns: int = 10) -> Path:
    """Draw one row per name, with the first `columns` of its images [N, C, H, W]; write it to `path` and return it."""
    parts = [row[:columns] for row in images.values()]
    write_png(grid(torch.cat(parts), len(parts[0]), captions=list(images)), path)
    return path


def beside(path: Path, pictures: Iterable[Tensor], titles: Iterable[str]) -> Path:
    """Draw pictures [1 or 3, H, W] side by side, each under its title; write them to `path` and return it."""
    from PIL import Image, ImageDraw, ImageFont

    parts, titles = [Image.open(io.BytesIO(encode_png(picture))) for picture in pictures], list(titles)
    for part in parts:
        part.thumbnail((MAX_WIDTH // len(parts), part.height))
    font = ImageFont.load_default(FONT_SIZE)
    widths = [max(part.width, math.ceil(font.getlength(title))) for part, title in zip(parts, titles, strict=True)]
    size = (sum(widths) + GAP * (len(parts) - 1), TITLE_HEIGHT + max(part.height for part in parts))
    image = Image.new("RGB" if any(part.mode == "RGB" for part in parts) else "L", size, "white")
    draw, left = ImageDraw.Draw(image), 0
    for part, title, width in zip(parts, titles, widths, strict=True):
        draw.text((left + width / 2, TITLE_HEIGHT / 2), title, fill="black", font=font, anchor="mm")
        image.paste(part, (left + (width - part.width) // 2, TITLE_HEIGHT))
        left += width + GAP
    write_png(bytes_to_float_picture(image.tobytes(), (image.height, image.width, len(image.getbands()))), path)
    return path


def unit_sheet(run: Trained, count: int = 64) -> Tensor:
    """Return the picture [1, H, W] of the first layer's units that the view `units` draws."""
    return draw_units(shade(unit_norm(run.model.first_layer_weights().detach()[:count]), Units().limit)).pixels


def curves_picture(path: Path, curves: Mapping[str, Sequence[float]], title: str, log: bool = False) -> Path:
    """Draw curves over epochs in one chart with a legend; write it to `path` and return it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(range(len(values)), values, marker="o", label=name)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="epochs", title=title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
