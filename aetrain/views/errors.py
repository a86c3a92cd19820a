"""Views of what goes wrong: the error of each class, and under noise of every kind and strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.evaluation.robustness import kinds
from aetrain.evaluation.ruler import sse
from aetrain.views.exhibits import Picture, positive
from aetrain.views.render import CAPTION, GAP, SMALL, bytes_of, grid, stamps
from aetrain.views.scene import Scene


@final
@dataclass(frozen=True)
class Errors:
    """A line for each class: its mean squared error (`sse`), and its `count` worst images with their reconstructions.

    At most `classes` lines, of the first classes; one line without a name where there are no classes.
    """

    count: int = 4
    classes: int = 12

    def __post_init__(self) -> None:
        positive(count=self.count, classes=self.classes)

    def __call__(self, scene: Scene) -> Picture:
        with torch.no_grad():
            painted = scene.model.likelihood.mean(scene.out.decoded)
        error = sse(painted, scene.x).nan_to_num(torch.inf)  # [N]
        labels = torch.zeros_like(error) if scene.labels is None else scene.labels
        captions, tiles = [], []
        for label in labels.unique()[: self.classes].tolist():
            own = (labels == label).nonzero().flatten()
            worst = own[error[own].argsort(descending=True, stable=True)[: self.count]]
            worst = torch.cat([worst, worst[-1:].expand(self.count - len(worst))])  # of a class with few images
            tiles.append(torch.stack([scene.x[worst], painted[worst]], dim=1).flatten(0, 1))
            name = "" if scene.labels is None else f"{scene.named(int(label))}: "
            captions.append(f"{name}{float(error[own].mean()):.3g}")
        return Picture(grid(torch.cat(tiles), 2 * self.count, captions, width=SMALL))


@final
@dataclass(frozen=True)
class NoiseMap:
    """Kinds of noise down, `levels` of it across: an image as the encoder sees it, and what is made of it.

    The number under the two is the squared error from noisy images to clean ones (`noisy_sse`), a mean over `count`
    images; its ground goes from white at 0 to red where it is better to paint the mean image. Level is the standard
    deviation of gaussian noise, the share of pixels hit of the others. Of models that are trained with noise only.
    """

    count: int = 100
    levels: Sequence[float] = (0.0, 0.15, 0.3, 0.5, 0.7)

    def __post_init__(self) -> None:
        positive(count=self.count, levels=len(self.levels))
        for level in self.levels:
            if not 0 <= level <= 1:
                raise ValueError(f"levels={list(self.levels)} has {level}: use numbers from 0 to 1")

    def __call__(self, scene: Scene) -> Picture | None:
        if scene.x_in is scene.x:
            return None
        x = scene.x[: self.count]
        blank = float(sse(scene.mean.expand_as(x), x).mean())
        return Picture(drawn(self.cells(scene), [f"{level:g}" for level in self.levels], blank))

    def cells(self, scene: Scene) -> dict[str, list["Cell"]]:
        """The map, line by line."""
        x = scene.x[: self.count]
        found: dict[str, list[Cell]] = {}
        for level in self.levels:
            for name, noise in kinds(float(level)).items():
                seen = noise(x, scene.generator())
                made = scene.reconstruct(seen)
                found.setdefault(name.replace("_and_", ", "), []).append(
                    Cell(seen[0], made[0], float(sse(made, x).mean()))
                )
        return found


@dataclass(frozen=True, eq=False)
class Cell:
    """A place of the map: an image [C, H, W], what is made of it, and the error of all."""

    seen: Tensor
    made: Tensor
    error: float


def drawn(cells: Mapping[str, Sequence[Cell]], headings: Sequence[str], blank: float) -> Tensor:
    """The map as a picture [3, H, W] of bytes."""
    from PIL import Image, ImageDraw, ImageFont

    side, ink, paper = 96, (50, 50, 50), (255, 255, 255)
    font = ImageFont.load_default(CAPTION - 4)
    left = round(max(font.getlength(name) for name in cells)) + 3 * GAP
    line = 2 * (side + 2) + CAPTION + 3 * GAP
    page = Image.new("RGB", (left + len(headings) * (side + 2 * GAP), CAPTION + 2 * GAP + len(cells) * line), paper)
    draw = ImageDraw.Draw(page)
    for column, heading in enumerate(headings):
        draw.text((left + column * (side + 2 * GAP) + side / 2, 4), heading, fill=ink, font=font, anchor="mt")
    for row, (name, each) in enumerate(cells.items()):
        top = CAPTION + GAP + row * line
        draw.text((left - 2 * GAP, top + side), name, fill=ink, font=font, anchor="rm")
        for column, cell in enumerate(each):
            x = left + column * (side + 2 * GAP)
            above, below = stamps(torch.stack([cell.seen, cell.made]), side)
            page.paste(above, (x, top))
            page.paste(below, (x, top + side + 2))
            warm = round(255 * (1 - min(1.0, cell.error / max(blank, 1e-9)) * 0.6))
            under = top + 2 * (side + 2)
            draw.rectangle((x, under, x + side - 1, under + CAPTION), fill=(255, warm, warm))
            draw.text((x + side / 2, under + CAPTION / 2), f"{cell.error:.3g}", fill=ink, font=font, anchor="mm")
    return bytes_of(page.tobytes(), (page.height, page.width, 3))
