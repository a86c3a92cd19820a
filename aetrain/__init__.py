"""A laboratory for autoencoders: compose one from YAML groups, train it, see what its hidden units learn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aetrain.api import load, run

__version__ = "0.2.0"
__all__ = ["load", "run"]


def __getattr__(name: str) -> Any:
    """Import `aetrain.load` and `aetrain.run` on first use: they import torch, which `--help` does not need."""
    if name not in __all__:
        raise AttributeError(f"module 'aetrain' has no attribute '{name}'")
    from aetrain import api

    return getattr(api, name)
