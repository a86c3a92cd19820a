"""The wait policy of OpenMP: the threads of torch that wait for work spin for a short time, then sleep."""

import os
import sys

# Turns of the loop in which a waiting thread of GNU OpenMP spins; its default is 300,000. Without other programs,
# 30,000 cost no time and 10,000 up to half of it (docs/speed.md).
SPIN_COUNT = 30_000
BLOCK_TIME_MS = 1  # of LLVM's and Intel's OpenMP, in torch for macOS and of conda; the default is 200

OWN_POLICY = {"GOMP_SPINCOUNT": str(SPIN_COUNT), "KMP_BLOCKTIME": str(BLOCK_TIME_MS)}
USER_VARIABLES = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *OWN_POLICY)


def set_wait_policy() -> bool:
    """Let waiting threads sleep early in this process and those that it starts; return whether that took effect.

    A thread that spins keeps a core from other programs, and from the thread that it waits for where there are more
    threads than cores. OpenMP reads the environment when torch is loaded: later, and where the user has set a wait
    policy, nothing is done.
    """
    if "torch" in sys.modules or any(name in os.environ for name in USER_VARIABLES):
        return False
    os.environ.update(OWN_POLICY)
    return True


def is_set_by_user() -> bool:
    """Return whether the environment has a wait policy that is not the one of `set_wait_policy`."""
    return any(name in os.environ and os.environ[name] != OWN_POLICY.get(name) for name in USER_VARIABLES)
