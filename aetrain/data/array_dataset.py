"""The data sets of the arrays that a program in Python passes: vectors and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.arrays import ImageArray, stored_image_shape, to_tensor
from aetrain.data.columns import Columns
from aetrain.data.examples import Examples
from aetrain.data.image_dataset import ImageDataset
from aetrain.data.mapped_rows import MappedRows
from aetrain.data.mapped_vectors import is_mapped_table, map_table
from aetrain.data.npy_files import map_images
from aetrain.data.program_data import ProgramData, as_numpy, current_data
from aetrain.data.rows import concatenate
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.split_rows import split_rows
from aetrain.data.table_content import TableContent, number_table_labels
from aetrain.data.table_files import array_frame
from aetrain.data.user_files import check_fraction
from aetrain.data.vector_dataset import ColumnsDataset
from aetrain.model.records import Kind

NO_DATA = (
    "its data are arrays of a program in Python: pass them again, as in aetrain.run(..., data=X) or "
    "aetrain.load(run, data=X); for a file use dataset=table or dataset=npz"
)


def is_sparse(values: Any) -> bool:
    """Tell whether values are a sparse matrix of SciPy."""
    return hasattr(values, "tocsr")


def is_mapped(values: Any) -> bool:
    """Tell whether values are bytes or bools in a file, as of numpy.load(..., mmap_mode="r")."""
    return isinstance(values, np.memmap) and values.dtype in (np.uint8, np.bool_)


@final
@dataclass(kw_only=True)
class Array(ColumnsDataset):
    """Vectors of a program: an array or tensor [N, D], a pandas DataFrame with columns, or a sparse matrix [N, D].

    A sparse matrix stays sparse, which needs `scaling=none`. Numbers of a numpy.memmap stay in their file.
    """

    data: ProgramData | None = field(default_factory=current_data, init=False, repr=False, compare=False)

    def read_content(self) -> TableContent:
        """Return the columns of the arrays of all splits."""
        data = _require(self.data)
        parts = list(data.splits.values())
        if len(widths := {tuple(part.shape[1:]) for part in parts}) > 1:
            raise ValueError(f"data has rows of the shapes {' and '.join(map(str, widths))}: use one")
        if is_sparse(parts[0]):
            content = self._sparse_content(parts)
        elif self.can_map and all(map(is_mapped_table, parts)):
            content = map_table(parts, self.label, self.drop, data.split_names())
        else:
            import pandas as pd

            frame = pd.concat([_to_frame(part) for part in parts], ignore_index=True)
            content = self.separate(frame, data.split_names())
        labels = data.joined_labels()
        if labels is None:
            return replace(content, splits=content.splits if content.splits is not None else data.split_names())
        if content.labels is not None:
            raise ValueError(f"label={self.label} and labels=... both name the labels: use one")
        numbered, class_names = number_table_labels(labels)
        return replace(content, labels=numbered, class_names=class_names)

    def make_columns(self, content: TableContent) -> Columns:
        """Return the columns; those of a sparse matrix have numbers in place of names."""
        if isinstance(content.rows, SparseRows):
            return Columns.numbered(content.rows.shape[-1])
        return super().make_columns(content)

    def _sparse_content(self, parts: Sequence[Any]) -> TableContent:
        import pandas as pd
        from scipy.sparse import csr_array, vstack

        if self.scaling != "none":
            raise ValueError(f"scaling={self.scaling} would fill a sparse matrix: use dataset.scaling=none")
        if self.label is not None or self.drop or self.categorical:
            raise ValueError("a sparse matrix has no names of columns: use label=null, drop=[] and categorical=[]")
        matrix = csr_array(vstack(parts)).astype(np.float32)
        if not np.isfinite(matrix.data).all():
            raise ValueError("the sparse matrix has entries that are not finite: remove them")
        return TableContent(pd.DataFrame(), splits=_require(self.data).split_names(), rows=SparseRows(matrix))


@final
@dataclass(kw_only=True)
class ImagesOfArray(ImageDataset):
    """Images of a program: [N, H, W], [N, C, H, W] or [N, H, W, C] of uint8 0..255, bool, or floats in [0, 1].

    Floats are rounded to 8 bits. Bytes and bools of a numpy.memmap stay in their file.
    """

    kind: ClassVar[Kind] = "image"

    test_fraction: float = 0.1
    data: ProgramData | None = field(default_factory=current_data, init=False, repr=False, compare=False)
    _shape: tuple[int, int, int] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the arrays."""
        if self._shape is None:
            shapes = {stored_image_shape(part.shape) for part in _require(self.data).splits.values()}
            (shape, *others) = shapes
            if shape is None or others or 0 in shape:
                shapes_in_words = " and ".join(str(list(part.shape)) for part in _require(self.data).splits.values())
                raise ValueError(
                    f"data has the shape {shapes_in_words}: use images [N, H, W], [N, C, H, W] or [N, H, W, C] of one "
                    "size with 1 or 3 channels, or vectors [N, D]"
                )
            self._shape = shape
        return self._shape

    def read(self) -> tuple[Examples, ...]:
        """Return the images of all splits."""
        data = _require(self.data)
        parts = list(data.splits.values())
        read = self._map if all(map(is_mapped, parts)) else self._pixels
        pixels = concatenate([read(part) for part in parts])
        examples, labels = Examples(pixels, rows=torch.arange(len(pixels))), data.joined_labels()
        if labels is not None:
            numbered, class_names = number_table_labels(labels)
            examples = replace(examples, labels=torch.from_numpy(numbered), class_names=class_names)
        return split_rows(examples, data.split_names(), self.test_fraction)

    def describe_dark(self, largest: int) -> str:
        """Return the message about training images that are nearly black, of which the largest byte is `largest`."""
        return f"the largest pixel is {largest} of 255: the images are nearly black; pass bools, or floats in [0, 1]"

    def fitted_state(self) -> Mapping[str, Any]:
        """Return the shape, which no file states."""
        return {"shape": list(self.stored_shape)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the shape of a saved run."""
        channels, height, width = map(int, state["shape"])
        self._shape = channels, height, width

    def _map(self, values: Any) -> MappedRows:
        """Return images of a numpy.memmap, whose rows are read when they are needed."""
        white = 255.0 if values.dtype == np.uint8 else 1.0
        return map_images(np.asarray(values), Path(values.filename), self.stored_shape, white)

    def _pixels(self, values: Any) -> Tensor:
        """Return images as uint8 [N, C, H, W]."""
        array = ImageArray(values, self.stored_shape, "data")
        parts = [array.to_pixels(to_tensor(chunk)) for chunk in array.rows.chunks()]
        return torch.cat([part.mul_(255).round_().to(torch.uint8) for part in parts])


def _require(data: ProgramData | None) -> ProgramData:
    if data is None:
        raise ValueError(NO_DATA)
    return data


def _to_frame(values: Any) -> Any:
    """Return a frame, or an array or tensor [N, D] as one."""
    return values if hasattr(values, "columns") else array_frame(as_numpy(values), "data")
