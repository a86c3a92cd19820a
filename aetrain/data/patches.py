"""A data set of random patches of photographs, whitened or not, such as for sparse coding.

Shapes: N patches, H height and W width of a photograph.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from aetrain.data.dataset import SPLIT_SEED, fixed_order
from aetrain.data.examples import Examples
from aetrain.data.folder import SUFFIXES
from aetrain.data.image_reader import LUMA, read_image
from aetrain.data.npz import Npz
from aetrain.data.rows import join_splits, number_rows
from aetrain.data.split_folders import visible_files
from aetrain.data.user_dataset import UserDataset
from aetrain.data.user_files import describe_error, test_count

CUTOFF = 0.4  # cycles per pixel: 200 cycles per picture of 512 pixels
BORDER = 4  # pixels of a whitened photograph without patches: the filter joins opposite sides
RANGE = 5  # standard deviations from grey to white, and to black


@dataclass(frozen=True)
class Photograph:
    """A grey photograph that is read when it is needed."""

    name: str
    read: Callable[[], Tensor]  # [H, W] in [0, 1]


@final
@dataclass(kw_only=True)
class Patches(UserDataset):
    """`count` patches of `size` pixels from random places of the grey photographs at `path`.

    `path` is a folder, of whose image files the central square is read, or a file of arrays as `Npz` reads. Training
    and test patches are of different photographs, of which `test_fraction` are for test, the same ones in every run.

    With `whiten` each photograph is filtered by |f| exp(-(|f| / 0.4)^4), f in cycles per pixel, and divided by its
    standard deviation (Olshausen & Field 1997, eq. 13). Whitened patches are images of bytes like all others: grey
    (127.5) is 0, and white and black are 5 standard deviations, beyond which values are clipped.
    """

    size: int = 12
    count: int = 50_000
    whiten: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 2:
            raise ValueError(f"size={self.size} is too small: use at least 2 pixels")
        if self.count < 2:
            raise ValueError(f"count={self.count} is too small: use at least 2 patches, of which one is for test")

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, size, size)."""
        return 1, self.size, self.size

    def read(self) -> tuple[Examples, ...]:
        """Return training and test patches, the same ones in every run.

        Raise ValueError where a photograph is too small.
        """
        photographs = self._photographs()
        if len(photographs) < 2:
            raise ValueError(
                f"path={self.path!r} has {len(photographs)} images: use 2 or more, of which one is for test"
            )
        order, num_test = fixed_order(len(photographs)).tolist(), test_count(len(photographs), self.test_fraction)
        test = [photographs[number] for number in order[:num_test]]
        train = [photographs[number] for number in order[num_test:]]
        count = test_count(self.count, self.test_fraction)
        return Examples(self._cut_patches(train, self.count - count, 0)), Examples(self._cut_patches(test, count, 1))

    def describe_dark(self, largest: int) -> str:
        """Return the message about patches that are nearly black."""
        return f"the largest pixel is {largest} of 255: the patches are nearly black; check the images"

    def _photographs(self) -> list[Photograph]:
        folder = Path(os.path.expanduser(self.path))
        if folder.is_dir():
            files = sorted(file for file in visible_files(folder) if file.suffix.lower() in SUFFIXES)
            if files:
                return [Photograph(str(file), partial(self._read_file, file)) for file in files]
        images = join_splits(number_rows(Npz(path=self.path, white=self.white).read(), None))
        return [Photograph(f"image {row}", partial(read_grey, images[row : row + 1])) for row in range(len(images))]

    def _read_file(self, file: Path) -> Tensor:
        from PIL import Image

        try:
            with Image.open(file) as image:
                size = min(image.size)
            return torch.from_numpy(read_image(file, size, 1, self.white).copy())[0].to(torch.float64) / 255
        except Exception as error:  # decoders raise any exception about a file of another format
            raise ValueError(
                f"path={self.path!r}: {file} cannot be read ({describe_error(error)}): remove it"
            ) from None

    def _cut_patches(self, photographs: Sequence[Photograph], count: int, seed: int) -> Tensor:
        """Return `count` patches from random places of random photographs, uint8 [count, 1, size, size]."""
        generator = torch.Generator().manual_seed(SPLIT_SEED + seed)
        numbers = torch.randint(len(photographs), (count,), generator=generator)
        places = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        patches = torch.empty(count, *self.stored_shape, dtype=torch.uint8)
        border = BORDER if self.whiten else 0
        for number, photograph in enumerate(photographs):
            image, inside = photograph.read(), (numbers == number).nonzero().flatten()
            height, width = (side - 2 * border for side in image.shape)
            if min(height, width) < self.size:
                raise ValueError(
                    f"path={self.path!r}: {photograph.name} has {image.shape[0]}x{image.shape[1]} pixels: patches of "
                    f"size={self.size} need at least {self.size + 2 * border}"
                )
            pixels = (
                to_bytes(whiten(image, photograph.name)) if self.whiten else image.mul(255).round_().to(torch.uint8)
            )
            free = torch.tensor([height, width]) - self.size + 1
            corners = (places[inside] * free).long() + border
            windows = pixels.unfold(0, self.size, 1).unfold(1, self.size, 1)  # [H', W', size, size], a view
            patches[inside, 0] = windows[corners[:, 0], corners[:, 1]]
        return patches


def read_grey(image: Examples) -> Tensor:
    """Return one image as grey values [H, W] in [0, 1]."""
    pixels = image.pixels[0].to(torch.float64) / 255
    return pixels[0] if len(pixels) == 1 else torch.tensordot(torch.tensor(LUMA, dtype=torch.float64), pixels, 1)


def whiten(image: Tensor, name: str = "the image") -> Tensor:
    """Return a photograph [H, W] filtered so that its spatial frequencies have about the same power, with variance 1.

    Raise ValueError where all its pixels are equal.
    """
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in image.shape)
    frequency = torch.hypot(rows[:, None], columns[None])
    gain = frequency * (-((frequency / CUTOFF) ** 4)).exp()
    filtered = torch.fft.ifft2(torch.fft.fft2(image) * gain).real
    deviation = filtered.std()
    if deviation < 1e-9:
        raise ValueError(f"{name} has pixels of one value, which cannot be whitened: remove it")
    return filtered / deviation


def to_bytes(values: Tensor) -> Tensor:
    """Return values of variance 1 as bytes: 127.5 is 0, and 0 and 255 are RANGE standard deviations."""
    return values.div(RANGE).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
