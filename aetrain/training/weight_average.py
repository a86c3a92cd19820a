"""An exponential moving average of the weights, which is evaluated and saved in place of the last weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from aetrain.training.weight_copies import WeightCopies


class WeightAverage(WeightCopies):
    """average <- decay * average + (1 - decay) * weights, after every step of the optimizer.

    Polyak & Juditsky (1992), "Acceleration of stochastic approximation by averaging", in the exponential form of
    torch.optim.swa_utils. Buffers are not averaged. The average begins as the weights before training.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model.parameters())
        self._average = get_ema_multi_avg_fn(decay)

    @property
    def averages(self) -> list[Tensor]:
        """The averages in the order of the model's parameters; during `applied`, the weights of training."""
        return self.copies

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._average(self.averages, [weight.detach() for weight in self._tensors], 0)
