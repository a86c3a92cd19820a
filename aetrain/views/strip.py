"""The strip: a few test images as small as they are, for reports that put many runs side by side."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.pictures import class_by_class
from aetrain.views.render import write_png
from aetrain.views.scene import Scene

COUNT = 10
WIDTH = 1120  # pixels at most, so that fewer of large images are shown


def write_strip(scene: Scene, path: Path) -> None:
    """Write it to `path`.png: three rows, which are the clean images, what the encoder saw and the reconstructions."""
    write_png(strip(scene), path.with_name(path.name + ".png"))


def strip(scene: Scene) -> Tensor:
    """[C, 3 h, n w] of images [C, h, w] and n <= COUNT, one of each class first; no gaps, nothing enlarged."""
    count = max(1, min(COUNT, WIDTH // scene.x.shape[3]))
    chosen = class_by_class(scene.labels, len(scene.x))[:count].to(scene.x.device)
    rows = scene.x[chosen], scene.x_in[chosen], scene.reconstruct(scene.x_in[chosen])
    sheet = torch.stack(rows).nan_to_num(0.5).clamp(0, 1)  # [3, n, C, h, w]
    if sheet.shape[2] not in (1, 3):
        sheet = sheet.mean(2, keepdim=True)
    if len(chosen) < min(COUNT, count):  # so that strips are equally wide
        sheet = F.pad(sheet, (0, 0) * 3 + (0, count - len(chosen)), value=0.5)
    return sheet.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).cpu()
