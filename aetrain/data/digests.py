"""Digests of the data of a run. A later command compares them with those of its own data and names the difference."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Splits, Values
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.sparse_rows import SparseRows
from aetrain.model.records import noun_of
from aetrain.storage.hashing import digest

MAX_FILES = 100_000  # a larger folder has no digest of each file
MAX_NAMES_SHOWN = 3

# The digests of a split, and their words.
CONTENTS = {
    "pixels": "pixels",
    "labels": "classes",
    "names": "file names",
    "targets": "held-out values",
    "features": "names of features",
}


@dataclass(frozen=True)
class DataDigests:
    """The digests of a run's images.

    `splits` has the number and the shape of the images of each split, and digests of pixels, labels and file names.
    `files` has a digest of each image file by its name, None for a file that was not used, as with dataset.subset. It
    is empty where the images are no files, or too many.
    """

    splits: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str | None] = field(default_factory=dict)

    def describe_change(self, before: "DataDigests") -> str:
        """Return in what the images differ from those `before`; an empty string where they are the same."""
        if self.splits == before.splits:
            return ""
        changes = _describe_files(before.files, self.files) if before.files and self.files else []
        if not changes:
            names = {**before.splits, **self.splits}
            changes = [_describe_split(name, before.splits.get(name), self.splits.get(name)) for name in names]
        return ", ".join(change for change in changes if change)


def digest_data(splits: Splits) -> DataDigests:
    """Return the digests of the images of all splits."""
    by_name = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    used = {name: images for name, images in by_name.items() if len(images)}
    files: dict[str, str | None] = {}
    if len(splits.test.file_names) <= MAX_FILES:
        files |= dict.fromkeys(splits.test.file_names)
        for images in used.values():
            files |= _digest_files(images)
    return DataDigests({name: _digest_images(images) for name, images in used.items()}, files)


def _digest_images(images: Examples) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": len(images),
        "shape": list(images.values.shape[1:]),
        "pixels": digest_values(images.values),
        "labels": "" if images.labels is None else digest(images.labels),
        "names": digest(images.names) if images.file_names else "",
    }
    if images.kind != "image":
        content["kind"] = images.kind
    if images.targets is not None:
        content["targets"] = digest_values(images.targets)
    if images.feature_names:
        content["features"] = digest(images.feature_names)
    return content


def digest_values(values: Values) -> str:
    """Return a digest of values and their shape, missing ones (NaN) included."""
    if isinstance(values, Tensor):
        return digest(values)
    if isinstance(values, MappedRows):
        return digest(*values.content())
    return digest(str(values.shape), *map(torch.from_numpy, values.arrays()))


def _digest_files(images: Examples) -> dict[str, str]:
    """Return a digest of the pixels of each image by its file name; empty where the images have no names."""
    if isinstance(images.values, SparseRows):
        return {}
    if isinstance(images.values, MappedRows):
        return {name: f"{checksum:08x}" for name, checksum in zip(images.names, images.values.checksums(), strict=True)}
    rows = images.values.flatten(1).cpu().numpy()
    return {name: f"{zlib.crc32(rows[number].data):08x}" for number, name in enumerate(images.names)}


def _describe_files(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> list[str]:
    """Return a phrase about the files that were added, one about those removed, and one about those changed."""
    used = [name for name in now if before.get(name) and now[name]]
    changes = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": [name for name in used if before[name] != now[name]],
    }
    return [_count_files(names, verb) for verb, names in changes.items() if names]


def _count_files(names: Sequence[str], verb: str) -> str:
    more = ", ..." if len(names) > MAX_NAMES_SHOWN else ""
    noun = "file was" if len(names) == 1 else "files were"
    return f"{len(names):,} {noun} {verb} ({', '.join(sorted(names)[:MAX_NAMES_SHOWN])}{more})"


def _describe_split(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """Return in what a split differs, such as `359 test images then, 400 now`; an empty string where it does not."""
    if before == now:
        return ""
    noun = noun_of((now or before or {}).get("kind", "image"))
    count_before, count_now = (0 if split is None else split["images"] for split in (before, now))
    if before is None or now is None or count_before != count_now:
        return f"{count_before:,} {name} {noun}s then, {count_now:,} now"
    if before["shape"] != now["shape"]:
        return f"{name} {noun}s of shape {before['shape']} then, {now['shape']} now"
    words = CONTENTS if noun == "image" else {**CONTENTS, "pixels": "values"}
    differing = [word for key, word in words.items() if before.get(key) != now.get(key)]
    return f"other {' and '.join(differing)} of the {count_now:,} {name} {noun}s"
