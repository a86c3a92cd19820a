"""The arithmetic of training: float32, or bfloat16 where the processor computes it faster. Metrics are in float32."""

import logging
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.training.step import ForwardPass
from aetrain.utils.compat import cpu_has

log = logging.getLogger("aetrain")

Precision = Literal["float32", "fast"]


def forward_pass(precision: Precision, device: torch.device, model: Autoencoder) -> ForwardPass:
    """Return the forward pass of training; log a warning where `fast` is not available, or slow, on the device."""
    if precision == "float32":
        return model
    if reason := _why_float32(device, model):
        log.warning("precision=fast is float32 here: %s", reason)
        return model
    return AutocastForward(model)


class AutocastForward:
    """The forward pass with matrix products and convolutions in bfloat16 (8 bits of precision), summed in float32.

    Weights, optimizer, loss and penalties stay in float32; bfloat16 has float32's range, so gradients need no scaling
    (Kalamkar et al. 2019, arXiv:1905.12322, section 3).
    """

    def __init__(self, model: Autoencoder) -> None:
        self.model = model

    def __call__(self, x_in: Tensor, x: Tensor) -> Forward:
        """Encode `x_in` and decode, with the target `x`; all results are float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            out = self.model(x_in, x)
        return replace(
            out,
            hidden=tuple(h.to(torch.float32) for h in out.hidden),
            code=out.code.to_float32(),
            decoded=out.decoded.to(torch.float32),
        )


def _why_float32(device: torch.device, model: nn.Module) -> str:
    """Return why bfloat16 would not be faster; an empty string where it is."""
    match device.type:
        case "cuda":
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
            return "" if supported else "this cuda has no bfloat16 arithmetic"
        case "mps" | "xpu":
            return f"bfloat16 has not been tried on {device.type}"
    if cpu_has("amx_tile"):
        return ""
    if not cpu_has("avx512_bf16"):
        return "this cpu has no bfloat16 arithmetic"
    # Measured: a step of model=conv takes a tenth longer.
    convolves = any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules())
    return "without AMX, convolutions are slower in bfloat16" if convolves else ""
