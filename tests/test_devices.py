"""The setting `device`, and runs on a device of tests that has the rules of an accelerator without float64."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY
from fake_device import DEVICE, fake_device

from aetrain.config.errors import ConfigError
from aetrain.training.backend import device as device_module
from aetrain.training.backend.device import select_device
from aetrain.utils import devices
from aetrain.utils.devices import keep_random_state, seed_generators, to_float64

ON_DEVICE = tuple(word for word in TINY if word != "device=cpu")

FEW_LABELS = (
    *("measures=few_labels", "measures.few_labels.labels=[20]"),
    *("measures.few_labels.epochs=1", "measures.few_labels.steps=2"),
)


@pytest.fixture
def _fake_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device_module, "accelerator", lambda: torch.device(DEVICE.type))
    with fake_device():
        yield


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("auto", None, "cpu"),
        ("auto", "mps", "mps"),
        ("auto", "xpu", "xpu"),
        ("cpu", "cuda", "cpu"),
        ("mps", "mps", "mps"),
    ],
)
def test_device_is_the_accelerator_unless_the_setting_names_another(
    name: str, present: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "accelerator", lambda: present and torch.device(present))
    assert select_device(name).type == expected


@pytest.mark.parametrize(("name", "present"), [("cuda", None), ("mps", None), ("xpu", "cuda")])
def test_missing_device_is_refused(name: str, present: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "accelerator", lambda: present and torch.device(present))
    with pytest.raises(ConfigError, match=f"device={name}: torch finds .* use device=auto or device=cpu"):
        select_device(name)


@pytest.mark.usefixtures("_fake_device")
def test_device_of_tests_has_the_rules_of_an_accelerator() -> None:
    x = torch.rand(4, 3, device=DEVICE)
    assert x[0].device == (x @ x.t()).device == DEVICE
    assert x.cpu().device.type == "cpu"
    for call, message in (
        (lambda: x + torch.rand(4, 3), "two devices"),
        (lambda: x.numpy(), "array"),
        (lambda: x.double(), "no float64"),
        (lambda: torch.rand(3, device=DEVICE, generator=torch.Generator()), "needs a generator"),
    ):
        with pytest.raises((RuntimeError, TypeError), match=message):
            call()
    assert to_float64(x).dtype == torch.float64


@pytest.mark.usefixtures("_fake_device")
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=vae", "noise=masking"),
        pytest.param(("model=conv_unpool", "views=all", "augment=affine"), marks=pytest.mark.slow),
        pytest.param(("model=vqvae", "measures=probes"), marks=pytest.mark.slow),
        pytest.param(("model=categorical", "measures=robustness"), marks=pytest.mark.slow),
        pytest.param(("model=vae", "measures=likelihood", "optimizer=lbfgs"), marks=pytest.mark.slow),
        pytest.param(("model=conv_vae", "ema=0.9", *FEW_LABELS), marks=pytest.mark.slow),
        pytest.param(("model=aae", "measures=frechet", "dataset.binarize=dynamic"), marks=pytest.mark.slow),
        pytest.param(("model=deep", "pretrain=layerwise", "pretrain.epochs=1"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_run_keeps_to_the_rules_of_an_accelerator(
    overrides: Sequence[str], run: Callable[..., Path], tmp_path: Path
) -> None:
    """A run mixes no devices, draws with generators of the device, and has no float64 on it."""
    directory = run(*ON_DEVICE, *overrides, f"device={DEVICE.type}", f"data_dir='{tmp_path}'")
    assert (directory / "metrics.json").is_file()


def test_generators_are_seeded_as_torch_seeds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    by_torch = torch.rand(3)
    seed_generators(5)
    assert torch.equal(torch.rand(3), by_torch)
    assert torch.initial_seed() == 5
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    monkeypatch.setattr(devices, "accelerator", lambda: torch.device("cuda"))
    seed_generators(7)
    assert seeds == [7]


def test_random_states_of_cpu_and_mps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    state = [torch.zeros(1)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda value: state.__setitem__(0, value))
    before = torch.get_rng_state()
    with keep_random_state(torch.device("mps")):
        torch.rand(3)
        state[0] = torch.ones(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert state[0] == 0


def test_float64_is_on_the_cpu_only_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.has_float64.cache_clear()
    assert devices.has_float64("cuda")
    assert not devices.has_float64("mps")
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda: type("Properties", (), {"has_fp64": False}))
    assert not devices.has_float64("xpu")
    devices.has_float64.cache_clear()
