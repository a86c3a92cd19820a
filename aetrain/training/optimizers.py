"""Optimizers that torch lacks, or that need care with random numbers."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from aetrain.utils.devices import random_states, set_random_states

Closure = Callable[[], Any]


class LBFGS(torch.optim.LBFGS):
    """L-BFGS that draws the same random numbers at every evaluation of a batch within one step.

    A line search compares losses at several points; with new noise or a new sample of the code at each it would compare
    those instead. Liu & Nocedal (1989), "On the limited memory BFGS method for large scale optimization".
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 10,
        line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe",
    ) -> None:
        super().__init__(params, lr, max_iter, max_eval, tolerance_grad, tolerance_change, history_size, line_search_fn)

    def step(self, closure: Closure) -> Any:  # type: ignore[override]  # torch's annotation says float, it takes a tensor
        device = self.param_groups[0]["params"][0].device
        states = random_states(device)

        def evaluate() -> Any:
            set_random_states(device, states)
            loss = closure()
            for group in self.param_groups:
                for parameter in group["params"]:  # torch's L-BFGS concatenates gradients and needs contiguous ones
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.contiguous()
            return loss

        return super().step(evaluate)
