"""What the claims share: a run's images as its model was shown them, and pictures with one row a model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from hydra.utils import instantiate
from torch import Tensor

from aetrain.data.dataset import Images, Splits
from aetrain.library import Trained
from aetrain.model.pca import PCA
from aetrain.views.pictures import class_by_class
from aetrain.views.render import grid, write_png


def splits(trained: Trained) -> Splits:
    """The images that the run was trained and tested on."""
    return instantiate(trained.config.dataset, _convert_="all").load()


def pixels(images: Images, count: int | None = None) -> Tensor:
    """The first images, [count, C, H, W] in [0, 1]."""
    return images.pixels[:count].to(torch.float32) / 255


def some(images: Images, count: int = 10) -> Tensor:
    """Of each class in turn, [count, C, H, W] in [0, 1]."""
    chosen = class_by_class(images.labels, len(images))[:count]
    return pixels(images[chosen])


def sse(painted: Tensor, x: Tensor) -> float:
    """Mean squared error per image."""
    return (painted - x).square().flatten(1).sum(1).mean().item()


def pca_sse(data: Splits, k: int) -> float:
    """Test error of PCA with k components."""
    x = pixels(data.test)
    return sse(PCA.fit(pixels(data.train).split(8192), k).reconstruct(x), x)


def rows(path: Path, pictures: Mapping[str, Tensor]) -> Path:
    """Write a picture with a captioned row for each entry, which are as long as each other."""
    columns = len(next(iter(pictures.values())))
    write_png(grid(torch.cat(list(pictures.values())), columns, list(pictures)), path)
    return path
