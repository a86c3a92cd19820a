"""A view of nearest neighbours: images, and the images most similar to them by pixels and by the code."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from aetrain.evaluation.measures.baselines import nearest_rows
from aetrain.views.annotations import Annotations, pixel_key
from aetrain.views.context import ViewContext
from aetrain.views.image_grids import interleave_classes
from aetrain.views.view import Picture, check_positive, grid_picture


@final
@dataclass(frozen=True)
class Neighbours:
    """Two rows for each query image: its nearest images of the context by pixels, and below by the code.

    The query is the first image of a row; `columns` neighbours follow. A missing pixel counts as its mean. With labels,
    the queries are the first images of each class in the order of the classes.
    """

    description: ClassVar[str] = (
        "Images, each with its nearest images by pixels in one row and by the code in the next."
    )

    count: int = 5
    columns: int = 8

    def __post_init__(self) -> None:
        check_positive(count=self.count, columns=self.columns)

    def __call__(self, context: ViewContext) -> Picture:
        query = interleave_classes(context.labels, len(context.x))[: self.count].to(context.x.device)
        spaces = (context.filled.flatten(1), context.z.nan_to_num(0, 0, 0))
        neighbours = [nearest_other_rows(rows, query, self.columns) for rows in spaces]
        index = torch.stack([torch.cat([query[:, None], row], dim=1) for row in neighbours], dim=1)  # [Q, 2, 1 + k]
        captions = ["pixels", "code"] * len(query)
        class_note = " The class of an image is above it." if context.labels is not None else ""
        annotations = Annotations(
            f"Nearest neighbours of {context.split} images",
            rows=[f"by {caption}" for caption in captions],
            x_axis="rank of the neighbour",
            columns=["image", *map(str, range(1, index.shape[2]))],
            tiles=context.class_labels(index.flatten()),
            note=f"{self.description}{class_note}",
            **pixel_key(context.x),
        )
        return grid_picture(context.x[index.flatten()], annotations, index.shape[2], captions)


def nearest_other_rows(rows: Tensor, query: Tensor, count: int) -> Tensor:
    """Return the indices [Q, count] of the rows [N, D] nearest to each row in `query` [Q], without the row itself.

    With N <= `count`, return N - 1 indices for each row.
    """
    count = min(count, len(rows) - 1)
    nearest = nearest_rows(rows[query], rows, count + 1)  # [Q, count + 1], with the row itself or an equal row
    is_query = nearest == query[:, None]
    is_query[:, -1] |= ~is_query.any(1)  # drop the last of equal rows where the row itself is not among them
    return nearest[~is_query].view(len(query), count)
