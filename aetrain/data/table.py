"""A data set of a user's own table in a file."""

from dataclasses import dataclass, replace
from typing import final

from aetrain.data.mapped_vectors import map_large_npy, map_table
from aetrain.data.table_content import TableContent, number_table_labels
from aetrain.data.table_files import read_table_file
from aetrain.data.vector_dataset import ColumnsDataset


@final
@dataclass(kw_only=True)
class Table(ColumnsDataset):
    """The table in a file `path`: .csv, .csv.gz, .tsv, .parquet (needs pyarrow), .npy or .npz.

    The first line of a text file names the columns; its separator is the commonest of `,`, `;`, tab and `|` in it. An
    empty entry, `?`, NA and NaN are missing values. `encoding` is that of a text file. An .npy file has numbers [N, D]
    or records; numbers of 64 MiB and more stay in the file. An .npz file has arrays named as those of `Npz`, and
    `feature_names` where they have names.
    """

    path: str
    encoding: str = "utf-8"

    @property
    def source(self) -> str:
        """The beginning of a message about the file."""
        return f"path={self.path!r}: "

    def read_content(self) -> TableContent:
        """Return the table in the file."""
        if self.can_map and (array := map_large_npy(self.path)) is not None:
            return map_table([array], self.label, self.drop, None)
        conversions: list[str] = []
        warnings: list[str] = []
        file = read_table_file(self.path, self.encoding, conversions.append, warnings.append)
        content = self.separate(file.frame, file.splits)
        if file.labels is not None and content.labels is None:
            labels, class_names = number_table_labels(file.labels)
            content = replace(content, labels=labels, class_names=class_names)
        return replace(
            content,
            conversions=[*conversions, *content.conversions],
            warnings=[*warnings, *content.warnings],
        )
