"""Set up the libraries below torch while a model is trained or evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

from aetrain.training.backend.denormals import flush_denormals
from aetrain.training.backend.malloc import keep_freed_memory
from aetrain.training.backend.matmul import matmul_by_onednn
from aetrain.training.backend.threads import num_threads
from aetrain.training.backend.waiting import sleep_where_busy
from aetrain.utils.cores import Limit


@contextmanager
def backend(threads: Limit | None = None) -> Iterator[None]:
    """Keep freed memory; inside, compute with the faster library, a number of threads and no denormal numbers."""
    keep_freed_memory()
    with matmul_by_onednn(), num_threads(threads), sleep_where_busy(), flush_denormals():
        yield
