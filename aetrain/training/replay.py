"""What the runs of a pack do inside `torch.func.vmap`: draw the numbers that each would draw alone, multiply at once.

Shapes: R runs in a pack, B images in a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Calls that draw random numbers which depend on nothing but a shape and settings, and so can be drawn beforehand.
FILLS = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.random_}
MAKES = {torch.randn, torch.rand, torch.randint, torch.randperm}


@dataclass(frozen=True, eq=False)
class Draw:
    """A call that has drawn random numbers from the global generator."""

    call: Callable[..., Tensor]
    shape: torch.Size
    again: Callable[[torch.Generator], Tensor]  # the same call with another generator


class Watch(TorchFunctionMode):
    """Notes what is drawn inside."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in FILLS and kwargs.get("generator") is None:
            self.draws.append(
                Draw(func, out.shape, partial(_fill, func, (out.dtype, out.device), out.shape, args[1:], kwargs))
            )
        elif func in MAKES and kwargs.get("generator") is None:
            self.draws.append(Draw(func, out.shape, partial(_make, func, args, kwargs)))
        return out


def _fill(call: Any, kind: tuple[Any, Any], shape: Any, args: Any, kwargs: Any, generator: torch.Generator) -> Tensor:
    dtype, device = kind
    return call(torch.empty(shape, dtype=dtype, device=device), *args, **{**kwargs, "generator": generator})


def _make(call: Any, args: Any, kwargs: Any, generator: torch.Generator) -> Tensor:
    return call(*args, **{**kwargs, "generator": generator})


class Replay(TorchFunctionMode):
    """Hands out numbers that were drawn before, wherever some are drawn inside."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__()
        self.draws = iter(draws)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (func in FILLS or func in MAKES) and kwargs.get("generator") is None:
            return next(self.draws)
        if func is F.binary_cross_entropy_with_logits and kwargs.get("reduction") == "none":
            return Stacked.apply(_elementwise, partial(func, **kwargs), *args)
        if func in RULES and args[0].device.type in RULES[func].devices:
            return Stacked.apply(RULES[func].rule, partial(func, **kwargs), *args)
        if func is torch.Tensor.clamp_:  # which has no rule for many, where clamp has one
            return args[0].copy_(torch.clamp(*args, **kwargs))
        return func(*args, **kwargs)


class Stacked(torch.autograd.Function):
    """A function of one run, done for all of them by a rule of ours in place of torch's."""

    generate_vmap_rule = False

    @staticmethod
    def forward(rule: Callable[..., Tensor], function: Callable[..., Tensor], *given: Any) -> Tensor:
        return function(*given)  # where nothing differs from run to run

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept: torch differentiates what the rule does."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[Tensor, int]:
        rule, function, *rest = given
        stacks = [_stack_of(value, dim, info.batch_size) for value, dim in zip(rest, in_dims[2:], strict=True)]
        return rule(function, *stacks), 0


def _stack_of(value: Any, dim: Any, count: int) -> Any:
    """A tensor with a row for each run; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.expand(count, *value.shape) if dim is None else value.movedim(dim, 0)


def _in_turn(function: Callable[..., Tensor], *given: Any) -> Tensor:
    rows = len(given[0])
    columns = [value.unbind() if isinstance(value, Tensor) else [value] * rows for value in given]
    return torch.stack([function(*row) for row in zip(*columns, strict=True)])


def _linear(function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, B, I], weight [R, O, I], bias [R, O]."""
    if x.dim() != 3:
        return _in_turn(function, x, weight, bias)
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


def _elementwise(function: Callable[..., Tensor], *given: Any) -> Tensor:
    return function(*given)


@dataclass(frozen=True)
class Rule:
    """How a function is done for many runs."""

    rule: Callable[..., Tensor]
    devices: Sequence[str] = ("cpu", "cuda")


# Where torch's own way with many is slow: it adds a bias in a pass of its own, takes the cross-entropy apart, and makes
# convolutions in groups, which on a CPU takes half as long again as one after the other. Unpooling it does not know.
RULES = {
    F.linear: Rule(_linear),
    F.max_unpool2d: Rule(_in_turn),
    torch.conv2d: Rule(_in_turn, ("cpu",)),
    torch.conv_transpose2d: Rule(_in_turn, ("cpu",)),
}
