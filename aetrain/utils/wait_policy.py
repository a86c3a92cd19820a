"""The wait policy of OpenMP: the threads of torch that wait for work spin for a short time, then sleep."""

import os
import sys

# Turns of the loop in which a waiting thread of GNU OpenMP spins; its default is 300,000. Without other programs,
# 30,000 cost no time and 10,000 up to half of it (docs/speed.md).
SPIN_COUNT = 30_000
BLOCK_TIME_MS = 1  # of LLVM's and Intel's OpenMP, in torch for macOS and of conda; the default is 200

USER_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def set_wait_policy() -> bool:
    """Let waiting threads sleep early in this process and those that it starts; return whether that took effect.

    A thread that spins keeps a core from other programs, and from the thread that it waits for where there are more
    threads than cores. OpenMP reads the environment when torch is loaded: later, and where the user has set a wait
    policy, nothing is done.
    """
    if "torch" in sys.modules or any(name in os.environ for name in USER_VARIABLES):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    os.environ["KMP_BLOCKTIME"] = str(BLOCK_TIME_MS)
    return True
