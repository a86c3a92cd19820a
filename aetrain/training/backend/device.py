"""The device that the setting `device` names."""

import os

import torch

from aetrain.config.errors import ConfigError
from aetrain.utils.devices import accelerator


def select_device(name: str) -> torch.device:
    """Return the device of `device=name`; `auto` is the accelerator where torch finds one, else the CPU.

    Raise ConfigError where torch does not find the named device here.
    """
    present = accelerator()
    if name not in ("auto", "cpu") and (present is None or present.type != name):
        other = "no accelerator" if present is None else f"the accelerator {present.type}"
        raise ConfigError(f"device={name}: torch finds {other} here: use device=auto or device=cpu")
    device = torch.device("cpu") if name == "cpu" or present is None else present
    if device.type == "cuda":  # sums in the same order each time, or no run could be resumed exactly
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
    return device
