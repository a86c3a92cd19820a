"""The thumbnail strip: a few images and their reconstructions at original size, for reports that compare many runs."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.context import ViewContext
from aetrain.views.image_grids import interleave_classes
from aetrain.views.render import GREY, write_png

MAX_IMAGES = 10
MAX_WIDTH = 1120  # in pixels; a strip of large images has fewer of them


def write_thumbnail_strip(context: ViewContext, path: Path) -> None:
    """Write the strip to `path`.png: three rows of clean images, inputs of the encoder, and reconstructions."""
    write_png(thumbnail_strip(context), path.with_name(path.name + ".png"))


def thumbnail_strip(context: ViewContext) -> Tensor:
    """Return a picture [1 or 3, 3 h, n w] of n <= `MAX_IMAGES` images [C, h, w], without gaps and not enlarged.

    With labels, the images are of different classes.
    """
    count = max(1, min(MAX_IMAGES, MAX_WIDTH // context.x.shape[3]))
    chosen = interleave_classes(context.labels, len(context.x))[:count].to(context.x.device)
    rows = context.complete[chosen], context.x_in[chosen], context.reconstruct(context.x_in[chosen])
    sheet = torch.stack(rows).nan_to_num(GREY).clamp(0, 1)  # [3, n, C, h, w]
    if sheet.shape[2] not in (1, 3):
        sheet = sheet.mean(2, keepdim=True)
    if len(chosen) < count:  # pad, because all strips of a data set have one width
        sheet = F.pad(sheet, (0, 0) * 3 + (0, count - len(chosen)), value=GREY)
    return sheet.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).cpu()
