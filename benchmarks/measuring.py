"""What several claims measure or show of trained runs, beside what is in their metrics."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from aetrain.build import build
from aetrain.data.dataset import Splits
from aetrain.data.noise import Noise
from aetrain.experiment import checked
from aetrain.library import Trained
from aetrain.views.render import grid, signed_grey, write_png

COUNT = 2000  # test images that are measured


def splits_of(run: Trained) -> Splits:
    """The images that a run was trained and tested on."""
    return build(checked(run.config, ())).dataset.load()


def unseen(run: Trained, count: int = COUNT) -> Tensor:
    """The first test images as the run's model is shown them, [N, C, H, W]; the same ones at every call."""
    dataset = build(checked(run.config, ())).dataset
    return dataset.prepare(dataset.load().test[:count].pixels, torch.Generator().manual_seed(1))


def noise_of(run: Trained) -> Noise:
    """The noise that a run was trained with."""
    return build(checked(run.config, ())).noise


def corrupted(noise: Noise, x: Tensor) -> Tensor:
    """The same noisy images at every call."""
    return noise(x, torch.Generator().manual_seed(2))


def sse(a: Tensor, b: Tensor) -> float:
    """Squared error summed over an image's pixels, mean over the images."""
    return float((a - b).square().flatten(1).sum(1).mean())


def strokes(x: Tensor, reach: int = 1) -> Tensor:
    """Where there is ink (above one half) or a pixel beside it, as bools like x."""
    return F.max_pool2d((x > 0.5).float(), 2 * reach + 1, stride=1, padding=reach) > 0


def smoothness(weights: Tensor, apart: int = 1) -> float:
    """Mean over units of the correlation between weights so many pixels apart, [units, C, h, w].

    0 for noise, towards 1 for strokes and blots that are wider than that.
    """
    w = weights - weights.mean((2, 3), keepdim=True)
    along = (w[..., :, apart:] * w[..., :, :-apart]).flatten(1).mean(1)
    down = (w[..., apart:, :] * w[..., :-apart, :]).flatten(1).mean(1)
    return float(((along + down) / 2 / w.square().flatten(1).mean(1).clamp_min(1e-12)).mean())


def unit_sheet(run: Trained, count: int = 64) -> Tensor:
    """The first layer's units as `views.units` shows them, [1, H, W]."""
    weights = run.model.first_layer().detach()[:count]
    norms = weights.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
    return grid(
        signed_grey(weights / norms, 0.9 / weights[0].numel() ** 0.25),
        columns=max(8, math.ceil(math.sqrt(len(weights)))),
        gaps=1.0,
    )


def beside(path: Path, sheets: Sequence[Tensor], titles: Sequence[str]) -> Path:
    """Pictures [1, H, W] side by side, each under its title, written to `path`."""
    from PIL import Image, ImageDraw, ImageFont

    font, above, gap = ImageFont.load_default(28), 44, 24
    height = max(sheet.shape[1] for sheet in sheets) + above
    widths = [sheet.shape[2] for sheet in sheets]
    image = Image.new("L", (sum(widths) + gap * (len(sheets) - 1), height), 255)
    draw, left = ImageDraw.Draw(image), 0
    for sheet, title, width in zip(sheets, titles, widths, strict=True):
        draw.text((left + width / 2, above / 2), title, fill=0, font=font, anchor="mm")
        image.paste(Image.fromarray(sheet[0].mul(255).round().to(torch.uint8).numpy()), (left, above))
        left += width + gap
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, image.height, image.width)
    write_png(pixels.float() / 255, path)
    return path


def rows(path: Path, named: dict[str, Tensor], columns: int = 10) -> Path:
    """One row of images for each name, written to `path`."""
    images = torch.cat([x[:columns].clamp(0, 1) for x in named.values()])
    write_png(grid(images, columns, captions=list(named)), path)
    return path


def setting(run: Trained, key: str) -> float:
    """A number from a run's config."""
    return float(OmegaConf.select(run.config, key))


def mean_over(x: Tensor, figure: Callable[[Tensor], Tensor], size: int = 200) -> float:
    """The mean over all images of a figure [B] of batches."""
    return float(torch.cat([figure(part) for part in x.split(size)]).mean())
