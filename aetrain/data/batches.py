"""Batches for training: the whole set on the device, one permutation an epoch, slices of it. No workers."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aetrain.data.dataset import Images, Prepare


class Batches:
    """An epoch of shuffled batches of pixels in [0, 1], [B, C, H, W]; the last one may be smaller.

    The order comes from the global generator, which `fit` seeds from (seed, epoch), so an epoch is repeatable.
    """

    def __init__(self, images: Images, batch_size: int, prepare: Prepare) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is too small: use 1 or more")
        self.pixels = images.pixels
        self.batch_size = batch_size
        self.prepare = prepare

    def __len__(self) -> int:
        return -(-len(self.pixels) // self.batch_size)

    @property
    def num_images(self) -> int:
        """Images in an epoch."""
        return len(self.pixels)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.pixels), device=self.pixels.device)
        for index in order.split(self.batch_size):
            yield self.prepare(self.pixels.index_select(0, index))  # rows are copied whole, which indexing does not


def in_order(images: Images, batch_size: int, prepare: Prepare, seed: int = 0) -> Iterator[Tensor]:
    """The images once, in order, for evaluation; what `prepare` draws comes from a generator of its own."""
    generator = torch.Generator(images.pixels.device).manual_seed(seed)
    for pixels in images.pixels.split(batch_size):
        yield prepare(pixels, generator)
