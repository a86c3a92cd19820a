"""MNIST and Fashion-MNIST: four published archives, verified once and then cached in one file that loads fast.

    path/MNIST/raw/*.gz              the archives as published; put there by the user, or downloaded by torchvision
    path/MNIST/aetrain.safetensors   the cache: their arrays, and the size and time of the files they were read from

Many processes may start at once on an empty folder, and any of them may be killed: one at a time builds the cache, each
file is renamed into place when it is complete, and the next process removes incomplete files.
"""

import gzip
import hashlib
import json
import logging
import math
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.data.dataset import Dataset
from aetrain.data.images import Images
from aetrain.storage import atomic
from aetrain.storage.locks import exclusive_work_folder

log = logging.getLogger(__name__)

# The four idx files and the shapes of their arrays; an archive has the same name with .gz.
SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
CACHE = "aetrain.safetensors"
NETWORK_TIMEOUT_S = 6.0  # for each address of a mirror, which has up to eight

Arrays = dict[str, Tensor]  # uint8, with the names and shapes of SHAPES


class ArchiveError(Exception):
    """An archive that is missing or not as published; the message states the reason."""


@dataclass(kw_only=True)
class Archives(Dataset):
    """A data set published as four idx archives of 28x28 grey images, 60000 to train on and 10000 to test with.

    `path` is the folder that contains `<name>/raw`; missing archives are downloaded into it.
    """

    path: str
    classes: ClassVar[tuple[str, ...]] = ()  # their names; empty where they are numbers only
    name: ClassVar[str]  # of the folder, and of the class in torchvision that has the mirrors and the MD5 sums

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 28, 28)."""
        return 1, 28, 28

    def read(self) -> tuple[Images, Images]:
        """Return the training and test images: from an up-to-date cache, else from the verified archives.

        Raise ValueError where an archive is missing or damaged and cannot be downloaded.
        """
        folder = Path(os.path.expanduser(self.path)).absolute() / self.name
        for parent in (folder.parent, folder, folder / "raw"):
            if os.path.exists(parent) and not os.path.isdir(parent):
                raise ValueError(f"path={self.path!r}: {parent} is a file; use the folder that holds {self.name}/raw")
        arrays = read_cache(folder) or self._build(folder)
        train_images, train_labels, test_images, test_labels = (arrays[name] for name in SHAPES)
        return (
            Images(train_images.unsqueeze(1), train_labels.long(), self.classes),  # [60000, 1, 28, 28], [60000]
            Images(test_images.unsqueeze(1), test_labels.long(), self.classes),
        )

    def _build(self, folder: Path) -> Arrays:
        """Return the verified arrays, and cache them where the folder can be written to."""
        with ExitStack() as stack:
            try:
                work = stack.enter_context(exclusive_work_folder(folder))
            except OSError as error:
                # A shared folder that only its owner may write to is read without a cache.
                return self._unpack(folder / "raw", None, f"{folder} cannot be written to ({error.strerror})")
            if (arrays := read_cache(folder)) is None:  # another process may have built it during the wait
                arrays = self._unpack(folder / "raw", work)
                write_cache(folder, work, arrays)
            return arrays

    def _unpack(self, raw: Path, work: Path | None, obstacle: str = "") -> Arrays:
        """Return the four arrays; download what is missing or damaged.

        Downloads go through the folder `work`. Where it is None, raise ValueError with the `obstacle` instead.
        """
        import torchvision.datasets

        published = getattr(torchvision.datasets, self.name)
        arrays = {}
        for archive, md5 in published.resources:
            name = archive.removesuffix(".gz")
            try:
                arrays[name] = parse(raw, name, md5)
            except ArchiveError as problem:
                try:
                    if work is None:
                        raise ArchiveError(obstacle) from None
                    log.info("downloading %s to %s", archive, raw)
                    download(archive, md5, published.mirrors, work)
                    arrays[name] = parse(work, name, md5)
                except ArchiveError as reason:
                    raise ValueError(self._advice(raw, name, str(problem), str(reason))) from None
                # Moved at once, so that it is not downloaded again if a later one fails.
                with suppress(OSError):
                    raw.mkdir(exist_ok=True)
                    os.replace(work / archive, raw / archive)
        return arrays

    def _advice(self, raw: Path, name: str, problem: str, reason: str) -> str:
        """Return the message about an archive with a `problem` that cannot be downloaded for a `reason`."""
        missing = [f"{other}.gz" for other in SHAPES if find_file(raw, other) is None]
        if f"{name}.gz" not in missing:
            return (
                f"path={self.path!r}: {problem}, and {reason}: delete it and run again with a network, "
                "put a good copy there, or use dataset=digits"
            )
        return (
            f"path={self.path!r}: {self.name} is not in {raw}, and {reason}: put {', '.join(missing)} there, "
            f"set data_dir (or AETRAIN_DATA) to a folder that holds {self.name}/raw, or use dataset=digits"
        )


@final
@dataclass(kw_only=True)
class Mnist(Archives):
    """MNIST (LeCun et al. 1998): handwritten digits, 28x28, grey on black; 60000 to train on, 10000 to test with."""

    name: ClassVar[str] = "MNIST"


@final
@dataclass(kw_only=True)
class FashionMnist(Archives):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): ten kinds of clothing in the format of MNIST."""

    name: ClassVar[str] = "FashionMNIST"
    classes: ClassVar[tuple[str, ...]] = (
        *("T-shirt", "trousers", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "boot"),
    )


