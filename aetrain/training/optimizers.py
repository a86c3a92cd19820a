"""Optimizers that torch lacks, or that need care with random numbers."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from aetrain.utils.devices import random_states, set_random_states

Closure = Callable[[], Any]


class Adam(torch.optim.Adam):
    """Adam whose second moments start at `initial_second_moment` instead of 0, with torch's correction of their bias.

    From 1, as in the program of Burda et al. (2016, arXiv:1509.00519), the first thousands of steps are those of
    gradient descent with momentum at a rate that rises with sqrt(1 - beta2^t).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool | None = None,
        initial_second_moment: float = 0.0,
    ) -> None:
        if initial_second_moment < 0:
            raise ValueError(f"initial_second_moment={initial_second_moment} is negative: use 0 or more")
        super().__init__(params, lr, betas, eps, weight_decay, fused=fused)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.full_like(parameter, initial_second_moment),
                }


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
