"""20 Newsgroups: posts of 20 groups of Usenet, of scikit-learn or of a file."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal, final

from aetrain.data.documents import Documents, TextTable
from aetrain.data.published_dataset import NETWORK_TIMEOUT_S, socket_timeout
from aetrain.data.text import Source, TextDataset
from aetrain.data.user_files import describe_error

Part = Literal["headers", "footers", "quotes"]


@dataclass(frozen=True)
class PublishedPosts:
    """The posts that scikit-learn downloads into a folder, split by date, without the parts in `remove`."""

    folder: Path
    remove: tuple[Part, ...]

    def read(self) -> Documents:
        """Return the posts. Raise ValueError where they are not in the folder and cannot be downloaded."""
        from sklearn.datasets import fetch_20newsgroups

        texts: list[str] = []
        labels: list[str] = []
        splits: list[str] = []
        for split in ("train", "test"):
            try:
                # scikit-learn prints a traceback where a file in its cache is damaged, and downloads it again.
                with socket_timeout(NETWORK_TIMEOUT_S), contextlib.redirect_stdout(io.StringIO()):
                    posts = fetch_20newsgroups(
                        data_home=self.folder, subset=split, shuffle=False, remove=self.remove, n_retries=1
                    )
            except (OSError, HTTPException, EOFError, ValueError) as error:
                raise ValueError(
                    f"20 Newsgroups is not in data_dir={str(self.folder)!r} and could not be downloaded "
                    f"({describe_error(error)}): run once on a machine with a network, or set dataset.path to a local "
                    "file with the columns split, label and text"
                ) from None
            texts += posts.data
            labels += [posts.target_names[number] for number in posts.target]
            splits += [split] * len(posts.data)
        return Documents(texts, labels, splits)


@final
@dataclass(kw_only=True)
class Newsgroups(TextDataset):
    """20 Newsgroups (Lang 1995), split by date: the 18,846 posts that scikit-learn downloads into `data_dir`.

    `remove` are the parts of posts that are left out, since they tell the group or repeat another post. `path` is a
    local file to read instead, .csv, .tsv or .jsonl (also as .gz), with the columns split, label and text.
    """

    data_dir: str
    path: str | None = None
    remove: Sequence[Part] = ("headers", "footers", "quotes")

    def source(self) -> Source:
        """Return the local file, or the posts of scikit-learn."""
        if self.path is not None:
            return TextTable(self.path)
        return PublishedPosts(Path(self.data_dir).expanduser().absolute(), tuple(self.remove))
