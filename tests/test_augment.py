"""Augmentation: what each number does to a picture, and that only training sees it."""

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
from aetrain.runs import train
from aetrain.runs.build import build

STILL = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def varied(x: Tensor, monkeypatch: pytest.MonkeyPatch, draws: tuple[float, ...], **numbers: float) -> Tensor:
    """With draws (turn, size, slant, right, down), equal for all images."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda rows, count, device: torch.tensor(draws)[:, None].expand(rows, count))
        return Affine(**{**STILL, **numbers})(x)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))


def test_a_quarter_turn_turns_by_a_quarter(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = varied(x, monkeypatch, (1, 0, 0, 0, 0), degrees=90)
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_a_shift_moves_by_pixels_and_black_moves_in(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = varied(x, monkeypatch, (0, 0, 0, 1, -1), shift=2)
    torch.testing.assert_close(moved[:, :, 2:, :-2], x[:, :, :-2, 2:], atol=1e-5, rtol=0)
    assert moved[:, :, :1].abs().max() < 1e-5
    assert moved[:, :, :, -1:].abs().max() < 1e-5


def test_twice_the_step_shows_every_second_pixel(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = varied(x, monkeypatch, (0, 1, 0, 0, 0), scale=1)
    torch.testing.assert_close(smaller[:, :, 2:7, 2:7], x[:, :, ::2, ::2], atol=1e-5, rtol=0)


def test_a_slant_moves_each_row_by_its_height(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    slanted = varied(x, monkeypatch, (0, 0, 1, 0, 0), shear=1)
    for row in range(9):
        by = row - 4
        kept = slice(max(0, -by), min(9, 9 - by))
        torch.testing.assert_close(
            slanted[:, :, row, kept], x[:, :, row, kept.start + by : kept.stop + by], atol=1e-5, rtol=0
        )


def test_geometry_is_that_of_pixels_where_sides_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a wide picture, turned, is that of a square one; a slant moves by as many pixels."""
    square = torch.zeros(1, 1, 20, 20)
    square[:, :, 7:13, 7:13] = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    wide = square[:, :, 4:16]
    for draws, numbers in (((1, 0, 0, 0, 0), {"degrees": 30}), ((0, 0, 1, 0, 0), {"shear": 0.4})):
        known, found = (varied(x, monkeypatch, draws, **numbers) for x in (square, wide))
        torch.testing.assert_close(found, known[:, :, 4:16], atol=1e-5, rtol=0)


@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(2, 30), st.integers(2, 30)),
    size=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_images_stay_images(shape: tuple[int, ...], size: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.rand(shape)
    out = Affine(degrees=20 * size, scale=size, shear=size, shift=9 * size)(x)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    if size == 0:
        torch.testing.assert_close(out, x, atol=1e-5, rtol=0)


def test_every_image_is_varied_in_its_own_way() -> None:
    x = torch.rand(1, 1, 12, 12).expand(5, -1, -1, -1)
    torch.manual_seed(0)
    out = Affine()(x)
    assert all((out[i] - out[j]).abs().max() > 1e-3 for i in range(5) for j in range(i))


def test_the_varied_image_is_input_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, said = api.composed([*TINY, "augment=affine", "augment.shift=2"])
    parts = build(train.checked(config, said))
    seen: list[tuple[Tensor, Tensor]] = []
    forward = Autoencoder.forward
    monkeypatch.setattr(Autoencoder, "forward", lambda self, a, b: seen.append((a, b)) or forward(self, a, b))
    x = torch.rand(4, *parts.model.image_shape)
    parts.updates[0].step(x)
    ((given, target),) = seen
    assert given is target
    assert (given - x).abs().max() > 0.01


def test_only_training_sees_it(tiny: Callable[..., Path]) -> None:
    """A model that does not learn is measured alike with it and without."""
    figures = []
    for name in ("none", "affine"):
        run = tiny("model=linear", f"augment={name}", "optimizer=sgd", "optimizer.lr=1e-12", name=name)
        figures.append(json.loads((run / "metrics.json").read_text()) | {"trained": history(run)})
    without, with_it = figures
    assert with_it["test/loss"] == pytest.approx(without["test/loss"], rel=1e-5)
    assert with_it["trained"] != pytest.approx(without["trained"], rel=1e-4)


def history(run: Path) -> float:
    line = (run / "history.jsonl").read_text().splitlines()[-1]
    return float(json.loads(line)["train/loss"])


@pytest.mark.parametrize("binarize", ["threshold", "static", "dynamic"])
def test_black_and_white_images_are_not_made_grey(binarize: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=f"augment=affine would make grey pixels.*it is {binarize}"):
        tiny("augment=affine", f"dataset.binarize={binarize}")


def test_a_run_from_before_there_was_augmentation_goes_on(tiny: Callable[..., Path]) -> None:
    config = tiny("model=linear") / ".hydra" / "config.yaml"
    config.write_text(re.sub(r"^augment:\n(  .*\n)+", "", config.read_text(), flags=re.M))
    assert "augment" not in config.read_text()
    assert json.loads((tiny("model=linear", "epochs=2") / "metrics.json").read_text())["epochs"] == 2
    with pytest.raises(ConfigError, match="another config"):
        tiny("model=linear", "epochs=3", "augment=affine")


@pytest.mark.parametrize("name", list(STILL))
def test_a_negative_deviation_is_refused(name: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=rf"augment.*{name}=-1.*0 or more"):
        tiny("augment=affine", f"augment.{name}=-1")
