"""MNIST and Fashion-MNIST: four published archives, checked once, then one file that loads in a blink.

    path/MNIST/raw/*.gz              as published; put there by you, or downloaded by torchvision
    path/MNIST/aetrain.safetensors   what is in them, and the size and time of the files it was read from

Many processes may start at once on an empty folder, and any of them may be killed: one at a time builds, whatever it
writes is renamed into place when it is whole, and the next one sweeps up.
"""

import errno
import gzip
import hashlib
import json
import logging
import math
import os
import shutil
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

from aetrain.data.dataset import Dataset, Images

log = logging.getLogger(__name__)

# The four idx files, and what is in each; an archive is the same name with .gz.
SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
CACHE = "aetrain.safetensors"

# How long a silent network is waited for. A mirror has up to eight addresses, and each is tried for this long.
PATIENCE = 6.0

Arrays = dict[str, Tensor]  # uint8, named and shaped as in SHAPES


class Unusable(Exception):
    """An archive that is missing or not what was published; says why."""


@dataclass(kw_only=True)
class Archives(Dataset):
    """A data set published as four idx archives of 28x28 grey images, 60000 to train on and 10000 to test with.

    `path` is the folder that holds `<name>/raw`; what is not there is downloaded into it.
    """

    path: str
    classes: ClassVar[tuple[str, ...]] = ()  # what the labels stand for, where that is more than their number
    name: ClassVar[str]  # of the folder, and of the class in torchvision that knows the mirrors and the MD5 sums

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 28, 28)."""
        return 1, 28, 28

    def read(self) -> tuple[Images, Images]:
        """The cached images where they are up to date, else those of the archives, verified and cached."""
        folder = Path(os.path.expanduser(self.path)).absolute() / self.name
        for place in (folder.parent, folder, folder / "raw"):
            if os.path.exists(place) and not os.path.isdir(place):
                raise ValueError(f"path={self.path!r}: {place} is a file; use the folder that holds {self.name}/raw")
        arrays = read_cache(folder) or self._build(folder)
        train_images, train_labels, test_images, test_labels = (arrays[name] for name in SHAPES)
        return (
            Images(train_images.unsqueeze(1), train_labels.long(), self.classes),  # [60000, 1, 28, 28], [60000]
            Images(test_images.unsqueeze(1), test_labels.long(), self.classes),
        )

    def _build(self, folder: Path) -> Arrays:
        with ExitStack() as stack:
            try:
                work = stack.enter_context(alone_in(folder))
            except OSError as reason:
                # A shared folder that only its owner may write to: read it, keep nothing.
                return self._unpack(folder / "raw", None, f"{folder} cannot be written to ({reason.strerror})")
            if (arrays := read_cache(folder)) is None:  # nobody else built it while we waited
                arrays = self._unpack(folder / "raw", work)
                write_cache(folder, work, arrays)
            return arrays

    def _unpack(self, raw: Path, work: Path | None, obstacle: str = "") -> Arrays:
        """The four arrays; what is missing or damaged is downloaded by way of `work`, or where None, refused."""
        import torchvision.datasets

        published = getattr(torchvision.datasets, self.name)
        arrays = {}
        for archive, md5 in published.resources:
            name = archive.removesuffix(".gz")
            try:
                arrays[name] = parse(raw, name, md5)
            except Unusable as problem:
                try:
                    if work is None:
                        raise Unusable(obstacle) from None
                    log.info("downloading %s to %s", archive, raw)
                    download(archive, md5, published.mirrors, work)
                    arrays[name] = parse(work, name, md5)
                except Unusable as reason:
                    raise ValueError(self._advice(raw, name, str(problem), str(reason))) from None
                # Kept at once: if the next one fails, this one need not be fetched again.
                with suppress(OSError):
                    raw.mkdir(exist_ok=True)
                    os.replace(work / archive, raw / archive)
        return arrays

    def _advice(self, raw: Path, name: str, problem: str, reason: str) -> str:
        missing = [f"{other}.gz" for other in SHAPES if source(raw, other) is None]
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


def source(raw: Path, name: str) -> Path | None:
    """The file to read `name` from: the archive, whose MD5 sum is known, before the unpacked file."""
    return next((file for file in (raw / f"{name}.gz", raw / name) if os.path.isfile(file)), None)


def parse(raw: Path, name: str, md5: str) -> Tensor:
    """The array `name` in `raw`, from its verified archive or else from the unpacked file; `Unusable` if neither is.

    An idx file is two zeros, 8 for uint8, the number of dimensions, the dimensions as int32, the values.
    """
    file = source(raw, name)
    if file is None:
        raise Unusable(f"{raw / name}.gz is missing")
    try:
        idx = file.read_bytes()
    except OSError as reason:
        raise Unusable(f"{file} cannot be read ({reason.strerror})") from None
    if file.suffix == ".gz":
        if hashlib.md5(idx, usedforsecurity=False).hexdigest() != md5:
            raise Unusable(f"{file} is damaged (its MD5 sum is not the published one)")
        idx = gzip.decompress(idx)
    shape = SHAPES[name]
    header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}i", *shape)
    if not idx.startswith(header) or len(idx) != len(header) + math.prod(shape):
        raise Unusable(f"{file} is damaged (it does not hold {'x'.join(map(str, shape))} bytes)")
    array = torch.frombuffer(bytearray(idx), dtype=torch.uint8, offset=len(header)).reshape(shape)
    if not plausible(array):
        raise Unusable(f"{file} is damaged (it holds labels above 9)")
    return array


def plausible(array: Tensor) -> bool:
    """Whether labels [N] are classes 0..9; images [N, H, W] are always."""
    return array.dim() > 1 or int(array.max()) <= 9


def download(archive: str, md5: str, mirrors: list[str], folder: Path) -> None:
    """`archive` into `folder`, from the first mirror that has it, MD5-checked; else `Unusable`."""
    from torchvision.datasets.utils import download_url

    reasons = []
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision sets none, and would wait for ever
    try:
        for mirror in mirrors:
            try:
                download_url(f"{mirror}{archive}", str(folder), archive, md5)
                return
            except (OSError, RuntimeError, HTTPException) as reason:  # no network, a bad copy, a broken server
                reasons.append(str(reason) or type(reason).__name__)
    finally:
        socket.setdefaulttimeout(patience)
    raise Unusable(f"it could not be downloaded ({'; '.join(dict.fromkeys(reasons))})")


@contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """A private empty folder inside `folder`, for one process at a time; no trace of it stays. OSError if read-only."""
    from filelock import FileLock

    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.stat().st_mode & 0o222:  # which stops everybody but the superuser, and is meant for them, too
        raise PermissionError(errno.EACCES, "it is marked read-only")
    lock, work = folder / ".building.lock", folder / ".building"
    try:
        with FileLock(lock):
            try:
                shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
                work.mkdir()
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
                # Last, and still locked: whoever waits for a lock file that is gone makes a new one.
                with suppress(OSError):
                    lock.unlink()
    finally:
        for place in made:
            with suppress(OSError):  # not empty, as it should be
                place.rmdir()


def stamps(raw: Path) -> dict[str, list[int]]:
    """Size and time of change of the files that would be read, by name."""
    found = {}
    for name in SHAPES:
        if (file := source(raw, name)) is not None:
            status = file.stat()
            found[file.name] = [status.st_size, status.st_mtime_ns]
    return found


def read_cache(folder: Path) -> Arrays | None:
    """The cached arrays; None where there are none, they are broken, or the archives have changed since.

    An archive that was deleted since changes nothing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / CACHE, framework="pt") as cache:
            read_from = json.loads((cache.metadata() or {}).get("read_from", "{}"))
            if not read_from or any(read_from.get(file) != stamp for file, stamp in stamps(folder / "raw").items()):
                return None
            # Cloned: a view into the file would die with the file.
            arrays = {name: cache.get_tensor(name).clone() for name in SHAPES}
    except (OSError, SafetensorError, ValueError, AttributeError):
        return None
    whole = all(
        array.shape == SHAPES[name] and array.dtype == torch.uint8 and plausible(array)
        for name, array in arrays.items()
    )
    return arrays if whole else None


def write_cache(folder: Path, work: Path, arrays: Arrays) -> None:
    """Write the cache whole or not at all; a full disk costs the cache, not the run."""
    from safetensors.torch import save

    with suppress(OSError):
        with open(work / CACHE, "wb") as file:
            file.write(save(arrays, metadata={"read_from": json.dumps(stamps(folder / "raw"))}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(work / CACHE, folder / CACHE)
