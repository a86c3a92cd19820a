"""Matrix products by the faster of the two libraries that torch contains, where it is as exact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aetrain.utils.devices import accelerator

MAX_FLOAT32_ERROR = 1e-5  # relative error of a product of 784 terms; rounding to bfloat16 (8 of 24 bits) exceeds it


@contextmanager
def matmul_by_onednn() -> Iterator[bool]:
    """Let torch compute float32 products with oneDNN inside, where that is faster than MKL and as exact.

    Yield whether it does. MKL runs its AVX2 kernels on processors of other makers than Intel; oneDNN uses what the
    processor offers, which with AVX-512 on AMD is twice as fast. torch asks oneDNN for float32 products only where it
    may round factors to bfloat16 (`torch.set_float32_matmul_precision`). oneDNN rounds on processors with AMX, and
    there nothing is changed: a trial product that would show rounding is computed first. Nothing is changed where there
    is an accelerator either, whose products the same setting would affect.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the user through another interface
        yield False
        return
    if not _mkl_is_slow() or accelerator() is not None:
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
    """Return whether this is an AMD processor with AVX-512, on Linux."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in file)
    except OSError:  # another system
        return False


def _is_exact() -> bool:
    """Return whether float32 products are computed in float32 throughout."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(*shape, generator=generator) for shape in ((128, 784), (784, 400)))
    exact = a.double() @ b.double()
    return bool(((a @ b).double() / exact - 1).abs().max() < MAX_FLOAT32_ERROR)
