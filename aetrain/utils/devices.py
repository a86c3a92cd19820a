"""The device of a run, by torch.accelerator, and the paths around what some kinds of accelerator lack."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


def accelerator() -> torch.device | None:
    """Return the accelerator that torch can use here, such as `cuda`; None where there is none."""
    return torch.accelerator.current_accelerator(check_available=True)


def seed_generators(seed: int) -> None:
    """Seed the global generators of the CPU and of the accelerator.

    Without an accelerator, `torch.manual_seed` would keep the seed for each kind that torch knows, with a traceback:
    that takes longer than a batch, and more memory with each epoch.
    """
    if accelerator() is None:
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@cache
def has_float64(kind: str) -> bool:
    """Return whether a kind of device computes in float64. MPS does not, and some devices of Intel do not."""
    if kind == "xpu":
        return bool(torch.xpu.get_device_properties().has_fp64)
    return kind != "mps"


def with_float64(x: Tensor) -> Tensor:
    """Return a tensor on a device with float64: itself, or its copy on the CPU where its own device has none."""
    return x if has_float64(x.device.type) else x.cpu()


def to_float64(x: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU where its device has no float64."""
    return with_float64(x).to(torch.float64)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done its work; the CPU has when a call returns."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def initialized_devices() -> list[torch.device]:
    """Return the CPU, and the devices of the accelerator where it is in use."""
    kind, cpu = accelerator(), torch.device("cpu")
    if kind is None or not getattr(torch.get_device_module(kind), "is_initialized", lambda: True)():
        return [cpu]  # asking a device for the state of its generator would initialise it
    return [cpu, *(torch.device(kind.type, number) for number in range(torch.accelerator.device_count()))]


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global generators of the CPU and of a device afterwards."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(device, states)


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of the global generators of the CPU and, if it is another, of a device."""
    states = [torch.get_rng_state()]
    match device.type:
        case "cpu":
            pass
        case "mps":  # has one device, whose functions take no argument
            states.append(torch.mps.get_rng_state())
        case _:
            states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def set_random_states(device: torch.device, states: list[Tensor]) -> None:
    """Set the generators to the result of `random_states`."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        if device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)
