"""Augmentation: the effect of each setting on an image; it applies in training only."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.augment import Affine
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.runs import entry
from aetrain.runs.build import build

IDENTITY = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def augment(x: Tensor, monkeypatch: pytest.MonkeyPatch, draws: tuple[float, ...], **settings: float) -> Tensor:
    """Augment all images with the same draws of the generator: (degrees, scale, shear, shift right, shift down)."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda rows, count, device: torch.tensor(draws)[:, None].expand(rows, count))
        return Affine(**{**IDENTITY, **settings})(x)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))


def test_degrees_rotate(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated = augment(x, monkeypatch, (1, 0, 0, 0, 0), degrees=90)
    torch.testing.assert_close(rotated, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_a_shift_moves_by_pixels_and_fills_with_black(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = augment(x, monkeypatch, (0, 0, 0, 1, -1), shift=2)
    torch.testing.assert_close(shifted[:, :, 2:, :-2], x[:, :, :-2, 2:], atol=1e-5, rtol=0)
    assert shifted[:, :, :1].abs().max() < 1e-5
    assert shifted[:, :, :, -1:].abs().max() < 1e-5


def test_scale_one_shows_every_second_pixel(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = augment(x, monkeypatch, (0, 1, 0, 0, 0), scale=1)
    torch.testing.assert_close(smaller[:, :, 2:7, 2:7], x[:, :, ::2, ::2], atol=1e-5, rtol=0)


def test_shear_moves_each_row_by_its_distance_from_the_middle(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sheared = augment(x, monkeypatch, (0, 0, 1, 0, 0), shear=1)
    for row in range(9):
        shift = row - 4
        inside = slice(max(0, -shift), min(9, 9 - shift))
        torch.testing.assert_close(
            sheared[:, :, row, inside], x[:, :, row, inside.start + shift : inside.stop + shift], atol=1e-5, rtol=0
        )


def test_the_geometry_is_in_pixels_where_sides_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a wide image and of a square image are rotated and sheared alike."""
    square = torch.zeros(1, 1, 20, 20)
    square[:, :, 7:13, 7:13] = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    wide = square[:, :, 4:16]
    for draws, settings in (((1, 0, 0, 0, 0), {"degrees": 30}), ((0, 0, 1, 0, 0), {"shear": 0.4})):
        expected, result = (augment(x, monkeypatch, draws, **settings) for x in (square, wide))
        torch.testing.assert_close(result, expected[:, :, 4:16], atol=1e-5, rtol=0)


@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(2, 30), st.integers(2, 30)),
    size=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_results_have_the_shape_and_the_range_of_images(shape: tuple[int, ...], size: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.rand(shape)
    out = Affine(degrees=20 * size, scale=size, shear=size, shift=9 * size)(x)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    if size == 0:
        torch.testing.assert_close(out, x, atol=1e-5, rtol=0)


def test_every_image_gets_its_own_draw() -> None:
    x = torch.rand(1, 1, 12, 12).expand(5, -1, -1, -1)
    torch.manual_seed(0)
    out = Affine()(x)
    assert all((out[i] - out[j]).abs().max() > 1e-3 for i in range(5) for j in range(i))


def test_the_augmented_image_is_input_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, overrides = api.compose_config([*TINY, "augment=affine", "augment.shift=2"])
    components = build(entry.check(config, overrides))
    inputs_and_targets: list[tuple[Tensor, Tensor | None]] = []
    forward = Autoencoder.forward

    def recording_forward(self: Autoencoder, x_in: Tensor, x: Tensor | None = None) -> Forward:
        inputs_and_targets.append((x_in, x))
        return forward(self, x_in, x)

    monkeypatch.setattr(Autoencoder, "forward", recording_forward)
    x = torch.rand(4, *components.model.image_shape)
    components.optimizer_steps[0](x)
    ((x_in, target),) = inputs_and_targets
    assert x_in is target
    assert (x_in - x).abs().max() > 0.01


def test_only_training_augments(tiny: Callable[..., Path]) -> None:
    """A model that does not learn has the same test loss with and without augmentation."""
    metrics = []
    for name in ("none", "affine"):
        run = tiny("model=linear", f"augment={name}", "optimizer=sgd", "optimizer.lr=1e-12", name=name)
        metrics.append(json.loads((run / "metrics.json").read_text()) | {"train/loss": last_training_loss(run)})
    plain, augmented = metrics
    assert augmented["test/loss"] == pytest.approx(plain["test/loss"], rel=1e-5)
    assert augmented["train/loss"] != pytest.approx(plain["train/loss"], rel=1e-4)


def last_training_loss(run: Path) -> float:
    line = (run / "history.jsonl").read_text().splitlines()[-1]
    return float(json.loads(line)["train/loss"])


def test_images_with_missing_pixels_are_refused(tiny: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"augment=affine would spread missing pixels.*dataset.missing=0 \(it is 0.3\)"
    ):
        tiny("augment=affine", "dataset.missing=0.3")


@pytest.mark.parametrize("binarize", ["threshold", "static", "dynamic"])
def test_binarized_images_are_refused(binarize: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=f"augment=affine would turn black and white pixels grey.*it is {binarize}"):
        tiny("augment=affine", f"dataset.binarize={binarize}")


def test_a_run_without_the_group_augment_resumes(tiny: Callable[..., Path]) -> None:
    config = tiny("model=linear") / ".hydra" / "config.yaml"
    config.write_text(re.sub(r"^augment:\n(  .*\n)+", "", config.read_text(), flags=re.M))
    assert "augment" not in config.read_text()
    assert json.loads((tiny("model=linear", "epochs=2") / "metrics.json").read_text())["epochs"] == 2
    with pytest.raises(ConfigError, match="another config"):
        tiny("model=linear", "epochs=3", "augment=affine")


@pytest.mark.parametrize("name", list(IDENTITY))
def test_a_negative_deviation_is_refused(name: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=rf"augment.*{name}=-1.*0 or more"):
        tiny("augment=affine", f"augment.{name}=-1")
