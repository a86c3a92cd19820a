"""What views hand over. An exhibit knows how it goes into an event file and, where it is a picture, into a PNG."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from aetrain.training import disk
from aetrain.views.render import png
from aetrain.views.scene import Scene

if TYPE_CHECKING:  # importing it takes 0.2 s
    from torch.utils.tensorboard import SummaryWriter


class Exhibit(Protocol):
    """Something to look at."""

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        """Add it to the event file."""
        ...

    def save(self, path: Path) -> None:
        """Write it to `path`, which has no suffix yet; nothing is written of what is no picture."""
        ...


class View(Protocol):
    """A way of looking: a scene to an exhibit, or to None where there is nothing of that kind to see."""

    def __call__(self, scene: Scene) -> Exhibit | None: ...


@dataclass(frozen=True, eq=False)
class Picture:
    """An image."""

    pixels: Tensor  # [1 or 3, H, W] in [0, 1], or bytes

    @cached_property
    def png(self) -> bytes:
        """A PNG file's content, compressed once for all who ask."""
        return png(self.pixels)

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        log_image(writer, f"views/{tag}", self, step)

    def save(self, path: Path) -> None:
        disk.replace(path.with_name(path.name + ".png"), self.png)


@dataclass(frozen=True, eq=False)
class Album:
    """Pictures of one kind, by name: one of each layer, say."""

    pictures: Mapping[str, Picture]

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        for name, picture in self.pictures.items():
            log_image(writer, f"views_{tag}/{name}", picture, step)

    def save(self, path: Path) -> None:
        for name, picture in self.pictures.items():
            picture.save(path.with_name(f"{path.name}-{name}"))


@dataclass(frozen=True, eq=False)
class Histograms:
    """Named sets of numbers, each shown as a distribution."""

    values: Mapping[str, Tensor]  # each [any number], finite

    def log(self, writer: "SummaryWriter", tag: str, step: int) -> None:
        # Not in the group of pictures, which would then come after all histograms.
        for name, values in self.values.items():
            writer.add_histogram(f"views_{tag}/{name}", values.to(torch.float32).cpu().numpy(), step)

    def save(self, path: Path) -> None:
        pass  # a distribution is looked at in TensorBoard


def log_image(writer: "SummaryWriter", tag: str, picture: Picture, step: int) -> None:
    """Add a picture to the event file."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    # Not by `add_image`, which makes RGB of grey and takes five times as long.
    channels, height, width = picture.pixels.shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=picture.png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def positive(**settings: float) -> None:
    """Refuse settings of a view with which there would be nothing to see."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name}={value} shows nothing: use a number above 0")
