"""Data sets published as archives that are verified once and then cached in one file that loads fast.

    path/NAME/raw/                   the archives as published; put there by the user, or downloaded
    path/NAME/aetrain.safetensors    the cache: their arrays, and the size and time of the files they were read from

Many processes may start at once on an empty folder, and any of them may be killed: one at a time builds the cache, each
file is renamed into place when it is complete, and the next process removes incomplete files.
"""

import hashlib
import json
import logging
import os
import socket
import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.data.image_dataset import ImageDataset
from aetrain.data.user_files import describe_error
from aetrain.storage import atomic
from aetrain.storage.locks import exclusive_work_folder

log = logging.getLogger(__name__)

CACHE = "aetrain.safetensors"
NETWORK_TIMEOUT_S = 6.0  # for each address of a mirror, which has up to eight

Arrays = dict[str, Tensor]  # uint8 by name: images [N, H, W] or [N, C, H, W], labels [N]


class ArchiveError(Exception):
    """An archive that is missing or not as published; the message states the reason."""


class PublishedFile(NamedTuple):
    """A file as its publisher offers it: its name, its MD5 sum, and the addresses that have it."""

    name: str
    md5: str | None  # None where the caller checks another digest
    urls: Sequence[str]


@dataclass(kw_only=True)
class PublishedDataset(ImageDataset):
    """A data set published as archives of uint8 images and their classes.

    A subclass names its files and parses them; `array_names` are those of the training images, training labels, test
    images and test labels in the arrays of all files. `path` is the folder that contains `<name>/raw`; missing files
    are downloaded into it.
    """

    path: str
    name: ClassVar[str]  # of the folder, and of the class in torchvision that has the addresses and the MD5 sums
    array_names: ClassVar[Sequence[str]] = ("train_images", "train_labels", "test_images", "test_labels")

    @property
    @abstractmethod
    def file_names(self) -> Sequence[str]:
        """The names of the published files, known without torchvision."""

    @abstractmethod
    def published_files(self, source: Any) -> list[PublishedFile]:
        """Return the published files, in the order of `file_names`, from the class `source` of torchvision."""

    @abstractmethod
    def parse(self, file: Path) -> Arrays:
        """Return the arrays of one file; raise any exception where it has another format."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 0, 1, ...; empty where they are numbers only."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def cache_name(self) -> str:
        """The name of the cache in the folder of the data set."""
        return CACHE

    @property
    def folder(self) -> Path:
        """The folder of the data set: `path/<name>`."""
        return Path(os.path.expanduser(self.path)).absolute() / self.name

    def read(self) -> tuple[Examples, Examples]:
        """Return the training and test images: from an up-to-date cache, else from the verified archives.

        Raise ValueError where an archive is missing or damaged and cannot be downloaded.
        """
        folder = self.folder
        for parent in (folder.parent, folder, folder / "raw"):
            if os.path.exists(parent) and not os.path.isdir(parent):
                raise ValueError(f"path={self.path!r}: {parent} is a file; use the folder that holds {self.name}/raw")
        arrays = self.read_cache() or self._build(folder)
        train_images, train_labels, test_images, test_labels = (arrays[name] for name in self.array_names)
        return self._images(train_images, train_labels), self._images(test_images, test_labels)

    def _images(self, pixels: Tensor, labels: Tensor) -> Examples:
        return Examples(pixels.view(-1, *self.stored_shape), labels.long(), self.class_names)

    def find_file(self, folder: Path, name: str) -> Path | None:
        """Return the file in `folder` to read a published file from, or None. Only files of its name are verified."""
        file = folder / name
        return file if os.path.isfile(file) else None

    def file_stamps(self) -> dict[str, list[int]]:
        """Return the size in bytes and the modification time in ns of the files that would be read, by file name."""
        stamps = {}
        for name in self.file_names:
            if (file := self.find_file(self.folder / "raw", name)) is not None:
                status = file.stat()
                stamps[file.name] = [status.st_size, status.st_mtime_ns]
        return stamps

    def read_cache(self) -> Arrays | None:
        """Return the cached arrays; None where there are none, they are broken, or an archive has changed since.

        A deleted archive leaves the cache valid.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / self.cache_name, framework="pt") as cache:
                cached_stamps = json.loads((cache.metadata() or {}).get("read_from", "{}"))
                stamps = self.file_stamps()
                if not cached_stamps or any(cached_stamps.get(file) != stamp for file, stamp in stamps.items()):
                    return None
                # Cloned, because a view of a file that is truncated later would crash the process.
                arrays = {name: cache.get_tensor(name).clone() for name in self.array_names}
            self.check_arrays(arrays)
        except (OSError, SafetensorError, ValueError, AttributeError):
            return None
        return arrays

    def check_arrays(self, arrays: Arrays) -> None:
        """Raise ValueError where arrays are no images of the stored shape or no labels of the known classes."""
        _, height, width = self.stored_shape
        for name, array in arrays.items():
            if array.dtype != torch.uint8 or not len(array):
                raise ValueError(f"{name} holds no bytes")
            if array.dim() > 1 and (
                array.shape[-2:] != (height, width) or array[0].numel() != torch.Size(self.stored_shape).numel()
            ):
                raise ValueError(f"it holds images of {format_shape(array.shape[1:])}")
            if array.dim() == 1 and int(array.max()) >= self.num_classes:
                raise ValueError(f"it holds labels above {self.num_classes - 1}")
        for images, labels in (self.array_names[:2], self.array_names[2:]):
            if images in arrays and labels in arrays and len(arrays[images]) != len(arrays[labels]):
                raise ValueError(f"it holds {len(arrays[images])} images and {len(arrays[labels])} labels")

    def _build(self, folder: Path) -> Arrays:
        """Return the verified arrays, and cache them where the folder can be written to."""
        with ExitStack() as stack:
            try:
                work = stack.enter_context(exclusive_work_folder(folder))
            except OSError as error:
                # A shared folder that only its owner may write to is read without a cache.
                return self._unpack(folder / "raw", None, f"{folder} cannot be written to ({error.strerror})")
            if (arrays := self.read_cache()) is None:  # another process may have built it during the wait
                arrays = self._unpack(folder / "raw", work)
                self._write_cache(work, arrays)
            return arrays

    def _unpack(self, raw: Path, work: Path | None, obstacle: str = "") -> Arrays:
        """Return all arrays; download what is missing or damaged.

        Downloads go through the folder `work`. Where it is None, raise ValueError with the `obstacle` instead.
        """
        import torchvision.datasets

        arrays: Arrays = {}
        for published in self.published_files(getattr(torchvision.datasets, self.name)):
            try:
                arrays |= self._parse_verified(raw, published)
            except ArchiveError as problem:
                try:
                    if work is None:
                        raise ArchiveError(obstacle) from None
                    log.info("downloading %s to %s", published.name, raw)
                    download(published, work)
                    arrays |= self._parse_verified(work, published)
                except ArchiveError as reason:
                    raise ValueError(self._advice(raw, published.name, str(problem), str(reason))) from None
                # Moved at once, so that it is not downloaded again if a later one fails.
                with suppress(OSError):
                    raw.mkdir(exist_ok=True)
                    os.replace(work / published.name, raw / published.name)
        try:
            self.check_arrays(arrays)  # the numbers of images and labels, which several files may hold
        except ValueError as problem:
            raise ValueError(f"path={self.path!r}: {raw} is damaged ({problem}): delete it and run again") from None
        return arrays

    def _parse_verified(self, folder: Path, published: PublishedFile) -> Arrays:
        """Return the arrays of a file in `folder`; ArchiveError where it is missing or not as published."""
        file = self.find_file(folder, published.name)
        if file is None:
            raise ArchiveError(f"{folder / published.name} is missing")
        try:
            if file.name == published.name and md5_sum(file) != published.md5:
                raise ArchiveError(f"{file} is damaged (its MD5 sum is not the published one)")
            arrays = self.parse(file)
            self.check_arrays(arrays)
        except ArchiveError:
            raise
        except Exception as error:  # unpackers raise any exception about bytes of another format
            if isinstance(error, OSError) and error.strerror:
                raise ArchiveError(f"{file} cannot be read ({error.strerror})") from None
            raise ArchiveError(f"{file} is damaged ({describe_error(error)})") from None
        return arrays

    def _advice(self, raw: Path, name: str, problem: str, reason: str) -> str:
        """Return the message about an archive with a `problem` that cannot be downloaded for a `reason`."""
        missing = [other for other in self.file_names if self.find_file(raw, other) is None]
        if name not in missing:
            return (
                f"path={self.path!r}: {problem}, and {reason}: delete it and run again with a network, "
                "put a good copy there, or use dataset=digits"
            )
        return (
            f"path={self.path!r}: {self.name} is not in {raw}, and {reason}: put {', '.join(missing)} there, "
            f"set data_dir (or AETRAIN_DATA) to a folder that holds {self.name}/raw, or use dataset=digits"
        )

    def _write_cache(self, work: Path, arrays: Arrays) -> None:
        """Write the cache as a whole, through the folder `work`; where the disk is full, leave the folder without."""
        from safetensors.torch import save

        with suppress(OSError):
            content = save(arrays, metadata={"read_from": json.dumps(self.file_stamps())})
            atomic.write(work / CACHE, content)
            os.replace(work / CACHE, self.folder / self.cache_name)


