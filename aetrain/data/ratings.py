"""Ratings of a user's own file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from aetrain.data.rating_dataset import RatingDataset
from aetrain.data.rating_files import Columns, RatingTable, read_ratings


@final
@dataclass(kw_only=True)
class Ratings(RatingDataset):
    """Ratings of the file `path`: a user, an item, a rating and, where known, a time in each row.

    `user`, `item`, `rating` and `time` name the columns in the header, or are their places from 1; null for those with
    a usual name. `encoding` is that of the text; null for UTF-8.
    """

    path: str
    user: str | int | None = None
    item: str | int | None = None
    rating: str | int | None = None
    time: str | int | None = None
    encoding: str | None = None

    def read_table(self) -> tuple[RatingTable, list[str]]:
        """Return all ratings of the file, and sentences about their conversion.

        Raise ValueError, with the line, where one cannot be read.
        """
        limits = None if self.rating_range is None else (self.rating_range[0], self.rating_range[1])
        columns = Columns(self.user, self.item, self.rating, self.time)
        table, repeated = read_ratings(Path(os.path.expanduser(self.path)), columns, self.encoding, limits)
        sentences = [repeated] if repeated else []
        if self.split == "last" and table.times is None:
            sentences.append("the file has no times: the last ratings of a user are the last ones in the file")
        return table, sentences
