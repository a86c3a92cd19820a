"""How a model fares under noise of every kind and strength, whatever it was trained with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from aetrain.data.batches import in_order
from aetrain.data.noise import Gaussian, Noise, Replace
from aetrain.evaluation.measures import Measure, Subject
from aetrain.evaluation.ruler import Figures, sse


def kinds(level: float) -> Mapping[str, Noise]:
    """Every kind of noise at a level: the standard deviation of gaussian noise, the share of pixels hit of others."""
    return {
        "gaussian": Gaussian(level),
        "masking": Replace(level, white=0.0),
        "salt": Replace(level, white=1.0),
        "salt_and_pepper": Replace(level, white=0.5),
    }


@final
@dataclass(frozen=True)
class Robustness(Measure):
    """The squared error from noisy images to clean ones, of each kind of noise at each level.

    Beside it is the error of the noisy images themselves, which a model that cleans nothing comes to at best. `count`
    test images, from the first; null for all.
    """

    levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7)
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 0 or max(self.levels) > 1:
            raise ValueError(f"levels={list(self.levels)} must name 1 or more levels of noise from 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} measures nothing: use 1 or more, or null for all test images")

    def __call__(self, subject: Subject) -> Figures:
        noises = {f"{kind}_{level:g}": noise for level in self.levels for kind, noise in kinds(level).items()}
        order = sorted(noises, key=lambda name: name.rpartition("_")[0])  # kind by kind, each from the first level
        figures = {name: errors(subject, noises[name], self.count) for name in order}
        return {
            **{f"noisy_sse_{name}": made for name, (made, _) in figures.items()},
            **{f"input_sse_{name}": seen for name, (_, seen) in figures.items()},
        }


@torch.no_grad()
def errors(subject: Subject, noise: Noise, count: int | None = None) -> tuple[float, float]:
    """Mean squared error from noisy images to clean ones, and of the noisy images; the same noise each time."""
    model, images = subject.model, subject.splits.test[:count]
    generator = torch.Generator(images.pixels.device).manual_seed(1)
    total = torch.zeros(2, dtype=torch.float64, device=images.pixels.device)
    for x in in_order(images, 1000, subject.prepare):
        x_in = noise(x, generator)
        painted = model.likelihood.mean(model(x_in).decoded)
        total += torch.stack([sse(painted, x).double().sum(), sse(x_in, x).double().sum()])
    made, seen = (total / len(images)).tolist()
    return made, seen
