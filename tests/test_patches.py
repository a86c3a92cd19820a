"""Patches of photographs: where they come from, their whitening, and the Gabor functions that fit them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from aetrain.data.patches import BORDER, CUTOFF, RANGE, Patches, to_bytes, whiten


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Images of noise whose amplitude falls with the frequency, as that of photographs, uint8 [6, 48, 48, 3]."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(48)[None])
    spectrum = np.fft.fft2(random.normal(size=(6, 48, 48))) / np.maximum(frequency, 1 / 48)
    images = np.fft.ifft2(spectrum).real
    images = 128 + 40 * (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
    return images.clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)


@pytest.fixture(scope="module")
def file(photographs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photographs") / "photographs.npz"
    np.savez(path, images=photographs)
    return str(path)


def test_patches_are_parts_of_the_images_and_splits_share_none(file: str, photographs: np.ndarray) -> None:
    train, test = Patches(path=file, size=6, count=50, whiten=False, test_fraction=0.34).read()
    assert (len(train), len(test)) == (33, 17)
    windows = np.lib.stride_tricks.sliding_window_view(photographs[..., 0], (6, 6), axis=(1, 2)).reshape(6, -1, 36)
    sources = [
        {int((windows == patch.flatten().numpy()).all(2).any(1).argmax()) for patch in split.pixels}
        for split in (train, test)
    ]
    for split in (train, test):
        assert all((windows == patch.flatten().numpy()).all(2).any() for patch in split.pixels)
    assert not sources[0] & sources[1]
    assert len(sources[1]) == 2


def test_whitening_divides_the_amplitude_by_that_of_photographs(photographs: np.ndarray) -> None:
    values = whiten(torch.from_numpy(photographs[0, :, :, 0]).double())
    assert float(values.mean()) == pytest.approx(0, abs=1e-12)
    assert float(values.std()) == pytest.approx(1)
    frequency = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(48)[None])
    gain = frequency * np.exp(-((frequency / CUTOFF) ** 4))
    expected = np.fft.ifft2(np.fft.fft2(photographs[0, :, :, 0].astype(float)) * gain).real
    np.testing.assert_allclose(values.numpy(), expected / expected.std(ddof=1), atol=1e-9)
    with pytest.raises(ValueError, match="pixels of one value"):
        whiten(torch.ones(8, 8))


def test_whitened_patches_are_stored_around_grey(file: str, photographs: np.ndarray) -> None:
    assert to_bytes(torch.tensor([-9.0, -RANGE, 0, 1, RANGE, 9])).tolist() == [0, 0, 128, 153, 255, 255]
    (train, _) = Patches(path=file, size=6, count=400).read()
    values = (train.pixels.double() / 127.5 - 1) * RANGE
    assert float(values.std()) == pytest.approx(1, abs=0.1)
    grey = torch.from_numpy(photographs).double().mean(3) / 255
    inside = [whiten(image)[BORDER:-BORDER, BORDER:-BORDER].unfold(0, 6, 1).unfold(1, 6, 1) for image in grey]
    windows = to_bytes(torch.stack(inside)).flatten(0, 2).flatten(1)
    for patch in train.pixels[:10]:
        difference = (windows.int() - patch.flatten().int()).abs().amax(1)
        assert int(difference.min()) <= 1


def test_a_folder_of_images_is_read_as_an_array(file: str, photographs: np.ndarray, tmp_path: Path) -> None:
    for number, image in enumerate(photographs):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    stored, folder = (Patches(path=path, size=8, count=40).load() for path in (file, str(tmp_path)))
    assert (stored.train.pixels.int() - folder.train.pixels.int()).abs().max() <= 1  # of rounded grey values
    assert torch.equal(folder.train.pixels, Patches(path=str(tmp_path), size=8, count=40).load().train.pixels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 1}, "size=1 is too small"),
        ({"count": 1}, "count=1 is too small"),
        ({"size": 41}, r"image \d has 48x48 pixels: patches of size=41 need at least 49"),
        ({"path": "nowhere.npz"}, "does not exist"),
    ],
)
def test_mistakes_are_one_message(settings: dict[str, object], message: str, file: str) -> None:
    with pytest.raises(ValueError, match=message):
        Patches(**{"path": file, **settings}).load()  # type: ignore[arg-type]


def test_the_experiment_learns_patches(file: str, run: Callable[..., Path]) -> None:
    directory = run(
        *("experiment=natural_patches", f"dataset.path='{file}'", "dataset.count=300", "epochs=1", "views=[units]"),
        *("device=cpu", "model.code_dim=16"),
    )
    assert (directory / "figures" / "units-code.png").is_file()


# --- Gabor functions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gabor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gabor", ROOT / "benchmarks" / "gabor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("theta", "frequency", "phase"), [(0.0, 0.2, 0.0), (0.8, 0.15, 1.0), (-1.2, 0.3, 2.0)])
def test_a_gabor_function_is_fitted(gabor: ModuleType, theta: float, frequency: float, phase: float) -> None:
    y, x = np.mgrid[-6:6, -6:6] + 0.5
    across = x * np.cos(theta) + y * np.sin(theta) - 1
    along = y * np.cos(theta) - x * np.sin(theta)
    image = np.exp(-0.5 * ((across / 2) ** 2 + (along / 3) ** 2)) * np.cos(2 * np.pi * frequency * across + phase)
    assert gabor.gabor_r2(3 * image) > 0.95


def test_noise_and_gratings_without_an_envelope_are_no_gabor_functions(gabor: ModuleType) -> None:
    y, x = np.mgrid[0:12, 0:12]
    checkers = np.cos(np.pi * 3 * (x + 0.5) / 12) * np.cos(np.pi * 4 * (y + 0.5) / 12)
    noise = np.random.default_rng(0).normal(size=(12, 12))
    assert gabor.gabor_r2(checkers) < 0.7
    assert gabor.gabor_r2(noise) < 0.5
    assert gabor.gabor_r2(np.zeros((12, 12))) == 0
    assert gabor.gabor_share(np.stack([noise, checkers]), 0.8) == 0
