"""A user's own images: a folder of image files, or arrays in an .npz file."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.dataset import SPLIT_SEED, Dataset, Images

Array = np.ndarray[Any, np.dtype[Any]]


def check_fraction(test_fraction: float) -> None:
    """Refuse a test set that is none or all of the images."""
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"test_fraction={test_fraction} leaves nothing to train on or to test with: use a number between 0 and 1"
        )


def share(total: int, fraction: float) -> int:
    """How many of `total` >= 2 images are for the test: the fraction, but at least one, and not all."""
    return min(max(round(total * fraction), 1), total - 1)


def instead(path: Path) -> str:
    """What is found at a path that is not what it should be."""
    if os.path.isdir(path):
        return "is a folder"
    return "is a file" if os.path.exists(path) else f"does not exist (looked for {path.absolute()})"


# --- Image files ------------------------------------------------------------------------------------------------------

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
        images = Images(self._pixels(files), classes(files))
        return images[: len(train)], images[len(train) :]

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


def classes(files: Sequence[File]) -> Tensor | None:
    """The number of the folder that each image lies in, [N] int64; None where folders name no classes."""
    folders = [file.inside.split("/")[0] if "/" in file.inside else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2 or None in folders:
        return None
    return torch.tensor([names.index(folder) for folder in folders if folder is not None])


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


# --- Arrays -----------------------------------------------------------------------------------------------------------

# Names of images and their labels, for training and for the test, or to be split.
LAYOUTS = (
    (("x_train", "y_train"), ("x_test", "y_test")),
    (("train", "train_labels"), ("test", "test_labels")),
    (("images", "labels"),),
    (("x", "y"),),
)


class Header(NamedTuple):
    """What an array in the file is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@final
@dataclass(kw_only=True)
class Npz(Dataset):
    """Arrays in a NumPy .npz file: `x_train` and `x_test` (and `y_train`, `y_test`), as in Keras' mnist.npz.

    Or `train` and `test` (and `train_labels`, `test_labels`); or all in one, `images` (and `labels`) or `x` (and `y`),
    of which `test_fraction` are for the test, the same ones in every run. Images are [N, H, W], [N, C, H, W] or
    [N, H, W, C] with 1 or 3 channels (the first of these that fits), of uint8 0..255, bool, or floats in [0, 1], which
    are rounded to 8 bits. Labels are integers from 0, [N] or [N, 1].
    """

    path: str
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W), from the headers of the arrays."""
        headers, shapes = self._headers(), {}
        for images, labels in self._parts(headers):
            shapes[images] = self._image_shape(images, headers[images])
            if labels:
                self._check_labels(labels, headers[labels], headers[images].shape[0])
        first, *others = shapes.values()
        if not others and headers[next(iter(shapes))].shape[0] < 2:
            raise self._error(f"{next(iter(shapes))} has only 1 image, and 2 are needed to train and to test")
        if others != [first] * len(others):
            both = ", ".join(f"{name} is {headers[name]}" for name in shapes)
            raise self._error(f"{both}: their images must be of one shape")
        return first

    def read(self) -> tuple[Images, Images]:
        """The images in the order in which they are stored."""
        headers, stored_shape = self._headers(), self.stored_shape
        parts = [
            Images(self._pixels(images, stored_shape), self._labels(labels) if labels else None)
            for images, labels in self._parts(headers)
        ]
        if len(parts) == 2:
            return parts[0], parts[1]
        (everything,) = parts
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(SPLIT_SEED))
        count = share(len(everything), self.test_fraction)
        return everything[order[count:].sort().values], everything[order[:count].sort().values]

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"path={self.path!r}: {problem}")

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        """The file, for reading alone: whatever goes wrong inside is damage."""
        path = Path(os.path.expanduser(self.path))
        if not os.path.isfile(path):
            raise ValueError(f"path={self.path!r} {instead(path)}: use an .npz file")
        try:
            with warnings.catch_warnings(), zipfile.ZipFile(path) as file:
                warnings.simplefilter("ignore")  # NumPy's, about headers written by Python 2
                yield file
        except Exception as reason:  # NumPy and zipfile raise anything about bytes they did not write
            why = " ".join(str(reason).split()) or type(reason).__name__
            raise self._error(
                f"cannot be read as an .npz file ({why}): save it again with numpy.savez(path, x_train=..., x_test=...)"
            ) from None

    def _headers(self) -> dict[str, Header]:
        """What the file holds, without reading it."""
        headers = {}
        with self._open() as file:
            for member in file.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                with file.open(member) as stream:
                    old = np.lib.format.read_magic(stream) == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(stream)
                    # Before memory is asked for; the size of pickled objects is not known.
                    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                        raise ValueError(f"{member.filename} has not the size that it states")
                headers[member.filename.removesuffix(".npy")] = Header(shape, dtype)
        return headers

    def _array(self, name: str) -> Array:
        with self._open() as file, file.open(f"{name}.npy") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    def _parts(self, headers: dict[str, Header]) -> list[tuple[str, str | None]]:
        """The names of images and labels (None where there are none): of two splits, or of one to be split."""
        for layout in LAYOUTS:
            if any(images not in headers for images, _ in layout):
                continue
            missing = [labels for _, labels in layout if labels not in headers]
            if 0 < len(missing) < len(layout):
                raise self._error(f"has labels for one split, but no {missing[0]}: add it, or leave out both")
            return [(images, None if missing else labels) for images, labels in layout]
        wanted = " or ".join(" and ".join(images for images, _ in layout) for layout in LAYOUTS)
        raise self._error(f"holds {', '.join(headers) or 'no arrays'}, but should hold {wanted}")

    def _image_shape(self, name: str, header: Header) -> tuple[int, int, int]:
        """(C, H, W) of the images in an array, or what is wrong with it."""
        shape, dtype = header
        if not (dtype == np.uint8 or dtype.kind in "bf"):
            raise self._error(f"{name} is {header}: use uint8 from 0 to 255, floats from 0 to 1, or bool")
        if 0 in shape:
            raise self._error(f"{name} is empty ({header})")
        match shape:
            case (_, height, width):
                return 1, height, width
            case (_, (1 | 3) as channels, height, width) | (_, height, width, (1 | 3) as channels):
                found = channels, height, width
                return found
        raise self._error(f"{name} is {header}: use [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels")

    def _check_labels(self, name: str, header: Header, count: int) -> None:
        if header.shape not in ((count,), (count, 1)) or header.dtype.kind not in "iu":
            raise self._error(f"{name} is {header}: use one integer for each of the {count} images")

    def _pixels(self, name: str, stored_shape: tuple[int, int, int]) -> Tensor:
        """The images as uint8 [N, C, H, W]."""
        array = self._array(name)
        if array.dtype.kind == "b":
            array = array.astype(np.uint8) * np.uint8(255)
        elif array.dtype.kind == "f":
            low, high = array.min(), array.max()  # NaN where there is one
            if not (low >= 0 and high <= 1):
                raise self._error(f"{name} has values from {low:g} to {high:g}: use floats from 0 to 1, or uint8")
            array = np.rint(np.multiply(array, 255, dtype=np.float32)).astype(np.uint8)
        if array.ndim == 4 and array.shape[1:] != stored_shape:
            array = np.moveaxis(array, 3, 1)
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *stored_shape)

    def _labels(self, name: str) -> Tensor:
        """The labels as int64 [N]."""
        labels = torch.from_numpy(self._array(name).astype(np.int64)).flatten()
        if labels.min() < 0:
            raise self._error(f"{name} has negative labels: use integers from 0")
        return labels
