"""Optimizers that torch lacks, or that need a word about randomness."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn


class LBFGS(torch.optim.LBFGS):
    """L-BFGS whose every look at a batch, within one step, draws the same random numbers.

    A line search compares losses at several points; noise or a code drawn anew at each would be compared instead.
    Liu & Nocedal (1989), "On the limited memory BFGS method for large scale optimization".
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

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]  # torch says float, and takes a tensor
        cpu = torch.get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

        def again() -> Any:
            torch.set_rng_state(cpu)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)
            return closure()

        return super().step(again)
