"""Memory of the C library: what a step frees is kept for the next one instead of being handed back to the kernel."""

import ctypes
import os
import sys

# Numbers of <malloc.h>. Blocks above the second threshold are mapped for themselves and unmapped when freed; a heap
# whose free end is above the first is cut.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = (1 << 30, 32 << 20)  # the second; an older glibc takes no more than 32 MiB

OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that are freed; call it before the first tensor is made. Whether it took effect.

    The activations of convolutions are large enough that glibc maps each by itself (`mmap`) and unmaps it when it is
    freed, at every step, so every page of it is faulted in and zeroed again. With both thresholds (mallopt(3)) out of
    reach this happens once. It changes no number, only where the memory comes from. Nothing is done outside of glibc,
    or where the user's environment sets these thresholds.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
