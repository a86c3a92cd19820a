"""Robustness: the error of a model under every kind and level of noise, independent of its training noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from aetrain.data.images import in_order
from aetrain.data.noise import Gaussian, Noise, Replace
from aetrain.evaluation.evaluator import Metrics, sse
from aetrain.evaluation.measures.measure import EvalInputs, Measure

BATCH_SIZE = 1000


def kinds(level: float) -> Mapping[str, Noise]:
    """Return each kind of noise at a level: the standard deviation of Gaussian noise, the share of pixels of others."""
    return {
        "gaussian": Gaussian(level),
        "masking": Replace(level, white=0.0),
        "salt": Replace(level, white=1.0),
        "salt_and_pepper": Replace(level, white=0.5),
    }


@final
@dataclass(frozen=True)
class Robustness(Measure):
    """Squared error from the reconstructions of noisy images to the clean images, for each kind and level of noise.

    The error of the noisy images themselves is the baseline: a model that removes no noise does not get below it.
    `count` is the number of test images, from the first; null for all.
    """

    levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7)
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 0 or max(self.levels) > 1:
            raise ValueError(f"levels={list(self.levels)} must name 1 or more levels of noise from 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} measures nothing: use 1 or more, or null for all test images")

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `noisy_sse_gaussian_0.1` and so on, then `input_sse_gaussian_0.1` and so on, kind by kind."""
        denoised, noisy = {}, {}
        for kind in kinds(0.0):
            for level in self.levels:
                errors = noise_errors(inputs, kinds(level)[kind], self.count)
                denoised[f"noisy_sse_{kind}_{level:g}"], noisy[f"input_sse_{kind}_{level:g}"] = errors
        return {**denoised, **noisy}


@torch.no_grad()
def noise_errors(inputs: EvalInputs, noise: Noise, count: int | None = None) -> tuple[float, float]:
    """Return the mean squared errors, summed over pixels, of denoised and of noisy images against the clean ones.

    The same noise is drawn at every call.
    """
    model, images = inputs.model, inputs.splits.test[:count]
    generator = torch.Generator(images.pixels.device).manual_seed(1)
    totals = torch.zeros(2, dtype=torch.float64, device=images.pixels.device)
    for x in in_order(images, BATCH_SIZE, inputs.prepare):
        x_in = noise(x, generator)
        denoised = model.likelihood.mean(model(x_in).decoded)
        totals += torch.stack([sse(denoised, x).double().sum(), sse(x_in, x).double().sum()])
    denoised_sse, noisy_sse = (totals / len(images)).tolist()
    return denoised_sse, noisy_sse
