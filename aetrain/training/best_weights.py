"""The weights of the best epoch so far, which a run with `keep=best` evaluates and saves in place of the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BestWeights(nn.Module):
    """A copy of all parameters and buffers of some modules, such as a model and its objective.

    The copy begins as their present values.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        # In a tuple, so that they are not registered here; one that two modules share is swapped once.
        self._tensors = tuple({id(tensor): tensor for tensor in tensors}.values())
        for number, tensor in enumerate(self._tensors):
            self.register_buffer(f"tensor{number}", tensor.detach().clone())

    @property
    def copies(self) -> list[Tensor]:
        """The tensors of the best epoch, in the order of the modules; during `applied`, those of training."""
        return [self.get_buffer(f"tensor{number}") for number in range(len(self._tensors))]

    @torch.no_grad()
    def store(self) -> None:
        """Copy the present values."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            copy.copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the best weights into the modules inside, and the weights of training back afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the best weights and those of the modules."""
        for copy, tensor in zip(self.copies, self._tensors, strict=True):
            present = tensor.detach().clone()
            tensor.copy_(copy)
            copy.copy_(present)
