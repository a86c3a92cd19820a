"""Optimizers that torch lacks, or that need a word about randomness; and torch's own without its compiler."""

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

Closure = Callable[[], Any]


def leave_compiler_out() -> None:
    """Let torch's optimizers begin without importing its compiler, which takes longer than importing torch.

    Their methods are wrapped in an order to the compiler not to trace them, and giving that order imports it. A
    wrapper keeps the order that it has given, so one that is found there already is not given. None of these methods is
    ever compiled here.
    """
    if sys.modules.get("torch._dynamo") is not None:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = inspect.unwrap(getattr(Optimizer, name))
        vars(method).setdefault("__dynamo_disable", method)


leave_compiler_out()


def step_of(optimizer: Optimizer) -> Callable[..., Any]:
    """`optimizer.step`; of torch's own optimizers without what is wrapped around it for the compiler and the profiler.

    What torch wraps around is `no_grad`, which stays, hooks that nobody here sets, and orders to the compiler.
    """
    cls = type(optimizer)
    if not cls.__module__.startswith("torch.optim."):
        return optimizer.step
    return torch.no_grad()(partial(inspect.unwrap(cls.step), optimizer))


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
            loss = closure()
            for parameter in self._params:  # torch's L-BFGS lays them end to end, and takes no other order
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous()
            return loss

        return super().step(again)
