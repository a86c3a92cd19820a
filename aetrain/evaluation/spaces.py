"""Spaces in which images are compared: the code, and beside it the controls, raw pixels and PCA of the same size."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aetrain.data.batches import in_order
from aetrain.data.dataset import Images, Prepare
from aetrain.evaluation.measures import Subject, codes


@dataclass(frozen=True, eq=False)
class Space:
    """Images as rows of numbers: those that teach, and those that are asked about."""

    name: str  # what it adds to a figure's name: nothing for the code, else _pixels or _pca
    train: Tensor  # [N, D]
    test: Tensor  # [M, D]


def spaces(subject: Subject, train: Images, test: Images) -> Iterator[Space]:
    """The code, the pixels, and as many principal components of all training images as the code has units.

    One after the other, so that only one is held at a time; PCA is left out where images are too large for it.
    """
    model, prepare = subject.model, subject.prepare
    yield Space("", codes(model, train, prepare), codes(model, test, prepare))
    yield Space("_pixels", pixels(train, prepare), pixels(test, prepare))
    if (pca := subject.pca) is not None:
        yield Space(
            "_pca", *(torch.cat([pca.encode(x) for x in in_order(part, 1000, prepare)]) for part in (train, test))
        )


def pixels(images: Images, prepare: Prepare) -> Tensor:
    """The pixels of images in order as they are shown, [N, C * H * W]."""
    return torch.cat([x.flatten(1) for x in in_order(images, 1000, prepare)])


def nearest(asked: Tensor, among: Tensor, count: int, batch_size: int = 500) -> Tensor:
    """Indices [M, count] of the rows [N, D] nearest to each of [M, D], the nearest first (Euclidean)."""
    middle = among.mean(0)  # about which less is lost to cancellation
    asked, among = asked - middle, among - middle
    lengths = among.square().sum(1)
    # The asked row's own length is the same for all, and left out: |a - b|^2 = |a|^2 + |b|^2 - 2 a.b
    return torch.cat(
        [
            torch.addmm(lengths, part, among.t(), alpha=-2).topk(count, largest=False).indices
            for part in asked.split(batch_size)
        ]
    )
