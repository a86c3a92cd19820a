"""What is asked of the libraries below torch while something is trained or measured."""

from collections.abc import Iterator
from contextlib import contextmanager

from aetrain.training.memory import keep_freed_memory
from aetrain.training.products import multiplying_by_onednn


@contextmanager
def set_up() -> Iterator[None]:
    """Inside, memory that is freed is kept, and products are made by the faster library; enter before any tensor."""
    keep_freed_memory()
    with multiplying_by_onednn():
        yield
