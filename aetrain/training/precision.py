"""The arithmetic of training: float32 throughout, or what the processor does faster. Figures are always in float32."""

import logging
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Code, Forward, GaussianCode, QuantizedCode

log = logging.getLogger("aetrain")

Precision = Literal["float32", "fast"]

NONE = "has no bfloat16 arithmetic"


class Arithmetic(Protocol):
    """A pass through a model while it is trained."""

    def __call__(self, model: Autoencoder, x_in: Tensor, x: Tensor) -> Forward: ...


def exactly(model: Autoencoder, x_in: Tensor, x: Tensor) -> Forward:
    """The pass as the model does it, in float32."""
    return model(x_in, x)


def in_bfloat16(model: Autoencoder, x_in: Tensor, x: Tensor) -> Forward:
    """The pass with matrix products and convolutions of bfloat16 (8 bits of precision), added up in float32.

    Weights, optimizer and what is made of the pass (loss and penalties) stay in float32; bfloat16 has float32's range,
    so gradients need no scaling (Kalamkar et al. 2019, arXiv:1905.12322, section 3).
    """
    with torch.autocast(x.device.type, torch.bfloat16):
        out = model(x_in, x)
    return replace(
        out,
        hidden=tuple(h.to(torch.float32) for h in out.hidden),
        code=_in_float32(out.code),
        decoded=out.decoded.to(torch.float32),
    )


def _in_float32(code: Code) -> Code:
    z = code.z.to(torch.float32)
    match code:
        case GaussianCode():
            return replace(code, z=z, mean=code.mean.to(torch.float32), log_var=code.log_var.to(torch.float32))
        case QuantizedCode():
            continuous, codewords = code.continuous.to(torch.float32), code.codewords.to(torch.float32)
            return replace(code, z=z, continuous=continuous, codewords=codewords)
        case _:
            return replace(code, z=z)


def arithmetic(precision: Precision, device: torch.device, model: nn.Module) -> Arithmetic:
    """How a model is trained on a device; with a sentence where `fast` is not to be had, or is slow, there."""
    if precision == "float32":
        return exactly
    if reason := _why_not(device, model):
        log.warning("precision=fast is float32 here: %s", reason)
        return exactly
    return in_bfloat16


def _why_not(device: torch.device, model: nn.Module) -> str:
    if device.type == "cuda":
        return "" if torch.cuda.is_bf16_supported(including_emulation=False) else f"this cuda {NONE}"
    if cpu_has("amx_tile"):
        return ""
    if not cpu_has("avx512_bf16"):
        return f"this cpu {NONE}"
    # Measured: a step of model=conv takes a tenth longer.
    convolves = any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules())
    return "without AMX, convolutions are slower in bfloat16" if convolves else ""


def cpu_has(feature: Literal["avx512_bf16", "amx_tile"]) -> bool:
    """Whether this processor has instructions for bfloat16, of vectors or of whole matrices."""
    ask = vars(torch.cpu).get(f"_is_{feature}_supported")
    return callable(ask) and bool(ask())
