"""A data set of a user's own image files in a folder."""

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

from aetrain.data.dataset import Dataset
from aetrain.data.images import Images
from aetrain.data.user_files import Array, check_fraction, describe_error, describe_path, test_count

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
ADVICE = f"put image files there ({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})"


class File(NamedTuple):
    """An image file, and its path below the folder of its split."""

    path: Path
    relative_path: str


@final
@dataclass(kw_only=True)
class Folder(Dataset):
    """Image files (png, jpg, bmp, gif, webp, tif) anywhere below the folder `path`.

    Each image is rotated as its EXIF tag states, converted to grey (`channels=1`) or RGB (3), scaled until its shorter
    side has `size` pixels, and cropped to the central square. Transparent parts become white; of an animation the first
    frame is read. Folders `train` and `test` inside `path` are the splits; without them `test_fraction` of the images
    are for testing. The folders inside a split are the classes, in alphabetical order, where every image is in one of
    them and there are at least two. Hidden files and files of other kinds are ignored.
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
        """Return the training and test images in a mixed order, the same in every run; a subset has all classes.

        Raise ValueError where `path` has too few images or an image cannot be read.
        """
        train, test = self._splits()
        files = [*train, *test]
        images = Images(self._pixels(files), *class_labels(files))
        return images[: len(train)], images[len(train) :]

    def files(self) -> tuple[list[str], list[str]]:
        """Return the paths of the training and test images below `path`."""
        train, test = self._splits()
        return self._relative_paths(train), self._relative_paths(test)

    def _relative_paths(self, files: Sequence[File]) -> list[str]:
        top = Path(os.path.expanduser(self.path))
        return [file.path.relative_to(top).as_posix() for file in files]

    def _splits(self) -> tuple[list[File], list[File]]:
        top = Path(os.path.expanduser(self.path))
        if not os.path.isdir(top):
            raise ValueError(f"path={self.path!r} {describe_path(top)}: use a folder of images")
        folders = [top / name for name in ("train", "test") if (top / name).is_dir()]
        if len(folders) == 1:
            # Read as a class it would be the only one, and its images would be in both splits.
            raise ValueError(f"path={self.path!r} has a folder {folders[0].name!r} only: use both 'train' and 'test'")
        if folders:
            train, test = map(image_files, folders)
            for folder, files in zip(folders, (train, test), strict=True):
                if not files:
                    raise ValueError(f"path={self.path!r}: no images in {folder}; {ADVICE}")
            return train, test
        files = image_files(top)
        if len(files) < 2:
            number = "only 1 image" if files else "no images"
            raise ValueError(f"path={self.path!r}: {number} there, 2 are needed to train and to test; {ADVICE}")
        count = test_count(len(files), self.test_fraction)
        return files[count:], files[:count]

    def _pixels(self, files: Sequence[File]) -> Tensor:
        pixels = torch.empty(len(files), *self.stored_shape, dtype=torch.uint8)  # [N, C, size, size]
        unreadable = []
        for index, file in enumerate(files):
            try:
                pixels[index] = torch.from_numpy(read_image(file.path, self.size, self.channels))
            except Exception as error:  # decoders raise any exception about a file of another format
                unreadable.append((file.path, describe_error(error)))
        if unreadable:
            path, reason = min(unreadable)
            pronoun = "it" if len(unreadable) == 1 else "them"
            raise ValueError(
                f"path={self.path!r}: {len(unreadable)} of {len(files)} images cannot be read: remove {pronoun}; "
                f"the first is {path} ({reason})"
            )
        return pixels


def image_files(top: Path) -> list[File]:
    """Return the image files below `top` in a mixed order that depends only on their paths below `top`.

    It is the order of the paths' hashes, so that an added image does not change the order of the others.
    """
    files = [File(path, path.relative_to(top).as_posix()) for path in visible_files(top)]
    images = [file for file in files if file.path.suffix.lower() in SUFFIXES]
    return sorted(images, key=lambda file: blake2b(file.relative_path.encode(errors="surrogateescape")).digest())


def visible_files(top: Path) -> Iterator[Path]:
    """Yield every file below `top`, also through links, but no hidden ones, and none that macOS adds to its archives.

    Raise ValueError where a folder cannot be listed.
    """
    visited = set()  # a link may lead to a folder above it
    for root, folders, files in os.walk(top, onerror=refuse_folder, followlinks=True):
        visited.add(os.path.realpath(root))
        visible = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        folders[:] = [name for name in visible if os.path.realpath(os.path.join(root, name)) not in visited]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def refuse_folder(error: OSError) -> None:
    """Raise ValueError about a folder that cannot be listed, because its images would be missing."""
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}): make it readable or remove it")


def class_labels(files: Sequence[File]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the class [N] of each image, which is the number of its folder, and the classes' names.

    Return (None, ()) where the folders are no classes.
    """
    folders = [file.relative_path.split("/")[0] if "/" in file.relative_path else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2 or None in folders:
        return None, ()
    return torch.tensor([names.index(folder) for folder in folders if folder is not None]), tuple(names)


def read_image(path: Path, size: int, channels: int) -> Array:
    """Return an image file as uint8 [channels, size, size]; raise any exception where it cannot be decoded safely."""
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, about unknown tags
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            file.draft(mode, (2 * size, 2 * size))  # a JPEG is decoded no larger than needed
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode == "F" or image.mode.startswith("I"):
                image = convert_to_8_bits(np.asarray(image))
            if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            square = np.array(ImageOps.fit(image.convert(mode), (size, size)))  # [size, size] or [size, size, 3]
    return square.reshape(size, size, channels).transpose(2, 0, 1)


def convert_to_8_bits(grey: Array) -> Any:
    """Return the PIL image of 16-bit grey values [H, W]; PIL's own conversion would clip them at 255."""
    from PIL import Image

    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError("pixels are neither 8 nor 16 bits")
    return Image.fromarray(np.rint(grey / 257).astype(np.uint8))
