"""Matrix products: by the faster of the two libraries that torch comes with, where it is as exact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def multiplying_by_onednn() -> Iterator[bool]:
    """Inside, torch leaves float32 products to oneDNN, where that is faster than MKL and as exact; whether it does.

    MKL gives processors that are not Intel's its AVX2 kernels; oneDNN goes by what the processor offers, which with
    AVX-512 on AMD is twice as fast. Torch asks it for float32 products only where it allows it to round what it
    multiplies to bfloat16 (`torch.set_float32_matmul_precision`). oneDNN makes use of that where there are units for it
    (AMX), and there nothing is done: a product that would show such rounding is tried first. Nor is anything done where
    there is a GPU, whose products the same word would change.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the user in another way, which is left as it is
        yield False
        return
    if not _mkl_is_slow() or torch.cuda.is_available():
        yield False
        return
    try:
        torch.set_float32_matmul_precision("medium")
        exact = _is_exact()
        if not exact:
            torch.set_float32_matmul_precision(before)
        yield exact
    finally:
        torch.set_float32_matmul_precision(before)


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
