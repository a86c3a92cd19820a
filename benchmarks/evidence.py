"""What claims need to look at trained runs: the data they saw, their curves, pictures of both."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aetrain import experiment
from aetrain.build import build
from aetrain.data.batches import in_order
from aetrain.directory import RunDirectory
from aetrain.library import Trained
from aetrain.model.pca import PCA
from aetrain.views.render import grid, png, write_png


@dataclass(frozen=True)
class Data:
    """A run's data set as its model is shown it."""

    train: Tensor  # [N, C, H, W] in [0, 1]
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def pca(self, code_dim: int) -> PCA:
        return PCA.fit(self.train.split(8192), code_dim)


def data_of(trained: Trained) -> Data:
    """The images that a run was trained and tested on."""
    dataset = build(experiment.checked(trained.config, [])).dataset
    splits = dataset.load()
    train, test = (torch.cat(list(in_order(part, 8192, dataset.prepare))) for part in (splits.train, splits.test))
    return Data(train, splits.train.labels, test, splits.test.labels)


def curve(trained: Trained, name: str) -> list[float]:
    """A figure at every epoch, the model before training first."""
    return [line[name] for line in RunDirectory(trained.directory).history()]


def one_of_each_class(data: Data, count: int = 10) -> Tensor:
    """The first test image of each class, in the classes' order, [count, C, H, W]."""
    return torch.stack([data.test[int((data.test_labels == label).nonzero()[0])] for label in range(count)])


def rows_picture(path: Path, rows: Mapping[str, Tensor]) -> Path:
    """Images in named rows, one under the other."""
    columns = len(next(iter(rows.values())))
    write_png(grid(torch.cat(list(rows.values())), columns, captions=list(rows)), path)
    return path


def side_by_side(path: Path, pictures: Mapping[str, Tensor]) -> Path:
    """Pictures [C, H, W] of one height beside each other, each under its name."""
    from PIL import Image, ImageDraw, ImageFont

    heading, gap = 40, 16
    parts = [Image.open(io.BytesIO(png(picture))).convert("RGB") for picture in pictures.values()]
    width = sum(part.width + gap for part in parts) - gap
    sheet = Image.new("RGB", (width, heading + max(part.height for part in parts)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    left = 0
    for name, part in zip(pictures, parts, strict=True):
        sheet.paste(part, (left, heading))
        draw.text((left + part.width / 2, heading / 2), name, fill="black", font=font, anchor="mm")
        left += part.width + gap
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def curves_picture(path: Path, curves: Mapping[str, Sequence[float]], title: str, log: bool = False) -> Path:
    """Curves over epochs in one chart, named in it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
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
    pyplot.close(figure)
    return path


def knn_accuracy(code: Tensor, labels: Tensor, test_code: Tensor, test_labels: Tensor, k: int = 10) -> float:
    """Share of test images whose k nearest training codes vote for their class."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(min(k, len(code))).fit(code.numpy(), labels.numpy())
    return float(classifier.score(test_code.numpy(), test_labels.numpy()))
