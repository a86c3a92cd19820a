"""A user's own images: a folder of image files."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.dataset import Dataset, Images
from aetrain.data.own import Array, check_fraction, instead, share

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class File(NamedTuple):
    """An image file, by its path and by its path inside of the split it belongs to."""

    path: Path
    inside: str


@final
@dataclass(kw_only=True)
class Folder(Dataset):
    """Image files (png, jpg, bmp, gif, webp, tif) anywhere below the folder `path`.

    Each is turned upright as its EXIF tag says, made grey (`channels=1`) or RGB (3), scaled until its shorter side is
    `size`, and cut to the square in its middle. Transparent parts become white, as paper is; of an animation the
    first frame is taken. Folders `train` and `test` inside `path` are the splits; without them `test_fraction` of the
    images are for the test. Folders inside those name the classes, in alphabetical order, where every image lies in
    one and there are at least two. Hidden files and files of other kinds are passed over.
    """

    path: str
    size: int = 28
    channels: int = 1
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 2:
            raise ValueError(f"size={self.size} is too small: use at least 2 pixels")
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels} is not possible: use 1 for grey or 3 for RGB")
        check_fraction(self.test_fraction)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(channels, size, size)."""
        return self.channels, self.size, self.size

    def read(self) -> tuple[Images, Images]:
        """The images in an order that is mixed, so that a subset has all classes, and the same in every run."""
        train, test = self._splits()
        files = [*train, *test]
        images = Images(self._pixels(files), *classes(files))
        return images[: len(train)], images[len(train) :]

    def files(self) -> tuple[list[str], list[str]]:
        """The paths of the images below `path`."""
        top = Path(os.path.expanduser(self.path))
        train, test = ([file.path.relative_to(top).as_posix() for file in files] for files in self._splits())
        return train, test

    def _splits(self) -> tuple[list[File], list[File]]:
        top = Path(os.path.expanduser(self.path))
        if not os.path.isdir(top):
            raise ValueError(f"path={self.path!r} {instead(top)}: use a folder of images")
        named = [top / name for name in ("train", "test") if (top / name).is_dir()]
        if len(named) == 1:
            # As a class it would teach nothing, and its images would be in both splits.
            raise ValueError(f"path={self.path!r} has a folder {named[0].name!r} only: use both 'train' and 'test'")
        if named:
            train, test = map(image_files, named)
            for folder, files in zip(named, (train, test), strict=True):
                if not files:
                    raise ValueError(f"path={self.path!r}: no images in {folder}; {PUT_THERE}")
            return train, test
        files = image_files(top)
        if len(files) < 2:
            found = "only 1 image" if files else "no images"
            raise ValueError(f"path={self.path!r}: {found} there, 2 are needed to train and to test; {PUT_THERE}")
        count = share(len(files), self.test_fraction)
        return files[count:], files[:count]

    def _pixels(self, files: Sequence[File]) -> Tensor:
        pixels = torch.empty(len(files), *self.stored_shape, dtype=torch.uint8)  # [N, C, size, size]
        bad = []
        for index, file in enumerate(files):
            try:
                pixels[index] = torch.from_numpy(picture(file.path, self.size, self.channels))
            except Exception as reason:  # decoders raise anything about a file that is none of theirs
                bad.append((file.path, " ".join(str(reason).split()) or type(reason).__name__))
        if bad:
            path, why = min(bad)
            them = "it" if len(bad) == 1 else "them"
            raise ValueError(
                f"path={self.path!r}: {len(bad)} of {len(files)} images cannot be read: remove {them}; "
                f"the first is {path} ({why})"
            )
        return pixels


PUT_THERE = f"put image files there ({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})"


def image_files(top: Path) -> list[File]:
    """The image files below `top`, in a mixed order that depends on their paths from there alone.

    It is the order of the paths' hashes: an image that is added does not change the order of the others.
    """
    files = [File(path, path.relative_to(top).as_posix()) for path in visible_files(top)]
    images = [file for file in files if file.path.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda file: blake2b(file.inside.encode(errors="surrogateescape")).digest())


def visible_files(top: Path) -> Iterator[Path]:
    """Every file below `top`, through links too; not the hidden ones, nor those macOS puts into its archives."""
    seen = set()  # a link may lead back up
    for root, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(root))
        visible = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        folders[:] = [name for name in visible if os.path.realpath(os.path.join(root, name)) not in seen]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def refuse(error: OSError) -> None:
    """A folder that cannot be listed is not passed over: its images would be missed."""
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}): make it readable or remove it")


def classes(files: Sequence[File]) -> tuple[Tensor | None, tuple[str, ...]]:
    """The number of the folder that each image lies in, and their names; none where they name no classes."""
    folders = [file.inside.split("/")[0] if "/" in file.inside else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2 or None in folders:
        return None, ()
    return torch.tensor([names.index(folder) for folder in folders if folder is not None]), tuple(names)


def picture(path: Path, size: int, channels: int) -> Array:
    """An image file as uint8 [channels, size, size]; any exception where it is not to be trusted."""
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd tags do no harm
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            opened.draft(mode, (2 * size, 2 * size))  # a photograph is decoded no larger than it is needed
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode == "F" or image.mode.startswith("I"):
                image = eight_bits(np.asarray(image))
            if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            square = np.array(ImageOps.fit(image.convert(mode), (size, size)))  # [size, size] or [size, size, 3]
    return square.reshape(size, size, channels).transpose(2, 0, 1)


def eight_bits(grey: Array) -> Any:
    """A picture of 16-bit grey values; PIL's own conversion would clip them."""
    from PIL import Image

    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError("pixels are neither 8 nor 16 bits")
    return Image.fromarray(np.rint(grey / 257).astype(np.uint8))