def find_file(raw: Path, name: str) -> Path | None:
    """Return the file to read `name` from: the archive, whose MD5 sum is known, else the unpacked file, else None."""
    return next((file for file in (raw / f"{name}.gz", raw / name) if os.path.isfile(file)), None)


def parse(raw: Path, name: str, md5: str) -> Tensor:
    """Return the array `name` uint8, from its verified archive in `raw` or else from the unpacked file.

    An idx file is two zeros, 8 for uint8, the number of dimensions, the dimensions as int32, the values. Raise
    ArchiveError where neither file is there, or the file is not as published.
    """
    file = find_file(raw, name)
    if file is None:
        raise ArchiveError(f"{raw / name}.gz is missing")
    try:
        idx = file.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read ({error.strerror})") from None
    if file.suffix == ".gz":
        if hashlib.md5(idx, usedforsecurity=False).hexdigest() != md5:
            raise ArchiveError(f"{file} is damaged (its MD5 sum is not the published one)")
        idx = gzip.decompress(idx)
    shape = SHAPES[name]
    header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}i", *shape)
    if not idx.startswith(header) or len(idx) != len(header) + math.prod(shape):
        raise ArchiveError(f"{file} is damaged (it does not hold {'x'.join(map(str, shape))} bytes)")
    array = torch.frombuffer(bytearray(idx), dtype=torch.uint8, offset=len(header)).reshape(shape)
    if not is_plausible(array):
        raise ArchiveError(f"{file} is damaged (it holds labels above 9)")
    return array


def is_plausible(array: Tensor) -> bool:
    """Return whether labels [N] are classes 0..9; images [N, H, W] are always plausible."""
    return array.dim() > 1 or int(array.max()) <= 9


def download(archive: str, md5: str, mirrors: list[str], folder: Path) -> None:
    """Download `archive` into `folder` from the first mirror that has it, and check its MD5 sum; else ArchiveError."""
    from torchvision.datasets.utils import download_url

    reasons = []
    with socket_timeout(NETWORK_TIMEOUT_S):  # torchvision sets none, and would wait forever
        for mirror in mirrors:
            try:
                download_url(f"{mirror}{archive}", str(folder), archive, md5)
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


def file_stamps(raw: Path) -> dict[str, list[int]]:
    """Return the size in bytes and the modification time in ns of the files that `parse` would read, by file name."""
    stamps = {}
    for name in SHAPES:
        if (file := find_file(raw, name)) is not None:
            status = file.stat()
            stamps[file.name] = [status.st_size, status.st_mtime_ns]
    return stamps


def read_cache(folder: Path) -> Arrays | None:
    """Return the cached arrays; None where there are none, they are broken, or an archive has changed since.

    A deleted archive leaves the cache valid.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / CACHE, framework="pt") as cache:
            cached_stamps = json.loads((cache.metadata() or {}).get("read_from", "{}"))
            stamps = file_stamps(folder / "raw")
            if not cached_stamps or any(cached_stamps.get(file) != stamp for file, stamp in stamps.items()):
                return None
            # Cloned, because a view of a file that is truncated later would crash the process.
            arrays = {name: cache.get_tensor(name).clone() for name in SHAPES}
    except (OSError, SafetensorError, ValueError, AttributeError):
        return None
    valid = all(
        array.shape == SHAPES[name] and array.dtype == torch.uint8 and is_plausible(array)
        for name, array in arrays.items()
    )
    return arrays if valid else None


def write_cache(folder: Path, work: Path, arrays: Arrays) -> None:
    """Write the cache as a whole, through the folder `work`; where the disk is full, leave the folder without one."""
    from safetensors.torch import save

    with suppress(OSError):
        content = save(arrays, metadata={"read_from": json.dumps(file_stamps(folder / "raw"))})
        atomic.write(work / CACHE, content)
        os.replace(work / CACHE, folder / CACHE)
