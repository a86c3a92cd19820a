"""A data set of a user's own image files in a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.data.image_cache import ImageCache, ImageDecoder
from aetrain.data.image_reader import ImageReader
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.split_folders import File, SplitFolders, class_labels, paths_below
from aetrain.data.user_dataset import UserDataset

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MIN_CACHE_BYTES = 64 * 2**20  # of decoded images: 64 MiB, about the size of MNIST; fewer are decoded in every run


@final
@dataclass(kw_only=True)
class Folder(UserDataset):
    """Image files (png, jpg, bmp, gif, webp, tif) anywhere below the folder `path`, read by `ImageReader`.

    Folders `train` (or `training`), `test` (`testing`) and `val` (`valid`, `validation`) inside `path`, in any case,
    are the splits; without `test`, `test_fraction` of the training images are for testing. The folders inside a split
    are the classes, in alphabetical order, where every image is in one of them and there are at least two. Hidden files
    and files of other kinds are ignored.

    Images of MIN_CACHE_BYTES and more are decoded once, into a cache in `data_dir` (`ImageCache`), and stay there: a
    batch is read when it is needed. None decodes all of them into memory.
    """

    size: int = 28
    channels: int = 1
    data_dir: str | None = None
    _names: tuple[list[str], ...] | None = field(default=None, init=False, repr=False, compare=False)

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
        self._names = tuple(paths_below(self.path, split) for split in splits)
        files = [file for split in splits for file in split]
        images = Examples(self._values(files), *class_labels(files))
        parts = images_by_count(images, [len(split) for split in splits])
        return tuple(parts)

    def files(self) -> tuple[list[str], ...]:
        """Return the paths of the images of each split below `path`: those of the last `read`, where there was one."""
        if self._names is None:
            self._names = tuple(paths_below(self.path, split) for split in self._splits())
        return self._names

    def _splits(self) -> list[list[File]]:
        """Return the files of training, test and, where there is a folder for it, validation images."""
        return SplitFolders(self.path, SUFFIXES, "images", self.test_fraction).files(self)

    def _values(self, files: Sequence[File]) -> Tensor | MappedRows:
        """Return the pixels of image files [N, C, size, size]; add messages about their conversion."""
        reader = ImageReader(self.size, self.channels, self.white)
        if self.data_dir is None or len(files) * reader.num_bytes < MIN_CACHE_BYTES:
            values: Tensor | MappedRows = self._decode(files, reader)
        else:
            values, reader = self._mapped(files, reader)
        self.values = reader.values
        self.warn_of_clipping()
        if text := reader.describe_pages():
            self.add_warning(text)
        if text := reader.describe_conversion(len(files)):
            self.add_conversion(text)
        return values

    def _decode(self, files: Sequence[File], reader: ImageReader) -> Tensor:
        """Return the decoded images in memory."""
        decoder, start = ImageDecoder([file.path for file in files], reader), 0
        pixels = torch.empty(len(files), *self.stored_shape, dtype=torch.uint8)
        for part in decoder:
            pixels[start : start + len(part)] = torch.from_numpy(part)
            start += len(part)
        decoder.check(self.path)
        return pixels

    def _mapped(self, files: Sequence[File], reader: ImageReader) -> tuple[MappedRows, ImageReader]:
        """Return the decoded images in a cache in `data_dir`, which is in the order of the names: of any split."""
        assert self.data_dir is not None
        names = paths_below(self.path, files)
        order = sorted(range(len(names)), key=names.__getitem__)
        sorted_names = [names[number] for number in order]
        paths = [files[number].path for number in order]
        array, reader = ImageCache(self.data_dir, self.path, sorted_names, paths, reader).load()
        return MappedRows.of(array, self.stored_shape)[torch.tensor(order).argsort()], reader


def images_by_count(images: Examples, counts: Sequence[int]) -> Iterator[Examples]:
    """Yield consecutive parts of images, of `counts` images each."""
    start = 0
    for count in counts:
        yield images[start : start + count]
        start += count
