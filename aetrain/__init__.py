"""A laboratory for autoencoders: compose one from YAML groups, train it, see what its hidden units learn."""

from typing import TYPE_CHECKING, Any

from aetrain.utils.cores import forget_default_of_torchrun
from aetrain.utils.wait_policy import set_wait_policy

if TYPE_CHECKING:
    from aetrain.api import Trained, load, run
    from aetrain.config.errors import ConfigError

__version__ = "0.2.0"
__all__ = ["ConfigError", "Trained", "load", "run"]

# Here, because every process that trains imports this package first, and torch later.
set_wait_policy()
forget_default_of_torchrun()


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `run` and `load` import torch, which `--help` does not need."""
    if name not in __all__:
        raise AttributeError(f"module 'aetrain' has no attribute '{name}'")
    if name == "ConfigError":
        from aetrain.config import errors

        return errors.ConfigError
    from aetrain import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
