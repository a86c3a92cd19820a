"""Views of whole images: reconstructions, and samples from the prior."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.annotations import Annotations, pixel_key
from aetrain.views.context import ViewContext
from aetrain.views.render import GREY
from aetrain.views.view import Picture, check_positive, grid_picture

SAMPLE_COLUMNS = 8
# Labels of figures, by caption.
ROW_LABELS = {"clean": "image", "seen": "noisy input", "recon.": "reconstruction", "PCA": "PCA"}
PCA_NOTE = "PCA has as many components as the code has units."


@final
@dataclass(frozen=True)
class Reconstructions:
    """Rows of clean images, of the encoder's noisy inputs where there is noise, of the reconstructions and of PCA's.

    PCA reads the same inputs, and has as many components as the code has units; it has no row where it is left out.
    With labels, the images are the first of each class in the order of the classes, then the second of each, and so on.
    """

    description: ClassVar[str] = (
        "Rows of test images, of the noisy inputs where there is noise, of the reconstructions, and of those of PCA "
        "with as many components as the code has units."
    )

    count: int = 10
    columns: int = 5

    def __post_init__(self) -> None:
        check_positive(count=self.count, columns=self.columns)

    def __call__(self, context: ViewContext) -> Picture:
        chosen = interleave_classes(context.labels, len(context.x))[: self.count].to(context.x.device)
        kinds = {"clean": context.complete[chosen]}
        if context.x_in is not context.complete:
            kinds["seen"] = context.x_in[chosen]
        kinds["recon."] = context.reconstruct(context.x_in[chosen])
        if (linear := context.pca_reconstruct(context.x_in[chosen])) is not None:
            kinds["PCA"] = linear
        columns = min(self.columns, len(chosen))
        rows: list[Tensor] = []
        for block in zip(*(images.split(columns) for images in kinds.values()), strict=True):
            rows.extend(fill_row(images, columns) for images in block)
        captions = list(kinds) * (len(rows) // len(kinds))
        notes = ["The class of an image is above it."] if context.labels is not None else []
        notes += [PCA_NOTE] if linear is not None else []
        annotations = Annotations(
            f"{context.split.capitalize()} images and their reconstructions",
            rows=[ROW_LABELS[caption] for caption in captions],
            tiles=self._class_labels(context, chosen, columns, len(kinds)),
            note=" ".join(notes),
            **pixel_key(context.x_in),
        )
        return grid_picture(torch.cat(rows), annotations, columns, captions)

    def _class_labels(self, context: ViewContext, chosen: Tensor, columns: int, num_kinds: int) -> list[str]:
        """Return the labels of all tiles: the class above each clean image, nothing above its other rows."""
        labels: list[str] = []
        for block in chosen.split(columns):
            names = context.class_labels(block)
            labels += [*names, *[""] * (num_kinds * columns - len(names))]
        return labels


@final
@dataclass(frozen=True)
class Samples:
    """The images that the model decodes from codes of the prior, the same codes at every step; None without a prior."""

    description: ClassVar[str] = (
        "The images that the model decodes from codes of the prior, the same codes at every step."
    )

    count: int = 64

    def __post_init__(self) -> None:
        check_positive(count=self.count)

    def __call__(self, context: ViewContext) -> Picture | None:
        z = context.sample_prior(self.count)
        if z is None:
            return None
        annotations = Annotations("Images decoded from codes drawn from the prior", note="", **pixel_key(context.x))
        return grid_picture(context.decode_pixels(z), annotations, min(SAMPLE_COLUMNS, self.count))


def fill_row(images: Tensor, columns: int) -> Tensor:
    """Return images [N, C, H, W] and grey ones after them, [columns, C, H, W]."""
    return torch.cat([images, images.new_full((columns - len(images), *images.shape[1:]), GREY)])


def interleave_classes(labels: Tensor | None, count: int) -> Tensor:
    """Return an order [count] of images that alternates between the classes of `labels` [count].

    The first image of each class comes first, then the second of each; 0, 1, 2, ... without labels.
    """
    if labels is None:
        return torch.arange(count)
    class_index = labels.cpu().unique(return_inverse=True)[1]  # [count] from 0
    one_hot = F.one_hot(class_index)  # [count, classes]
    rank_in_class = one_hot.cumsum(0)[torch.arange(count), class_index]  # [count] from 1
    return (rank_in_class * one_hot.shape[1] + class_index).argsort()
