"""Matrix products: by the faster of the two libraries that torch comes with, where it is as exact."""

from pathlib import Path
from typing import Any

import torch


def multiply_by_onednn() -> bool:
    """Let torch leave float32 products to oneDNN where that is faster than MKL and as exact. Whether it does.

    MKL gives processors that are not Intel's its AVX2 kernels; oneDNN goes by what the processor offers, which with
    AVX-512 on AMD is twice as fast. Torch asks it for float32 products only where it allows it to round what it
    multiplies to bfloat16. oneDNN makes use of that where there are units for it (AMX), and there nothing is done; a
    product that would show such rounding is tried first.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9 has it
    if matmul is None or not _mkl_is_slow():
        return False
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    if _is_exact():
        return True
    matmul.fp32_precision = before
    return False


def _mkl_is_slow() -> bool:
    """Whether this is an AMD processor with AVX-512, on Linux."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in file)
    except OSError:  # another system
        return False


def _is_exact() -> bool:
    """Whether float32 products are float32 all through: bfloat16 keeps 8 of 24 bits."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(*shape, generator=generator) for shape in ((128, 784), (784, 400)))
    exact = a.double() @ b.double()
    return bool(((a @ b).double() / exact - 1).abs().max() < 1e-5)
