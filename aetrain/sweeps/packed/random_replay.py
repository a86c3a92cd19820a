"""Random calls inside `torch.func.vmap`: record them, draw each run's numbers beforehand, replay them.

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

# Functions whose random numbers depend only on a shape and settings, so that they can be drawn beforehand.
INPLACE_RANDOM = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.random_}
FACTORY_RANDOM = {torch.randn, torch.rand, torch.randint, torch.randperm}


@dataclass(frozen=True, eq=False)
class RandomCall:
    """A call that has drawn random numbers from the global generator."""

    function: Callable[..., Tensor]
    shape: torch.Size
    repeat: Callable[[torch.Generator], Tensor]  # the same call with another generator


class RecordRandomCalls(TorchFunctionMode):
    """Record the random calls inside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RandomCall] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            return out
        if func in INPLACE_RANDOM:
            repeat = partial(_repeat_inplace, func, (out.dtype, out.device), out.shape, args[1:], kwargs)
            self.calls.append(RandomCall(func, out.shape, repeat))
        elif func in FACTORY_RANDOM:
            self.calls.append(RandomCall(func, out.shape, partial(_repeat_factory, func, args, kwargs)))
        return out


def _repeat_inplace(
    function: Any, kind: tuple[Any, Any], shape: Any, args: Any, kwargs: Any, generator: torch.Generator
) -> Tensor:
    dtype, device = kind
    empty = torch.empty(shape, dtype=dtype, device=device)
    result: Tensor = function(empty, *args, **{**kwargs, "generator": generator})
    return result


def _repeat_factory(function: Any, args: Any, kwargs: Any, generator: torch.Generator) -> Tensor:
    result: Tensor = function(*args, **{**kwargs, "generator": generator})
    return result


class ReplayRandomCalls(TorchFunctionMode):
    """Return numbers that were drawn before in place of each random call inside."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__()
        self.draws = iter(draws)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (func in INPLACE_RANDOM or func in FACTORY_RANDOM) and kwargs.get("generator") is None:
            return next(self.draws)
        if func is F.binary_cross_entropy_with_logits and kwargs.get("reduction") == "none":
            return BatchedFunction.apply(_elementwise, partial(func, **kwargs), *args)
        if func in BATCHING_RULES and args[0].device.type in BATCHING_RULES[func].devices:
            return BatchedFunction.apply(BATCHING_RULES[func].rule, partial(func, **kwargs), *args)
        if func is torch.Tensor.clamp_:  # vmap has a rule for clamp alone
            return args[0].copy_(torch.clamp(*args, **kwargs))
        return func(*args, **kwargs)


class BatchedFunction(torch.autograd.Function):
    """A function of one run, computed for all runs by our rule in place of that of torch."""

    generate_vmap_rule = False

    @staticmethod
    def forward(rule: Callable[..., Tensor], function: Callable[..., Tensor], *args: Any) -> Tensor:
        return function(*args)  # where nothing differs between runs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save nothing: torch differentiates the operations of the rule."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        rule, function, *operands = args
        pairs = zip(operands, in_dims[2:], strict=True)
        stacks = [_to_stack(value, dim, info.batch_size) for value, dim in pairs]
        return rule(function, *stacks), 0


def _to_stack(value: Any, dim: Any, count: int) -> Any:
    """Return a tensor with a row for each run; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.expand(count, *value.shape) if dim is None else value.movedim(dim, 0)


def _run_by_run(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Compute a function for one run after the other."""
    count = len(args[0])
    columns = [value.unbind() if isinstance(value, Tensor) else [value] * count for value in args]
    return torch.stack([function(*row) for row in zip(*columns, strict=True)])


def _linear(function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute linear layers: x [R, B, I], weight [R, O, I], bias [R, O]."""
    if x.dim() != 3:
        return _run_by_run(function, x, weight, bias)
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


def _elementwise(function: Callable[..., Tensor], *args: Any) -> Tensor:
    return function(*args)


@dataclass(frozen=True)
class BatchingRule:
    """A function and its rule for many runs."""

    rule: Callable[..., Tensor]
    devices: Sequence[str] = ("cpu", "cuda", "mps", "xpu")


# Functions for which torch's own rule is slow or missing: linear adds the bias in a pass of its own, cross-entropy is
# decomposed, convolutions become grouped ones, 1.5 times slower on a CPU; max_unpool2d has no rule.
BATCHING_RULES = {
    F.linear: BatchingRule(_linear),
    F.max_unpool2d: BatchingRule(_run_by_run),
    torch.conv2d: BatchingRule(_run_by_run, ("cpu",)),
    torch.conv_transpose2d: BatchingRule(_run_by_run, ("cpu",)),
}
