"""Contract checks of noise and augmentation."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from aetrain.data.augment import Augment
from aetrain.data.noise import LeveledNoise, Noise
from aetrain.testing.common import IMAGE_SHAPE, expect, random_images

SHAPES = ((1, 8, 8), (3, 6, 9), (1, 28, 28), (2, 5, 5))


def check_noise(noise: Noise) -> None:
    """Check a noise: shapes, range, determinism under a generator, an unchanged input, batches of 1 and 0 images.

    If it has levels, level 0 changes nothing and the error rises with the level.
    """
    name = type(noise).__name__

    def corrupt(x: Tensor, seed: int) -> Tensor:
        return noise(x, torch.Generator().manual_seed(seed))

    _check_transform(name, corrupt)
    x = random_images(4)
    state = torch.get_rng_state()
    corrupt(x, 0)
    expect(torch.equal(torch.get_rng_state(), state), f"{name} draws from the global generator beside the given one")
    _check_global_generator(name, lambda batch: noise(batch))
    if hasattr(noise, "at_level"):
        _check_levels(name, cast(LeveledNoise, noise))


def check_augment(augment: Augment) -> None:
    """Check an augmentation: shapes, range, determinism under a seed, an unchanged input, batches of 1 and 0 images."""
    name = type(augment).__name__
    expect(isinstance(augment.blends, bool), f"{name}.blends must say whether it makes grey pixels of black and white")

    def vary(x: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return augment(x)

    _check_transform(name, vary)
    if not augment.blends:
        binary = (random_images(4) > 0.5).float()
        out = vary(binary, 0)
        expect(bool(((out == 0) | (out == 1)).all()), f"{name}.blends is False, but black and white pixels become grey")
    _check_global_generator(name, augment)


def _check_levels(name: str, noise: LeveledNoise) -> None:
    x, errors = random_images(50), []
    for level in (0.0, 0.3, 0.9):
        noisy = noise.at_level(level, IMAGE_SHAPE)(x, torch.Generator().manual_seed(0))
        errors.append(float((noisy - x).square().sum()))
    expect(errors[0] == 0, f"at_level(0) of {name} changes pixels: level 0 returns the images bit for bit")
    expect(errors == sorted(errors) and errors[-1] > 0, f"at_level() of {name} has no larger error at a higher level")


def _check_transform(name: str, transform: Callable[[Tensor, int], Tensor]) -> None:
    for shape in SHAPES:
        for count in (5, 1, 0):
            x = random_images(count, shape)
            before = x.clone()
            out = transform(x, 0)
            where = f"of {count} images {list(shape)}"
            expect(out.shape == x.shape, f"{name} {where} returns {list(out.shape)}")
            expect(out.dtype == torch.float32, f"{name} {where} returns {out.dtype}, not float32")
            expect(bool(out.isfinite().all()), f"{name} {where} returns values that are not finite")
            expect(bool(((out >= 0) & (out <= 1)).all()), f"{name} {where} leaves [0, 1]")
            expect(torch.equal(x, before), f"{name} changes its input in place")
            expect(torch.equal(out, transform(x, 0)), f"{name} {where} differs between two calls with one seed")


def _check_global_generator(name: str, transform: Callable[[Tensor], Tensor]) -> None:
    x = random_images(6)
    results = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(3)
            results.append(transform(x))
    expect(torch.equal(*results), f"{name} draws from another source than torch's generators")
