"""aetrain.run and aetrain.load neither change nor use the global state of the program that calls them."""

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import OmegaConf

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.config.hydra_state import separate_hydra_state
from aetrain.runs import global_state as global_state_module
from aetrain.runs.global_state import separate_global_state
from aetrain.utils import devices
from aetrain.utils.compat import omegaconf_resolvers

OVERRIDES = (*TINY, "model=vae", "noise=[masking,gaussian]")


def _set_grad_enabled(value: bool) -> None:
    torch.set_grad_enabled(value)


TORCH_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None], Any]] = {
    "dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "device": (torch.get_default_device, torch.set_default_device, torch.device("meta")),
    "deterministic": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 1),
    "matmul": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"),
    "grad": (torch.is_grad_enabled, _set_grad_enabled, False),
    "benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
        True,
    ),
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program with a Hydra config, resolvers and random numbers of its own, and other settings of torch."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "host.yaml").write_text("name: host\n")
    monkeypatch.setenv("HOST", "1")
    with separate_hydra_state():  # removes the options that other tests have offered to Hydra
        pass
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    store, repo = ConfigStore.instance(), {**ConfigStore.instance().repo}
    resolvers = dict(omegaconf_resolvers())
    before = {name: get() for name, (get, *_) in TORCH_SETTINGS.items()}
    with initialize_config_dir(str(tmp_path / "own"), version_base="1.2"):
        HydraConfig.instance().set_config(compose("host", return_hydra_config=True))
        OmegaConf.register_new_resolver("now", lambda: "never", replace=True)
        store.store(name="config", node={"name": "a schema"})
        store.store(group="model", name="vae", node={"code_dim": 3})
        store.store(group="model", name="saved", node={"code_dim": 4})
        for _, set_value, value in TORCH_SETTINGS.values():
            set_value(value)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(123)
        yield
    for name, value in before.items():
        TORCH_SETTINGS[name][1](None if name == "device" else value)
    store.repo = repo
    omegaconf_resolvers().clear()
    omegaconf_resolvers().update(resolvers)
    HydraConfig.instance().cfg = None


def global_state() -> dict[str, Any]:
    """Return everything that a program may rely on; objects of its own by identity."""
    root = logging.getLogger()
    torch_settings = {name: get() for name, (get, *_) in TORCH_SETTINGS.items()}
    return torch_settings | {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "cudnn": torch.backends.cudnn.deterministic,
        "inference": torch.is_inference_mode_enabled(),
        "hydra": (id(GlobalHydra.instance()), id(GlobalHydra.instance().hydra)),
        "hydra config": (id(HydraConfig.instance()), id(HydraConfig.instance().cfg)),
        "version base": VersionBase.instance().getbase(),
        "resolvers": dict(omegaconf_resolvers()),
        "store": stored_nodes(ConfigStore.instance().repo),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "filters": [*warnings.filters],
        "logging": (root.level, [*root.handlers], logging.raiseExceptions, logging.getLogger("aetrain").level),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "hooks": (sys.excepthook, sys.unraisablehook),
        "arguments": [*sys.argv],
    }


def stored_nodes(nodes: Any) -> Any:
    """Return the nodes of a ConfigStore by identity."""
    return {name: stored_nodes(node) for name, node in nodes.items()} if isinstance(nodes, dict) else id(nodes)


def check_unchanged(before: dict[str, Any]) -> None:
    after = global_state()
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.slow
@pytest.mark.usefixtures("host")
def test_run_and_load_leave_the_state_of_the_calling_program(tmp_path: Path) -> None:
    run_dir = f"hydra.run.dir={tmp_path / 'run'}"
    before = global_state()
    trained = aetrain.run([*OVERRIDES, run_dir])
    check_unchanged(before)
    loaded = aetrain.load(tmp_path / "run")
    check_unchanged(before)
    aetrain.run([f"run={tmp_path / 'run'}", "mode=eval"])
    check_unchanged(before)
    assert compose("host").name == "host"
    assert all(weight.dtype == torch.float32 for weight in trained.model.parameters())
    assert all(weight.device.type == "cpu" for weight in loaded.model.parameters())


@pytest.mark.usefixtures("host")
def test_errors_leave_the_state_of_the_calling_program(tmp_path: Path) -> None:
    run_dir = f"hydra.run.dir={tmp_path / 'run'}"
    before = global_state()
    for overrides in (["model=none"], ["mode=report"], [*TINY, "dataset.classes=[x]", run_dir]):
        with pytest.raises(ConfigError):
            aetrain.run(overrides)
        check_unchanged(before)
    with pytest.raises(ConfigError):
        aetrain.load(tmp_path / "nowhere")
    check_unchanged(before)


@pytest.mark.slow
def test_results_do_not_depend_on_the_calling_program(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    runs = []
    for name in ("alone", "host"):
        if name == "host":
            request.getfixturevalue("host")
        runs.append(aetrain.run([*OVERRIDES, f"hydra.run.dir={tmp_path / name}"]))
    alone, inside = runs
    assert alone.metrics["test/sse"] == inside.metrics["test/sse"]
    assert alone.config.model == inside.config.model
    for one, other in zip(alone.model.state_dict().values(), inside.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_random_numbers_continue_as_without_a_call(tmp_path: Path) -> None:
    aetrain.run([*OVERRIDES, f"hydra.run.dir={tmp_path / 'run'}"])
    draws = []
    for calls in (False, True):
        torch.manual_seed(7)
        first = torch.rand(2)
        if calls:
            aetrain.load(tmp_path / "run")
        draws.append(torch.cat([first, torch.rand(2)]))
    assert torch.equal(*draws)


def use_fake_xpu(monkeypatch: pytest.MonkeyPatch, is_initialized: bool) -> dict[Any, Any]:
    """Give torch two devices of a kind that is not here; return the states of their generators, which are numbers."""
    states: dict[Any, Any] = {0: 10, 1: 11}
    for module in (devices, global_state_module):
        monkeypatch.setattr(module, "accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: is_initialized)
    monkeypatch.setattr(torch.xpu, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.xpu, "set_rng_state", lambda state, device: states.update({device.index: state}))
    monkeypatch.setattr(torch.xpu, "manual_seed_all", lambda seed: states.update(dict.fromkeys(states, seed)))
    return states


def test_generators_of_all_devices_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    states = use_fake_xpu(monkeypatch, is_initialized=True)
    cpu = torch.get_rng_state()
    with separate_global_state():
        torch.rand(3)
        states.update({0: 5, 1: 6})
    assert states == {0: 10, 1: 11}
    assert torch.equal(torch.get_rng_state(), cpu)


def test_generators_of_unused_devices_are_seeded_like_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(123)
    states = use_fake_xpu(monkeypatch, is_initialized=False)
    monkeypatch.delattr(torch.xpu, "get_rng_state")  # it would initialise the device
    with separate_global_state():
        states.update({0: 5, 1: 6})
    assert states == {0: 123, 1: 123}
