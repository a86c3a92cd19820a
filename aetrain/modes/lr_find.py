"""`mode=lr_find`: a learning-rate range test of a config, with its picture and the command that trains with the result.

No run is written: the weights are thrown away.
"""

import json
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.config.chosen_options import run_caption
from aetrain.config.errors import ConfigError
from aetrain.config.overrides import key_of
from aetrain.config.settings import Settings
from aetrain.data.examples import Batches
from aetrain.runs.build import Components, build
from aetrain.runs.entry import typed_overrides
from aetrain.runs.extension import LAST_PROGRESS
from aetrain.runs.initial_weights import pretrain
from aetrain.runs.request import RunRequest
from aetrain.runs.start_weights import StartWeights, find_start_weights
from aetrain.runs.train import check_training_images, load_data, log_data
from aetrain.runs.training_run import flatten_settings
from aetrain.storage import atomic
from aetrain.storage.run_directory import display_path
from aetrain.training.backend.setup import backend
from aetrain.training.backend.threads import choose_threads
from aetrain.training.loop import TrainState, fit
from aetrain.training.optimizers import LBFGS
from aetrain.training.range_test import RangeTestBatches, RangeTestStep, RateCurve, RateRecorder
from aetrain.views.annotations import Annotations, FigureOptions, RateLoss
from aetrain.views.view import save_content

log = logging.getLogger("aetrain")

NAME = "lr_find"  # of the files
LR = "optimizer.lr"
MIN_BATCHES = 20
NOTE = (
    "Each dot is the loss of a batch before the step with this rate; the line is their smoothed mean. The dotted line "
    "is the suggested rate, where the smoothed loss falls fastest."
)


@dataclass(frozen=True)
class RateRange:
    """The lowest and the highest rate of a range test, and the number of batches."""

    min_lr: float
    max_lr: float
    batches: int

    def __post_init__(self) -> None:
        if not 0 < self.min_lr < self.max_lr < float("inf"):
            raise ConfigError(
                f"mode.min_lr={self.min_lr:g} and mode.max_lr={self.max_lr:g} are no range: use 0 < min_lr < max_lr"
            )
        if self.batches < MIN_BATCHES:
            raise ConfigError(f"mode.batches={self.batches} is too small: use {MIN_BATCHES} or more")


def find_learning_rate(
    request: RunRequest, settings: Settings, min_lr: float = 1e-6, max_lr: float = 10.0, batches: int = 200
) -> dict[str, Any]:
    """Do a range test; write lr_find.png and lr_find.json, and log the suggested rate and the command.

    Return the content of lr_find.json. Raise ConfigError for a config without a learning rate.
    """
    rate_range = RateRange(min_lr, max_lr, batches)
    if settings.run is not None:
        raise ConfigError(f"mode=lr_find trains a new model: start={settings.run} begins with the weights of that run")
    components = build(settings)
    _check_optimizers(components)
    start_weights = find_start_weights(settings, components, request.run_dir.path)
    splits = load_data(components)
    check_training_images(components, splits)
    log_data(components, splits)
    loader = Batches(splits.train, settings.batch_size, components.dataset.prepare)
    with backend(choose_threads(settings, components.model, None)):
        curve = run_range_test(settings, components, loader, rate_range, start_weights)
    result = _summarise(curve)
    _write(request, settings, components, curve, result)
    log.info("%s", describe(result, settings.accumulate_grad_batches))
    if result["suggestion"] is not None:
        log.info("train:   %s", training_command(typed_overrides(request), result["suggestion"]))
    log.info("picture: %s", display_path(request.run_dir.path / f"{NAME}.{settings.figure_formats[0]}"))
    return result


def _check_optimizers(components: Components) -> None:
    """Raise ConfigError for an optimizer whose steps no learning rate decides."""
    for optimizer in components.optimizers:
        if isinstance(optimizer, LBFGS) and optimizer.defaults.get("line_search_fn"):
            raise ConfigError("optimizer=lbfgs finds the length of a step by a line search: there is no rate to find")
        if any("lr" not in group for group in optimizer.param_groups):
            raise ConfigError(f"{type(optimizer).__name__} has no learning rate lr: there is no rate to find")


def run_range_test(
    settings: Settings,
    components: Components,
    batches: Batches,
    rate_range: RateRange,
    start_weights: StartWeights | None = None,
) -> RateCurve:
    """Train on batches while the rate rises from the lowest to the highest one; return the loss of each step.

    The weights of penalties are those at the end of training.
    """
    pretrain(components, batches)
    if start_weights is not None:
        start_weights.load(components)
        log.info("%s", start_weights.describe())
    recorder = RateRecorder()
    steps = []
    for number, step in enumerate(components.optimizer_steps):
        step.set_progress(LAST_PROGRESS)
        own_recorder = recorder if number == 0 else None  # the others are of critics
        steps.append(RangeTestStep(step, rate_range.min_lr, rate_range.max_lr, own_recorder))
    state = TrainState(components.model, settings.seed, epochs=1)
    loader = RangeTestBatches(batches, rate_range.batches, recorder)
    fit(state, steps, loader, accumulate=settings.accumulate_grad_batches)
    return recorder.curve()


def _summarise(curve: RateCurve) -> dict[str, Any]:
    if not curve.rates:
        raise ConfigError("the loss is not finite before the first step: check the data and the model")
    suggestion = curve.suggestion
    return {
        "suggestion": None if suggestion is None else float(f"{curve.rates[suggestion]:.1e}"),
        "lowest": curve.rates[curve.lowest],
        "diverged": curve.rates[-1] if curve.diverged else None,
        "rates": list(curve.rates),
        "losses": list(curve.losses),
    }


def _write(
    request: RunRequest, settings: Settings, components: Components, curve: RateCurve, result: dict[str, Any]
) -> None:
    """Write the numbers and the picture."""
    folder = request.run_dir.path
    atomic.replace_text(folder / f"{NAME}.json", json.dumps(result, indent=1) + "\n")
    caption = run_caption(flatten_settings(settings), typed_overrides(request), 0, settings.seed)
    options = FigureOptions(caption, settings.figure_formats, noun=components.dataset.noun)
    picture = RateLoss(curve.rates, curve.losses, curve.smoothed.tolist(), result["suggestion"])
    annotations = Annotations("Learning-rate range test", x_axis="learning rate", y_axis="training loss", note=NOTE)
    save_content(picture, annotations, folder / NAME, options)


def describe(result: dict[str, Any], accumulate: int = 1) -> str:
    """Return the result of a test as a sentence; each of its steps took `accumulate` batches."""
    if result["suggestion"] is None:
        loss = "the loss does not fall clearly at any rate: try other mode.min_lr, mode.max_lr or more mode.batches"
    else:
        loss = f"the loss falls fastest at {LR}={result['suggestion']:g}, and is lowest at {result['lowest']:.2g}"
    end = f"it does not diverge up to {result['rates'][-1]:.2g}"
    if result["diverged"] is not None:
        end = f"it diverges at {result['diverged']:.2g}, after {accumulate * len(result['rates'])} batches"
    return f"lr_find: {loss}; {end}"


def training_command(overrides: Sequence[str], rate: float) -> str:
    """Return the shell command that trains with the rate."""
    dropped = ("mode", "hydra")
    kept = [text for text in overrides if key_of(text) != LR and key_of(text).partition(".")[0] not in dropped]
    return shlex.join(["aetrain", *kept, f"{LR}={rate:g}"])
