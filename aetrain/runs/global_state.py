"""The state of torch, NumPy and Python that belongs to the whole process: kept for a program that calls aetrain."""

import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from aetrain.config.hydra_state import separate_hydra_state
from aetrain.utils.devices import accelerator, initialized_devices, keep_random_state


@contextmanager
def separate_global_state() -> Iterator[None]:
    """Give torch and Hydra the settings of a new process inside, and restore those of the calling program afterwards.

    A result inside does not depend on the calling program, which continues with its own random numbers, settings of
    torch, environment variables, warning filters and state of Hydra, also after an error. The number of threads is at
    most the calling program's.
    """
    environment = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(_restore_environment, environment)
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_separate_random_state())
        stack.enter_context(separate_hydra_state())
        for get, set_, value in TORCH_SETTINGS:
            stack.enter_context(_setting(get, set_, value))
        for mode in (torch.inference_mode(False), torch.enable_grad()):
            stack.enter_context(mode)
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # a torch.device() context slows every operation
            stack.enter_context(torch.device("cpu"))
        yield


def _set_deterministic(value: bool) -> None:
    torch.backends.cudnn.deterministic = value


def _set_benchmark(value: bool) -> None:
    torch.backends.cudnn.benchmark = value


# Of each setting of torch: the function that reads it, the one that sets it, and its value in a new process.
TORCH_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (lambda: torch.backends.cudnn.deterministic, _set_deterministic, False),
    (lambda: torch.backends.cudnn.benchmark, _set_benchmark, False),
]


@contextmanager
def _setting(get: Callable[[], Any], set_: Callable[[Any], None], value: Any) -> Iterator[None]:
    """Set a setting inside. One that cannot be read, because it was set by another interface, is left as it is."""
    try:
        before = get()
    except RuntimeError:
        yield
        return
    if before != value:
        set_(value)
    try:
        yield
    finally:
        if get() != before:
            set_(before)


def _restore_environment(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def _separate_random_state() -> Iterator[None]:
    """Restore the global generators of torch, NumPy and Python afterwards."""
    devices, python = initialized_devices(), random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002  # the calling program's, of libraries that use it
    try:
        with ExitStack() as stack:
            for device in devices:
                stack.enter_context(keep_random_state(device))
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)
        if len(devices) == 1 and (kind := accelerator()) is not None:  # as torch.manual_seed leaves unused devices
            torch.get_device_module(kind).manual_seed_all(torch.initial_seed())
