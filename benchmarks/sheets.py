"""Pictures for claims: images in rows, sheets side by side under titles, units, curves."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from aetrain.api import Trained
from aetrain.views.render import grid, pixels_of, png, write_png
from aetrain.views.unit_activations import unit_norm
from aetrain.views.units import Units, shade, sheet

WIDEST = 2000  # pixels of sheets side by side, together; wider ones are shrunk to their share
TITLE, HEADING, BETWEEN = 28, 44, 24  # height of a title's letters, room for it, gap between sheets


def rows(path: Path, named: Mapping[str, Tensor], columns: int = 10) -> Path:
    """One row of images for each name, the first `columns` of its [N, C, H, W], written to `path`."""
    lines = [images[:columns] for images in named.values()]
    write_png(grid(torch.cat(lines), len(lines[0]), captions=list(named)), path)
    return path


def beside(path: Path, sheets: Iterable[Tensor], titles: Iterable[str]) -> Path:
    """Pictures [1 or 3, H, W] side by side, each under its title, written to `path`."""
    from PIL import Image, ImageDraw, ImageFont

    parts, titles = [Image.open(io.BytesIO(png(sheet))) for sheet in sheets], list(titles)
    for part in parts:
        part.thumbnail((WIDEST // len(parts), part.height))
    font = ImageFont.load_default(TITLE)
    widths = [max(part.width, math.ceil(font.getlength(title))) for part, title in zip(parts, titles, strict=True)]
    size = (sum(widths) + BETWEEN * (len(parts) - 1), HEADING + max(part.height for part in parts))
    image = Image.new("RGB" if any(part.mode == "RGB" for part in parts) else "L", size, "white")
    draw, left = ImageDraw.RandomCall(image), 0
    for part, title, width in zip(parts, titles, widths, strict=True):
        draw.text((left + width / 2, HEADING / 2), title, fill="black", font=font, anchor="mm")
        image.paste(part, (left + (width - part.width) // 2, HEADING))
        left += width + BETWEEN
    write_png(pixels_of(image.tobytes(), (image.height, image.width, len(image.getbands()))), path)
    return path


def unit_sheet(run: Trained, count: int = 64) -> Tensor:
    """The first layer's units as `views.units` shows them, [1, H, W]."""
    return sheet(shade(unit_norm(run.model.first_layer_weights().detach()[:count]), Units().limit)).pixels


def curves_picture(path: Path, curves: Mapping[str, Sequence[float]], title: str, log: bool = False) -> Path:
    """Curves over epochs in one chart, named in it, written to `path`."""
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
