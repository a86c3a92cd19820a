"""The C library's memory: keep what a step frees for the next one instead of returning it to the kernel."""

import ctypes
import os
import sys

# Parameters of mallopt(3) in <malloc.h>. A block above M_MMAP_THRESHOLD is mapped by itself and unmapped when freed; a
# heap whose free end is above M_TRIM_THRESHOLD is cut.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLDS = (1 << 30, 32 << 20)  # bytes; an older glibc accepts at most 32 MiB
MAX_TRIM_THRESHOLD = 2**31 - 1  # bytes

USER_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that are freed; return whether that took effect. Call it before training begins.

    glibc maps each activation of a convolution by itself (`mmap`) and unmaps it when it is freed, so at every step each
    page is faulted in and zeroed again. With both thresholds out of reach this happens once. No number changes. Nothing
    is done without glibc, or where the user's environment sets these thresholds.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in USER_VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in MMAP_THRESHOLDS)
    return kept and bool(mallopt(M_TRIM_THRESHOLD, MAX_TRIM_THRESHOLD))
