"""A laboratory for autoencoders: compose one from YAML groups, train it, see what its hidden units became."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aetrain.library import load, run

__version__ = "0.1.0"
__all__ = ["load", "run"]


def __getattr__(name: str) -> Any:
    """`aetrain.load` and `aetrain.run`, imported when asked for: they bring torch, which help and completion do not."""
    if name not in __all__:
        raise AttributeError(f"module 'aetrain' has no attribute '{name}'")
    from aetrain import library

    return getattr(library, name)
