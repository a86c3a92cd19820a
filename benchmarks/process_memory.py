"""The memory of the calling process while a block runs. Imports nothing that takes memory itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_S = 0.1  # between two looks at the memory


def memory_mib(name: str) -> float:
    """Return a line of /proc/self/status, such as RssAnon, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


@contextmanager
def watched_memory() -> Iterator[dict[str, float]]:
    """Yield the largest resident and anonymous memory in MiB while the block runs."""
    largest, end = {"VmRSS": 0.0, "RssAnon": 0.0}, threading.Event()

    def watch() -> None:
        while not end.wait(INTERVAL_S):
            largest.update({name: max(value, memory_mib(name)) for name, value in largest.items()})

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        end.set()
        thread.join()
