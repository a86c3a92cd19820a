"""A data set of a user's own image files in a folder."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.data.image_reader import ImageReader
from aetrain.data.split_names import resembles_split, split_of
from aetrain.data.user_dataset import UserDataset
from aetrain.data.user_files import describe_error, describe_path, quote_names, test_count

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
ADVICE = f"put image files there ({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))})"


class File(NamedTuple):
    """An image file, and its path below the folder of its split."""

    path: Path
    relative_path: str


@final
@dataclass(kw_only=True)
class Folder(UserDataset):
    """Image files (png, jpg, bmp, gif, webp, tif) anywhere below the folder `path`, read by `ImageReader`.

    Folders `train` (or `training`), `test` (`testing`) and `val` (`valid`, `validation`) inside `path`, in any case,
    are the splits; without `test`, `test_fraction` of the training images are for testing. The folders inside a split
    are the classes, in alphabetical order, where every image is in one of them and there are at least two. Hidden files
    and files of other kinds are ignored.
    """

    size: int = 28
    channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 2:
            raise ValueError(f"size={self.size} is too small: use at least 2 pixels")
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels} is not possible: use 1 for grey or 3 for RGB")

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(channels, size, size)."""
        return self.channels, self.size, self.size

    def read(self) -> tuple[Examples, ...]:
        """Return the images of the splits in a mixed order, the same in every run; a subset has all classes.

        Raise ValueError where `path` has too few images or an image cannot be read.
        """
        splits = self._splits()
        files = [file for split in splits for file in split]
        images = Examples(self._pixels(files), *class_labels(files))
        parts = images_by_count(images, [len(split) for split in splits])
        return tuple(parts)

    def files(self) -> tuple[list[str], ...]:
        """Return the paths of the images of each split below `path`."""
        return tuple([file.path.relative_to(self._top).as_posix() for file in split] for split in self._splits())

    @property
    def _top(self) -> Path:
        return Path(os.path.expanduser(self.path))

    def _splits(self) -> list[list[File]]:
        """Return the files of training, test and, where there is a folder for it, validation images."""
        if not os.path.isdir(self._top):
            raise ValueError(f"path={self.path!r} {describe_path(self._top)}: use a folder of images")
        folders = self._split_folders()
        splits = {split: image_files(folder) for split, folder in folders.items()}
        for split, files in splits.items():
            if not files:
                raise ValueError(f"path={self.path!r}: no images in {folders[split]}; {ADVICE}")
        if folders:
            self._check_other_files(list(folders.values()))
        train = splits.get("train") or image_files(self._top)
        if not folders:
            self._warn_of_folders_like_splits(train)
        test = splits.get("test")
        if test is None:
            train, test = self._cut_test_images(train, folders.get("train"))
        if "validation" not in splits:
            return [train, test]
        self.check_own_validation(f"folder {folders['validation'].name!r}")
        return [train, test, splits["validation"]]

    def _split_folders(self) -> dict[str, Path]:
        """Return the folders of the splits by the split's name; none where there is no folder of training images."""
        folders: dict[str, Path] = {}
        for folder in sorted(self._top.iterdir()):
            split = split_of(folder.name)
            if split is None or not folder.is_dir():
                continue
            if split in folders:
                raise ValueError(
                    f"path={self.path!r} has the folders {folders[split].name!r} and {folder.name!r}, which are both "
                    f"for {split} images: keep one"
                )
            folders[split] = folder
        if "train" in folders:
            return folders
        if "test" in folders:
            # Read as a class it would be the only one, and its images would be in both splits.
            name = folders["test"].name
            raise ValueError(f"path={self.path!r} has a folder {name!r} only: use both 'train' and 'test'")
        return {}

    def _check_other_files(self, folders: Sequence[Path]) -> None:
        """Warn of images beside the folders of the splits, which are not read.

        Raise ValueError where the only folder of a split may be a class among others.
        """
        others = [path for path in sorted(self._top.iterdir()) if path not in folders and has_images(path)]
        if not others:
            return
        names, read = quote_names([path.name for path in others]), quote_names([path.name for path in folders])
        if len(folders) == 1:
            raise ValueError(
                f"path={self.path!r} has a folder {read} only, beside {names}: use both 'train' and 'test', or rename "
                f"{read} if it is a class"
            )
        self.add_warning(f"{self.path}: only {read} are read, as the splits, without {names}")

    def _warn_of_folders_like_splits(self, files: Sequence[File]) -> None:
        """Warn of folders that suggest a split, but are read as folders of any name: as classes, or with the others."""
        names = set()
        for file in files:
            top, *below = file.relative_path.split("/")[:-1] or [""]
            names |= {name for name in below if split_of(name)} | ({top} if resembles_split(top) else set())
        if names:
            self.add_warning(
                f"{self.path}: the images in {quote_names([*names])} are read like all others, not as a split: the "
                "folders of splits are 'train', 'test' and 'val', directly in dataset.path"
            )

    def _cut_test_images(self, files: list[File], folder: Path | None) -> tuple[list[File], list[File]]:
        """Return training and test images out of `files`, which are those of the folder `train` or of all folders."""
        if not files:
            raise ValueError(f"path={self.path!r}: no images there; {ADVICE}")
        count = test_count(len(files), self.test_fraction)
        if folder is not None:
            self.add_conversion(
                f"{self.path} has no folder 'test': {count:,} of the {len(files):,} images in {folder.name!r} are for "
                f"test (dataset.test_fraction={self.test_fraction:g})"
            )
        return files[count:], files[:count]

    def _pixels(self, files: Sequence[File]) -> Tensor:
        """Return the pixels [N, C, size, size] of image files; add messages about their conversion."""
        pixels = torch.empty(len(files), *self.stored_shape, dtype=torch.uint8)
        reader = ImageReader(self.size, self.channels, self.white)
        unreadable = []
        for index, file in enumerate(files):
            try:
                pixels[index] = torch.from_numpy(reader(file.path))
            except Exception as error:  # decoders raise any exception about a file of another format
                unreadable.append((file.path, describe_error(error)))
        if unreadable:
            path, reason = min(unreadable)
            pronoun = "it" if len(unreadable) == 1 else "them"
            raise ValueError(
                f"path={self.path!r}: {len(unreadable)} of {len(files)} images cannot be read: remove {pronoun}; "
                f"the first is {path} ({reason})"
            )
        self.values = reader.values
        self.warn_of_clipping()
        if text := reader.describe_conversion(len(files)):
            self.add_conversion(text)
        return pixels


def images_by_count(images: Examples, counts: Sequence[int]) -> Iterator[Examples]:
    """Yield consecutive parts of images, of `counts` images each."""
    start = 0
    for count in counts:
        yield images[start : start + count]
        start += count


def has_images(path: Path) -> bool:
    """Tell whether a path is a visible image file or a folder with one anywhere below."""
    if path.name.startswith("."):
        return False
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    return any(file.suffix.lower() in SUFFIXES for file in visible_files(path))


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
