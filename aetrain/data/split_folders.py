"""Files in a folder whose subfolders may be the splits and the classes, such as images or texts."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aetrain.data.dataset import Dataset
from aetrain.data.split_names import resembles_split, split_of
from aetrain.data.user_files import describe_path, quote_names, test_count


class File(NamedTuple):
    """A file, and its path below the folder of its split."""

    path: Path
    relative_path: str


@dataclass(frozen=True)
class SplitFolders:
    """The files below the folder `path` whose names end in one of `suffixes`; `noun` is their word, in the plural.

    Folders `train` (or `training`), `test` (`testing`) and `val` (`valid`, `validation`) inside `path`, in any case,
    are the splits; without `test`, `test_fraction` of the training files are for testing.
    """

    path: str
    suffixes: frozenset[str]
    noun: str
    test_fraction: float

    @property
    def top(self) -> Path:
        """The folder."""
        return Path(os.path.expanduser(self.path))

    @property
    def advice(self) -> str:
        """The end of a message about a folder without files."""
        suffixes = ", ".join(sorted(suffix[1:] for suffix in self.suffixes))
        return f"put {self.noun.removesuffix('s')} files there ({suffixes})"

    def files(self, dataset: Dataset) -> list[list[File]]:
        """Return the files of training, test and, where there is a folder for it, validation, in a mixed order.

        Add messages to the data set. Raise ValueError where there are none.
        """
        if not os.path.isdir(self.top):
            raise ValueError(f"path={self.path!r} {describe_path(self.top)}: use a folder of {self.noun}")
        folders = self._split_folders()
        splits = {split: self._files_below(folder) for split, folder in folders.items()}
        for split, files in splits.items():
            if not files:
                raise ValueError(f"path={self.path!r}: no {self.noun} in {folders[split]}; {self.advice}")
        if folders:
            self._check_other_files(list(folders.values()), dataset)
        train = splits.get("train") or self._files_below(self.top)
        if not folders:
            self._warn_of_folders_like_splits(train, dataset)
        test = splits.get("test")
        if test is None:
            train, test = self._cut_test_files(train, folders.get("train"), dataset)
        if "validation" not in splits:
            return [train, test]
        dataset.check_own_validation(f"folder {folders['validation'].name!r}")
        return [train, test, splits["validation"]]

    def _split_folders(self) -> dict[str, Path]:
        """Return the folders of the splits by the split's name; none where there is no folder of training files."""
        folders: dict[str, Path] = {}
        for folder in sorted(self.top.iterdir()):
            split = split_of(folder.name)
            if split is None or not folder.is_dir():
                continue
            if split in folders:
                raise ValueError(
                    f"path={self.path!r} has the folders {folders[split].name!r} and {folder.name!r}, which are both "
                    f"for {split} {self.noun}: keep one"
                )
            folders[split] = folder
        if "train" in folders:
            return folders
        if "test" in folders:
            # Read as a class it would be the only one, and its files would be in both splits.
            name = folders["test"].name
            raise ValueError(f"path={self.path!r} has a folder {name!r} only: use both 'train' and 'test'")
        return {}

    def _check_other_files(self, folders: Sequence[Path], dataset: Dataset) -> None:
        """Warn of files beside the folders of the splits, which are not read.

        Raise ValueError where the only folder of a split may be a class among others.
        """
        others = [path for path in sorted(self.top.iterdir()) if path not in folders and self._has_files(path)]
        if not others:
            return
        names, read = quote_names([path.name for path in others]), quote_names([path.name for path in folders])
        if len(folders) == 1:
            raise ValueError(
                f"path={self.path!r} has a folder {read} only, beside {names}: use both 'train' and 'test', or rename "
                f"{read} if it is a class"
            )
        dataset.add_warning(f"{self.path}: only {read} are read, as the splits, without {names}")

    def _warn_of_folders_like_splits(self, files: Sequence[File], dataset: Dataset) -> None:
        """Warn of folders that suggest a split, but are read as folders of any name: as classes, or with the others."""
        names = set()
        for file in files:
            top, *below = file.relative_path.split("/")[:-1] or [""]
            names |= {name for name in below if split_of(name)} | ({top} if resembles_split(top) else set())
        if names:
            dataset.add_warning(
                f"{self.path}: the {self.noun} in {quote_names([*names])} are read like all others, not as a split: "
                "the folders of splits are 'train', 'test' and 'val', directly in dataset.path"
            )

    def _cut_test_files(
        self, files: list[File], folder: Path | None, dataset: Dataset
    ) -> tuple[list[File], list[File]]:
        """Return training and test files out of `files`, which are those of the folder `train` or of all folders."""
        if not files:
            raise ValueError(f"path={self.path!r}: no {self.noun} there; {self.advice}")
        count = test_count(len(files), self.test_fraction)
        if folder is not None:
            dataset.add_conversion(
                f"{self.path} has no folder 'test': {count:,} of the {len(files):,} {self.noun} in {folder.name!r} are "
                f"for test (dataset.test_fraction={self.test_fraction:g})"
            )
        return files[count:], files[:count]

    def _has_files(self, path: Path) -> bool:
        """Tell whether a path is one of the visible files or a folder with one anywhere below."""
        if path.name.startswith("."):
            return False
        if not path.is_dir():
            return path.suffix.lower() in self.suffixes
        return any(file.suffix.lower() in self.suffixes for file in visible_files(path))

    def _files_below(self, top: Path) -> list[File]:
        """Return the files below `top` in a mixed order that depends only on their paths below `top`.

        It is the order of the paths' hashes, so that an added file does not change the order of the others.
        """
        files = [File(path, path.relative_to(top).as_posix()) for path in visible_files(top)]
        files = [file for file in files if file.path.suffix.lower() in self.suffixes]
        return sorted(files, key=lambda file: blake2b(file.relative_path.encode(errors="surrogateescape")).digest())


def paths_below(top: str, files: Sequence[File]) -> list[str]:
    """Return the paths of files below the folder `top`."""
    folder = Path(os.path.expanduser(top))
    return [file.path.relative_to(folder).as_posix() for file in files]


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
    """Raise ValueError about a folder that cannot be listed, because its files would be missing."""
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}): make it readable or remove it")


def class_labels(files: Sequence[File]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the class [N] of each file, which is the number of its folder, and the classes' names.

    Return (None, ()) where the folders are no classes.
    """
    folders = [file.relative_path.split("/")[0] if "/" in file.relative_path else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2 or None in folders:
        return None, ()
    return torch.tensor([names.index(folder) for folder in folders if folder is not None]), tuple(names)
