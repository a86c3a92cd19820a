"""Decode image files in parallel; many of them once, into a file that is memory-mapped.

Shapes: N images, B batch, C channels.
"""

import io
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aetrain.data.image_reader import ImageReader, decoder_warnings
from aetrain.data.mapped_rows import MappedArray
from aetrain.data.user_files import Array, describe_error
from aetrain.storage import atomic
from aetrain.storage.hashing import digest
from aetrain.storage.locks import exclusive_work_folder
from aetrain.utils.cores import usable_cores

log = logging.getLogger("aetrain")

FORMAT = 2  # of the cache: another number makes new ones
FILES_PER_TASK = 256
PIXELS, CHECKSUMS, READER = "pixels.npy", "checksums.npy", "reader.json"
BASE = "decoded"  # the folder of all caches in `data_dir`


@dataclass
class ImageDecoder:
    """Decode the image files `paths` in their order, on all cores, with a progress bar on a terminal.

    After a pass, `reader` remembers what all files were, and `unreadable` has the files that cannot be read.
    """

    paths: Sequence[Path]
    reader: ImageReader
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Array]:
        """Yield pixels uint8 [B, C, size, size]; those of a file that cannot be read are 0."""
        from tqdm import tqdm

        parts = [self.paths[start : start + FILES_PER_TASK] for start in range(0, len(self.paths), FILES_PER_TASK)]
        num_threads = min(usable_cores().number, len(parts)) or 1
        progress = tqdm(total=len(self.paths), desc="decoding images", leave=False, mininterval=0.2, disable=None)
        with decoder_warnings(), progress, ThreadPoolExecutor(num_threads) as pool:
            for pixels, reader, unreadable in pool.map(self._decode, parts):
                self.reader.add(reader)
                self.unreadable += unreadable
                progress.update(len(pixels))
                yield pixels

    def _decode(self, paths: Sequence[Path]) -> tuple[Array, ImageReader, list[tuple[Path, str]]]:
        reader = self.reader.fresh()
        pixels = np.zeros((len(paths), reader.channels, reader.size, reader.size), np.uint8)
        unreadable = []
        for number, path in enumerate(paths):
            try:
                pixels[number] = reader(path)
            except Exception as error:  # decoders raise any exception about a file of another format
                unreadable.append((path, describe_error(error)))
        return pixels, reader, unreadable

    def check(self, source: str) -> None:
        """Raise ValueError where a file cannot be read."""
        if self.unreadable:
            path, reason = min(self.unreadable)
            pronoun = "it" if len(self.unreadable) == 1 else "them"
            raise ValueError(
                f"path={source!r}: {len(self.unreadable)} of {len(self.paths)} images cannot be read: remove {pronoun};"
                f" the first is {path} ({reason})"
            )


@dataclass(frozen=True)
class ImageCache:
    """The decoded images of a folder, in a folder of `data_dir` that is named by a digest of all that determines them.

    These are the files' names, sizes and times, the settings of the reader, and the version of Pillow. The cache of
    a folder that was changed is another one; it can be deleted at any time.
    """

    data_dir: str
    source: str  # the folder of the files
    names: Sequence[str]  # of the files, below `source`
    paths: Sequence[Path]
    reader: ImageReader  # its settings

    def load(self) -> tuple[MappedArray, ImageReader]:
        """Return the images in the order of the files, and the reader after reading them; decode them the first time.

        Raise ValueError where a file cannot be read, or the cache cannot be written.
        """
        folder = self._folder()
        if (images := self._read(folder)) is not None:
            return images
        try:
            with exclusive_work_folder(folder.parent) as work:
                # Another process may have written it while this one waited for the lock.
                if (images := self._read(folder)) is None:
                    self._write(work)
                    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
                    os.replace(work, folder)
        except OSError as error:
            raise ValueError(
                f"data_dir={self.data_dir!r} cannot take the decoded images ({error.strerror or error}): set data_dir "
                f"(or AETRAIN_DATA) to a folder with {self.num_bytes / 2**30:.1f} GiB of space, or use a smaller "
                "dataset.size"
            ) from error
        images = images or self._read(folder)
        if images is None:
            raise ValueError(f"{folder} was removed while it was written: run again")
        return images

    @property
    def num_bytes(self) -> int:
        """The size of the decoded images."""
        return len(self.paths) * self.reader.num_bytes

    def _folder(self) -> Path:
        import PIL

        stats = map(Path.stat, self.paths)
        files = (f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in zip(self.names, stats, strict=True))
        settings = (FORMAT, PIL.__version__, self.reader.size, self.reader.channels, self.reader.white)
        key = digest("\n".join(files), settings)[:24]
        return Path(self.data_dir).expanduser() / BASE / key

    def _read(self, folder: Path) -> tuple[MappedArray, ImageReader] | None:
        """Return the content of a cache; None where there is none or it is damaged."""
        try:
            pixels = np.load(folder / PIXELS, mmap_mode="r")
            checksums = np.load(folder / CHECKSUMS)
            reader = self.reader.fresh()
            reader.restore(json.loads((folder / READER).read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        if len(pixels) != len(self.paths) or len(checksums) != len(self.paths):
            return None
        return MappedArray(np.asarray(pixels), folder.name, checksums=checksums), reader

    def _write(self, work: Path) -> None:
        """Decode the images into files in the folder `work`, which are on the disk at the end."""
        log.info("decoding %s images of %s into %s, once", f"{len(self.paths):,}", self.source, self.data_dir)
        decoder, checksums = ImageDecoder(self.paths, self.reader.fresh()), []
        shape = (len(self.paths), self.reader.channels, self.reader.size, self.reader.size)
        header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with (work / PIXELS).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in decoder:
                file.write(pixels.data)
                checksums += [zlib.crc32(image.data) for image in pixels]
            file.flush()
            os.fsync(file.fileno())
        decoder.check(self.source)
        content = io.BytesIO()
        np.save(content, np.array(checksums, dtype=np.uint32))
        atomic.write(work / CHECKSUMS, content.getvalue())
        atomic.write(work / READER, json.dumps(decoder.reader.state()).encode())
