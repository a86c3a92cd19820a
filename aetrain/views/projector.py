"""The codes as TensorBoard's embedding projector reads them: numbers, classes and thumbnails, beside the event file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.training import disk
from aetrain.views.exhibits import positive
from aetrain.views.render import enlarged, write_png
from aetrain.views.scene import Scene

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG = "projector_config.pbtxt"  # where TensorBoard looks for it
FOLDER = "projector"
LARGEST = 8192  # pixels of a sheet of thumbnails that a browser can show
THUMBNAIL = 64  # and of one of them, at most
SMALLEST = 28


@dataclass(frozen=True, eq=False)
class Embedding:
    """Codes, what is known of each, and its thumbnail."""

    z: Tensor  # [N, D]
    x: Tensor  # [N, C, h, w] in [0, 1]
    classes: list[str]  # [N], or empty

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        pass  # the projector reads files of its own

    def save(self, path: Path) -> None:
        """Write it to the run's directory, of which `path` names a figure. The config comes last, and points to all."""
        home = path.parent.parent
        folder = home / FOLDER
        rows = self.z.detach().cpu().to(torch.float32).nan_to_num(0, 0, 0).tolist()
        table = "".join("\t".join(f"{value:.6g}" for value in row) + "\n" for row in rows)
        disk.replace(folder / "codes.tsv", table.encode())
        numbers = range(len(rows))
        lines = [f"{name}\t{i}" for name, i in zip(self.classes, numbers, strict=True)] if self.classes else numbers
        head = ["class\timage"] if self.classes else []  # one column has no heading
        disk.replace(folder / "labels.tsv", "".join(f"{line}\n" for line in [*head, *lines]).encode())
        sprite, (height, width) = thumbnails(self.x)
        write_png(sprite, folder / "sprite.png")
        config = f"""embeddings {{
  tensor_name: "code"
  tensor_path: "{FOLDER}/codes.tsv"
  metadata_path: "{FOLDER}/labels.tsv"
  sprite {{
    image_path: "{FOLDER}/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""
        disk.replace(home / CONFIG, config.encode())


@final
@dataclass(frozen=True)
class Projector:
    """The codes of the first `count` images of the scene for the page Projector, written at the end of a run."""

    count: int = 1000

    def __post_init__(self) -> None:
        positive(count=self.count)

    def __call__(self, scene: Scene) -> Embedding:
        labels = [] if scene.labels is None else scene.labels[: self.count].tolist()
        return Embedding(scene.z[: self.count], scene.x[: self.count], [scene.named(label) for label in labels])


def thumbnails(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Images on one square sheet [1 or 3, H, W], row by row without gaps, and the (height, width) of each there."""
    x = x.detach().cpu()
    x = x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)
    side = math.ceil(math.sqrt(len(x)))
    most = min(THUMBNAIL, LARGEST // side)
    if max(x.shape[2:]) > most:
        scale = most / max(x.shape[2:])
        x = F.interpolate(x, size=[max(1, int(s * scale)) for s in x.shape[2:]], mode="area")
    elif x.shape[3] < SMALLEST:
        x = enlarged(x, min(most, SMALLEST))
    x = torch.cat([x, x.new_zeros(side * side - len(x), *x.shape[1:])])
    sheet = x.unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)  # [C, H, W]
    return sheet, (x.shape[2], x.shape[3])
