"""The linear layer: torch's own, with its float32 matrix products done by the faster of torch's two libraries."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 1 << 16  # weights; below, calling the other library takes the time that its product saves


def mkl_is_slow() -> bool:
    """Whether, on this machine, oneDNN multiplies float32 matrices faster than MKL, which torch takes.

    MKL gives processors that are not Intel's its AVX2 kernels; oneDNN, which comes with torch as well, goes by what the
    processor offers. With AVX-512 on AMD that is twice as fast. Both add up in float32.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in file)
    except OSError:  # another system
        return False


MKL_IS_SLOW = mkl_is_slow()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b, of x [B, in], W [out, in] and b [out]: `torch.nn.functional.linear`, in the same precision."""
    if x.dim() == 2 and onednn_is_faster(weight) and not torch._C._are_functorch_transforms_active():
        return cast(Tensor, _ByOneDNN.apply(x, weight, bias))
    return F.linear(x, weight, bias)


def onednn_is_faster(weight: Tensor) -> bool:
    """Whether products with a layer's weights [out, in] are to be left to oneDNN, here and now."""
    return (
        weight.shape[-2:].numel() >= LARGE
        and MKL_IS_SLOW
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # a program takes it of constant weights only, and must run elsewhere
    )


class Linear(nn.Linear):
    """y = x W^T + b."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b^T + bias, of a [M, K] and b [N, K], by oneDNN; it records no gradient."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], ""))


class _ByOneDNN(torch.autograd.Function):
    """The product and its gradients; a gradient that is to be differentiated again is written in torch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            to_x, to_weight = grad @ weight if by_x else None, grad.mT @ x if by_weight else None
        else:
            to_x = _product(grad, weight.t()) if by_x else None
            to_weight = _product(grad.t(), x.t()) if by_weight else None
        return to_x, to_weight, grad.sum(-2) if by_bias else None
