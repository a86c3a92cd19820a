"""The arithmetic of training: float32 throughout, or what the processor does faster. Figures are always in float32."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Code, Forward, GaussianCode, QuantizedCode

log = logging.getLogger("aetrain")

Precision = Literal["float32", "fast"]


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


def arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """How training computes on a device; with a sentence where `fast` is not to be had there."""
    if precision == "float32":
        return exactly
    offered = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bfloat16()
    if not offered:
        log.warning("precision=fast is float32 here: this %s has no bfloat16 arithmetic", device.type)
        return exactly
    return in_bfloat16


def _cpu_has_bfloat16() -> bool:
    known: Mapping[str, object] = vars(torch.cpu)
    asked = [known.get(name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(callable(ask) and bool(ask()) for ask in asked)
