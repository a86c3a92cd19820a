"""Robustness: the error of a model under every kind and level of noise, independent of its training noise."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, cast, final

import torch

from aetrain.config.errors import list_choices
from aetrain.config.paths import groups, option_config
from aetrain.config.validate import locate
from aetrain.data.examples import with_targets
from aetrain.data.noise import LeveledNoise, Noise, noise_for
from aetrain.evaluation.evaluator import Metrics, squared_error
from aetrain.evaluation.measures.measure import EvalInputs, Measure
from aetrain.model.autoencoder import Autoencoder
from aetrain.utils.devices import to_float64

BATCH_SIZE = 1000


def noise_kinds(
    names: Sequence[str] | None = None, extra: Mapping[str, LeveledNoise] | None = None
) -> dict[str, LeveledNoise]:
    """Return the kinds of noise to compare, by name: the options of `configs/noise` that declare a level, then `extra`.

    `names` selects options; None for all. Raise ValueError for an unknown name, an extra kind that declares no level
    or has the name of an option, and where no kind is left.
    """
    options = _options_with_level()
    for name in names or ():
        if name not in options:
            raise ValueError(f"kinds={list(names or ())} has {name!r}: use names among {list_choices(options, name)}")
    selected = options if names is None else {name: options[name] for name in names}
    for name, noise in (extra or {}).items():
        if name in options:
            raise ValueError(f"extra_kinds={list(extra or ())}: {name} is the name of an option: use another name")
        if not hasattr(noise, "at_level"):
            kind = type(noise).__name__
            raise ValueError(f"extra_kinds={list(extra or ())}: {kind} has no method at_level(level, image_shape)")
    kinds = {**selected, **(extra or {})}
    if not kinds:
        raise ValueError("kinds=[] has no noise: name at least one kind, or use null for all")
    return kinds


def _options_with_level() -> dict[str, LeveledNoise]:
    """Return the project's own kinds of noise that have a method `at_level`, by option, with their default settings."""
    kinds = {}
    for option in groups()["noise"]:
        settings = dict(option_config("noise", option))
        target = locate(settings.pop("_target_"))
        if hasattr(target, "at_level"):
            kinds[option] = target(**settings)
    return kinds


def kinds_for(kinds: Mapping[str, LeveledNoise], model: Autoencoder) -> dict[str, LeveledNoise]:
    """Return the kinds of noise that mean something for the data of a model, as they are there."""
    fitting = {}
    for name, noise in kinds.items():
        with suppress(ValueError):
            fitting[name] = cast(LeveledNoise, noise_for(noise, model.kind, model.has_missing))
    return fitting


def check_levels(levels: Sequence[float]) -> None:
    """Raise ValueError where there is no level or one is not from 0 to 1."""
    if not levels or min(levels) < 0 or max(levels) > 1:
        raise ValueError(f"levels={list(levels)} must name 1 or more levels of noise from 0 to 1")


@final
@dataclass(frozen=True)
class Robustness(Measure):
    """Squared error from the reconstructions of noisy images to the clean images, for each kind and level of noise.

    The error of the noisy images themselves is the baseline: a model that removes no noise does not get below it.
    `count` is the number of test images, from the first; null for all. `kinds` names options of `noise`; null for all
    that declare a level. `extra_kinds` are other kinds by name, such as a user's own.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "noisy_sse_NOISE_LEVEL": (
            "squared error summed over values, from the reconstruction of an example with this kind and level of "
            "noise to the clean one"
        ),
        "input_sse_NOISE_LEVEL": (
            "squared error summed over values, from an example with this kind and level of noise to the clean one"
        ),
    }

    levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7)
    count: int | None = None
    kinds: Sequence[str] | None = None
    extra_kinds: Mapping[str, LeveledNoise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} measures nothing: use 1 or more, or null for all test images")
        noise_kinds(self.kinds, self.extra_kinds)

    def check(self, model: Autoencoder) -> None:
        """Raise ValueError where `kinds` names one that means nothing for the model's data."""
        for noise in noise_kinds(self.kinds).values() if self.kinds else ():
            noise_for(noise, model.kind)

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `noisy_sse_gaussian_0.1` and so on, then `input_sse_gaussian_0.1` and so on, kind by kind.

        Kinds of noise that mean nothing for the model's data are left out.
        """
        denoised, noisy = {}, {}
        for name, kind in kinds_for(noise_kinds(self.kinds, self.extra_kinds), inputs.model).items():
            for level in self.levels:
                noise = kind.at_level(level, inputs.model.image_shape)
                errors = noise_errors(inputs, noise, self.count)
                denoised[f"noisy_sse_{name}_{level:g}"], noisy[f"input_sse_{name}_{level:g}"] = errors
        return {**denoised, **noisy}


@torch.no_grad()
def noise_errors(inputs: EvalInputs, noise: Noise, count: int | None = None) -> tuple[float, float]:
    """Return the mean squared errors, summed over pixels, of denoised and of noisy images against the clean ones.

    They are the metrics `noisy_sse` and `input_sse` under this noise. The same noise is drawn at every call.
    """
    model, images, error = inputs.model, inputs.splits.test[:count], squared_error(inputs.model)
    generator = torch.Generator(images.values.device).manual_seed(1)
    totals = to_float64(torch.zeros(2, device=images.values.device))
    for clean, x in with_targets(images, BATCH_SIZE, inputs.prepare):
        x_in = noise(clean, generator)
        denoised = model.likelihood.expected(model(x_in).decoded, x)
        seen = x_in.nan_to_num(0.0) if model.has_missing else x_in
        totals += torch.stack([to_float64(error(denoised, x)).sum(), to_float64(error(seen, x)).sum()])
    denoised_sse, noisy_sse = (totals / len(images)).tolist()
    return denoised_sse, noisy_sse
