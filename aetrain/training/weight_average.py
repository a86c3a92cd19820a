"""An exponential moving average of the weights, which is evaluated and saved in place of the last weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(nn.Module):
    """average <- decay * average + (1 - decay) * weights, after every step of the optimizer.

    Polyak & Juditsky (1992), "Acceleration of stochastic approximation by averaging", in the exponential form of
    torch.optim.swa_utils. Buffers are not averaged. The average begins as the weights before training.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self._average = get_ema_multi_avg_fn(decay)
        self._weights = tuple(model.parameters())  # in a tuple, so that they are not registered here
        for number, weight in enumerate(self._weights):
            self.register_buffer(f"weight{number}", weight.detach().clone())

    @property
    def averages(self) -> list[Tensor]:
        """The averages in the order of the model's parameters; during `applied`, the weights of training."""
        return [self.get_buffer(f"weight{number}") for number in range(len(self._weights))]

    @torch.no_grad()
    def reset(self) -> None:
        """Begin at the present weights."""
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.copy_(weight)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._average(self.averages, [weight.detach() for weight in self._weights], 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model inside, and the weights of training back afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the weights of the model."""
        for average, weight in zip(self.averages, self._weights, strict=True):
            saved = weight.detach().clone()
            weight.copy_(average)
            average.copy_(saved)
