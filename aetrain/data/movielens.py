"""MovieLens: ratings of films from GroupLens at the University of Minnesota.

    path/MovieLens/raw/ml-1m.zip    the archive as published; put there by the user, or downloaded
    path/MovieLens/ml-1m/           its ratings and titles, unpacked from the verified archive

Harper & Konstan (2015), "The MovieLens datasets: history and context", ACM TiiS 5(4).
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, final

from aetrain.data.published_dataset import ArchiveError, PublishedFile, download
from aetrain.data.rating_dataset import RatingDataset
from aetrain.data.rating_files import Columns, RatingTable, read_ratings, read_rows
from aetrain.data.user_files import describe_error, describe_path
from aetrain.storage.locks import exclusive_work_folder

log = logging.getLogger("aetrain")

ADDRESS = "https://files.grouplens.org/datasets/movielens"
NAME = "MovieLens"  # of the folder below `path`

# The SHA-256 digests of the archives; that of latest-small is the edition of September 2018.
DIGESTS = {
    "latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    "100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
}


class Layout(NamedTuple):
    """The files of a version of MovieLens."""

    ratings: str
    titles: str
    encoding: str
    delimiter: str | None  # of the titles; None for that of the file's name
    has_header: bool
    rating_range: tuple[float, float]


LAYOUTS = (
    Layout("ratings.csv", "movies.csv", "utf-8-sig", None, True, (0.5, 5.0)),
    Layout("u.data", "u.item", "latin-1", "|", False, (1.0, 5.0)),
    Layout("ratings.dat", "movies.dat", "latin-1", None, False, (1.0, 5.0)),
)
LAYOUT_OF: Mapping[str, Layout] = dict(zip(("latest-small", "100k", "1m"), LAYOUTS, strict=True))


@final
@dataclass(kw_only=True)
class MovieLens(RatingDataset):
    """Ratings of films; the names of the items are the titles.

    `version` is latest-small (100,836 ratings from 0.5 to 5), 100k or 1m (from 1 to 5). `path` is a folder with the
    files of one version, in whatever edition, or the folder of all data, into which the archive is downloaded.
    """

    path: str
    version: Literal["latest-small", "100k", "1m"] = "latest-small"

    def read_table(self) -> tuple[RatingTable, list[str]]:
        """Return all ratings, and sentences about their conversion.

        Raise ValueError where the files are neither there nor can be downloaded, or hold anything but ratings.
        """
        folder, layout = self._find_folder()
        limits = layout.rating_range if self.rating_range is None else (self.rating_range[0], self.rating_range[1])
        file = find_file(folder, layout.ratings)
        assert file is not None
        table, repeated = read_ratings(file, Columns(), layout.encoding, limits)
        return table, [repeated] if repeated else []

    def read_titles(self, item_names: Sequence[str]) -> tuple[str, ...]:
        """Return the titles of films by their numbers; the number where a film has no title."""
        folder, layout = self._find_folder()
        file = find_file(folder, layout.titles)
        if file is None:
            return tuple(item_names)
        titles = {}
        for number, (line, fields) in enumerate(read_rows(file, layout.encoding, layout.delimiter)):
            if number == 0 and layout.has_header:
                continue
            if len(fields) < 2:
                raise ValueError(f"{file} line {line} is no number and title of a film: fetch the file again")
            titles[fields[0].strip()] = fields[1].strip()
        return tuple(titles.get(name) or name for name in item_names)

    @property
    def archive_name(self) -> str:
        """The name of the archive without its ending, and of the folder in it."""
        return f"ml-{self.version}"

    def _find_folder(self) -> tuple[Path, Layout]:
        """Return the folder of the files and their layout; unpack or download the archive where there is none."""
        path = Path(os.path.expanduser(self.path)).absolute()
        if os.path.exists(path) and not os.path.isdir(path):
            raise ValueError(f"path={self.path!r} {describe_path(path)}: use the folder of {LAYOUTS[0].ratings}")
        known = [(path, layout) for layout in LAYOUTS]
        own_layout = LAYOUT_OF[self.version]
        known += [(path / parent / self.archive_name, own_layout) for parent in ("", "ratings", NAME)]
        for folder, layout in known:
            if find_file(folder, layout.ratings) is not None:
                return folder, layout
        return self._unpack(path / NAME), own_layout

    def _unpack(self, folder: Path) -> Path:
        """Return the folder with the files of the verified archive, which is downloaded where it is missing."""
        target = folder / self.archive_name
        try:
            with exclusive_work_folder(folder) as work:
                if target.is_dir():  # another process has unpacked it during the wait
                    return target
                archive = folder / "raw" / f"{self.archive_name}.zip"
                try:
                    self._extract(archive, work)
                except ArchiveError as problem:
                    self._download(archive, work, str(problem))
                os.replace(work / self.archive_name, target)
        except OSError as error:
            raise ValueError(self._advice(folder, f"{folder} cannot be written to ({error.strerror})")) from None
        return target

    def _download(self, archive: Path, work: Path, problem: str) -> None:
        try:
            log.info("downloading %s to %s", archive.name, archive.parent)
            download(PublishedFile(archive.name, None, [f"{ADDRESS}/{archive.name}"]), work)
            self._extract(work / archive.name, work)
        except ArchiveError as reason:
            raise ValueError(self._advice(archive.parent.parent, f"{problem}, and {reason}")) from None
        with suppress(OSError):
            archive.parent.mkdir(exist_ok=True)
            os.replace(work / archive.name, archive)

    def _extract(self, archive: Path, work: Path) -> None:
        """Write the ratings and the titles of an archive into work/NAME; ArchiveError where it is not as published."""
        if not archive.is_file():
            raise ArchiveError(f"{archive} is missing")
        with archive.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != DIGESTS[self.version]:
                raise ArchiveError(f"{archive} is damaged (its SHA-256 digest is not the published one)")
        layout, target = LAYOUT_OF[self.version], work / self.archive_name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            with zipfile.ZipFile(archive) as content:
                for name in (layout.ratings, layout.titles):
                    (target / name).write_bytes(content.read(f"{self.archive_name}/{name}"))
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise ArchiveError(f"{archive} is damaged ({describe_error(error)})") from None

    def _advice(self, folder: Path, problem: str) -> str:
        layout = LAYOUT_OF[self.version]
        return (
            f"path={self.path!r}: {problem}: put {self.archive_name}.zip of grouplens.org into {folder / 'raw'}, or "
            f"set dataset.path to a folder with {layout.ratings} and {layout.titles}"
        )


def find_file(folder: Path, name: str) -> Path | None:
    """Return a file in a folder, packed with gzip or not; None where there is none."""
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