def md5_sum(file: Path) -> str:
    """Return the MD5 sum of a file, read in parts because it may have gigabytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape such as 28x28."""
    return "x".join(map(str, shape))


def to_labels(labels: Tensor) -> Tensor:
    """Return integer labels [N] as uint8; raise ValueError where one is negative, too large, or no integer."""
    small = labels.to(torch.uint8)
    if not torch.equal(small.to(labels.dtype), labels):
        raise ValueError("it holds labels that are no numbers of classes")
    return small


def read_tar(file: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of files in a tar archive by name, in one pass; nothing is written to the disk.

    Raise ValueError where one is missing.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(file, "r|gz") as archive:
        for member in archive:
            if member.name not in names:
                continue
            stream: IO[bytes] | None = archive.extractfile(member)
            if stream is not None:
                contents[member.name] = stream.read()
            if len(contents) == len(names):
                return contents
    missing = [name for name in names if name not in contents]
    raise ValueError(f"it does not hold {', '.join(missing)}")


def download(published: PublishedFile, folder: Path) -> None:
    """Download a file into `folder` from the first address that has it, check its MD5 sum, or raise ArchiveError."""
    from torchvision.datasets.utils import download_url

    reasons = []
    with socket_timeout(NETWORK_TIMEOUT_S):  # torchvision sets none, and would wait forever
        for url in published.urls:
            try:
                download_url(url, str(folder), published.name, published.md5)
                return
            except (OSError, RuntimeError, HTTPException) as error:  # no network, a bad copy, a broken server
                reasons.append(str(error) or type(error).__name__)
    raise ArchiveError(f"it could not be downloaded ({'; '.join(dict.fromkeys(reasons))})")


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of new sockets, and restore it afterwards."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
