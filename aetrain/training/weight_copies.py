"""Copies of the weights of a model, which take the place of the weights of training for evaluation and checkpoints."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightCopies(nn.Module):
    """Copies of tensors, such as the parameters of a model. They begin as the present values."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._tensors = tuple(tensors)  # in a tuple, so that they are not registered here
        for number, tensor in enumerate(self._tensors):
            self.register_buffer(f"weight{number}", tensor.detach().clone())

    @property
    def copies(self) -> list[Tensor]:
        """The copies in the order of the tensors; during `applied`, the weights of training."""
        return [self.get_buffer(f"weight{number}") for number in range(len(self._tensors))]

    @torch.no_grad()
    def store(self) -> None:
        """Copy the present values."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            copy.copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the copies into the model inside, and the weights of training back afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the copies and the present values."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            present = tensor.detach().clone()
            tensor.copy_(copy)
            copy.copy_(present)
