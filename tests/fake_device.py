"""A device of tests, in the memory of the CPU, with the rules of an accelerator.

A tensor is on the device where its storage is marked. As on a GPU, an operation takes no tensors of two devices, apart
from numbers (0 dimensions), copies and indices, its random numbers come from a generator of the same device, and a
tensor of the device cannot become an array. As on MPS, no tensor of the device is float64.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("mps", 0)  # the answer of a marked tensor; no operation of MPS is called
CPU = torch.device("cpu")
MIXING = ("copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_")  # operations of two devices
Generator = torch.Generator


class DeviceGenerator(Generator):
    """A random number generator of the CPU or of the device."""

    own_device: torch.device

    def __new__(cls, device: Any = CPU) -> "DeviceGenerator":
        self = super().__new__(cls)
        self.own_device = DEVICE if is_fake(device) else CPU
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.own_device


def is_fake(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def is_marked(x: Tensor) -> bool:
    """Return whether a tensor is on the device."""
    return x.layout is torch.strided and getattr(x.untyped_storage(), "is_on_device", False)


def mark(x: Tensor, marked: bool = True) -> None:
    if marked and x.dtype == torch.float64:
        raise TypeError("the device has no float64")
    cast(Any, x.untyped_storage()).is_on_device = marked


def move(x: Tensor, device: Any) -> Tensor:
    """Return a tensor on a device: itself where it is there, else a copy."""
    if is_marked(x) == is_fake(device):
        return x
    with Operations.paused():
        copy = x.clone()
    mark(copy, is_fake(device))
    return copy


class Operations(TorchDispatchMode):
    """The rules of operations, also of a backward pass."""

    active = True

    @classmethod
    @contextlib.contextmanager
    def paused(cls) -> Iterator[None]:
        before, cls.active = cls.active, False
        try:
            yield
        finally:
            cls.active = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not Operations.active:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        inputs = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        marked = [is_marked(x) for x in inputs]
        mixed = any(marked) and any(not on and x.dim() for on, x in zip(marked, inputs, strict=True))
        if mixed and name not in MIXING and not name.startswith("_foreach"):
            raise RuntimeError(f"{func} has tensors of two devices: {[tuple(x.shape) for x in inputs]} {marked}")
        out = func(*args, **kwargs)
        if any(marked) and name != "copy_":
            for x in pytree.tree_leaves(out):
                if isinstance(x, Tensor):
                    mark(x)
        return out


class Calls(TorchFunctionMode):
    """The calls that name a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if x is not None and func in (Tensor.numpy, Tensor.__array__) and is_marked(x):
            raise TypeError("a tensor of the device cannot become an array")
        if getattr(func, "__self__", None) is Tensor.device and is_marked(args[0]):
            return DEVICE
        if x is not None and func is Tensor.cpu:
            return move(x, CPU)
        if x is not None and func is Tensor.to:
            return to(x, args[1:], kwargs)
        if func is F.one_hot and x is not None and is_marked(x):  # it makes zeros of no given device
            return move(func(move(x, CPU), *args[1:], **kwargs), DEVICE)
        device = kwargs.get("device", DEVICE if x is not None and is_marked(x) else CPU)
        generator = kwargs.get("generator")
        if generator is not None and (generator.device.type == DEVICE.type) != is_fake(device):
            raise RuntimeError(f"{func} needs a generator of {device}, not of {generator.device}")
        if is_fake(kwargs.get("device")):
            return move(func(*args, **{**kwargs, "device": CPU}), DEVICE)
        return func(*args, **kwargs)


def to(x: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """Return `x.to(*args, **kwargs)`."""
    targets = [a for a in (*args, kwargs.pop("device", None)) if isinstance(a, str | torch.device | Tensor)]
    rest: list[Any] = [CPU if isinstance(a, str | torch.device) else a for a in args]
    marked, target = is_marked(x), targets[0] if targets else None
    if isinstance(target, Tensor):
        rest, kwargs, target = [], {**kwargs, "dtype": target.dtype}, DEVICE if is_marked(target) else CPU
    if target is None:
        return x.to(*rest, **kwargs)
    if marked:
        x = move(x, CPU)
    return move(x.to(*rest, **kwargs), target)


@contextlib.contextmanager
def fake_device() -> Iterator[None]:
    """Let torch have the device inside, as its accelerator."""
    with pytest.MonkeyPatch.context() as patch, Calls(), Operations():
        patch.setattr(torch, "Generator", DeviceGenerator)
        patch.setattr(torch.mps, "get_rng_state", lambda *_: torch.get_rng_state())
        patch.setattr(torch.mps, "set_rng_state", lambda state, *_: torch.set_rng_state(state))
        yield
