"""A data set of a user's own image files in a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.data.image_reader import ImageReader
from aetrain.data.split_folders import File, SplitFolders, class_labels, paths_below
from aetrain.data.user_dataset import UserDataset
from aetrain.data.user_files import describe_error

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


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
        return tuple(paths_below(self.path, split) for split in self._splits())

    def _splits(self) -> list[list[File]]:
        """Return the files of training, test and, where there is a folder for it, validation images."""
        return SplitFolders(self.path, SUFFIXES, "images", self.test_fraction).files(self)

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
