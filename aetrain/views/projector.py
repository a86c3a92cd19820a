"""Codes, classes and thumbnails in the files that TensorBoard's embedding projector reads, beside the event file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.model.records import Kind
from aetrain.storage import atomic
from aetrain.views.annotations import DEFAULT_OPTIONS, FigureOptions
from aetrain.views.context import ViewContext
from aetrain.views.render import enlarge, tile_sheet, write_png
from aetrain.views.view import check_positive

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG_FILE = "projector_config.pbtxt"  # the name that TensorBoard looks for
FOLDER = "projector"
MAX_SHEET_SIDE = 8192  # pixels of a sheet of thumbnails that a browser can show
MAX_THUMBNAIL_SIDE = 64  # in pixels
MIN_THUMBNAIL_WIDTH = 28  # in pixels; smaller images are enlarged

CONFIG = """embeddings {{
  tensor_name: "code"
  tensor_path: "{folder}/codes.tsv"
  metadata_path: "{folder}/labels.tsv"
{sprite}}}
"""
SPRITE = """\
  sprite {{
    image_path: "{folder}/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
"""


@dataclass(frozen=True, eq=False)
class Embedding:
    """Codes with the class names and the thumbnails of their images, where the examples are images."""

    z: Tensor  # [N, D]
    x: Tensor | None  # [N, C, h, w] in [0, 1]
    classes: list[str]  # [N], or empty

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        pass  # the projector reads files, not events

    def save(self, path: Path, options: FigureOptions = DEFAULT_OPTIONS) -> None:
        """Write the files to the run directory, for `path` = RUN/figures/NAME.

        `projector_config.pbtxt` names the other files, so it comes last.
        """
        run_dir = path.parent.parent
        folder = run_dir / FOLDER
        atomic.replace(folder / "codes.tsv", self._codes_table().encode())
        atomic.replace(folder / "labels.tsv", self._labels_table().encode())
        sprite = ""
        if self.x is not None:
            sheet, (height, width) = thumbnail_sheet(self.x)
            write_png(sheet, folder / "sprite.png")
            sprite = SPRITE.format(folder=FOLDER, height=height, width=width)
        atomic.replace(run_dir / CONFIG_FILE, CONFIG.format(folder=FOLDER, sprite=sprite).encode())

    def _codes_table(self) -> str:
        codes = self.z.detach().cpu().to(torch.float32).nan_to_num(0, 0, 0).tolist()
        return "".join(map(_table_row, codes))

    @property
    def _noun(self) -> str:
        """The heading of the numbers of the examples."""
        return "example" if self.x is None else "image"

    def _labels_table(self) -> str:
        """Return the class and the number of each example; without classes the number alone, without a heading.

        TensorBoard expects a heading exactly where a table has two or more columns.
        """
        numbers = [str(number) for number in range(len(self.z))]
        if not self.classes:
            return "".join(f"{number}\n" for number in numbers)
        lines = [f"{name}\t{number}" for name, number in zip(self.classes, numbers, strict=True)]
        return "".join(f"{line}\n" for line in [f"class\t{self._noun}", *lines])


def _table_row(values: Sequence[float]) -> str:
    return "\t".join(f"{value:.6g}" for value in values) + "\n"


@final
@dataclass(frozen=True)
class Projector:
    """The codes of the context's first `count` images for TensorBoard's page Projector, written when a run ends."""

    description: ClassVar[str] = (
        "The codes with classes, and with thumbnails of images, for TensorBoard's page Projector."
    )

    data_kinds: ClassVar[tuple[Kind, ...]] = ("image", "vector", "counts", "ratings")

    count: int = 1000

    def __post_init__(self) -> None:
        check_positive(count=self.count)

    def __call__(self, context: ViewContext) -> Embedding:
        labels = [] if context.labels is None else context.labels[: self.count].tolist()
        classes = [context.class_name(label) for label in labels]
        x = context.x[: self.count] if context.model.kind == "image" else None
        return Embedding(context.z[: self.count], x, classes)


def thumbnail_sheet(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return images x [N, C, h, w] as a square sheet of thumbnails [1 or 3, H, W], and a thumbnail's (height, width).

    The thumbnails are in rows without gaps, resized to at most `MAX_THUMBNAIL_SIDE` pixels.
    """
    x = x.detach().cpu()
    x = x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)
    columns = math.ceil(math.sqrt(len(x)))
    max_side = min(MAX_THUMBNAIL_SIDE, MAX_SHEET_SIDE // columns)
    if max(x.shape[2:]) > max_side:
        scale = max_side / max(x.shape[2:])
        x = F.interpolate(x, size=[max(1, int(length * scale)) for length in x.shape[2:]], mode="area")
    elif x.shape[3] < MIN_THUMBNAIL_WIDTH:
        x = enlarge(x, min(max_side, MIN_THUMBNAIL_WIDTH))
    x = torch.cat([x, x.new_zeros(columns * columns - len(x), *x.shape[1:])])
    return tile_sheet(x, columns), (x.shape[2], x.shape[3])
