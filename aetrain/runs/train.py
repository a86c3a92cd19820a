"""One training run, in order: build the components, load the data, train, evaluate."""

import logging
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from torch import Tensor

from aetrain.config.errors import ConfigError, error_context
from aetrain.config.settings import Settings
from aetrain.data.dataset import Dataset
from aetrain.data.digests import digest_data
from aetrain.data.examples import Splits, fill_missing, in_order, known_mean
from aetrain.evaluation.evaluator import Evaluator, Metrics
from aetrain.evaluation.measures.few_labels import FewLabels
from aetrain.evaluation.measures.measure import EvalInputs
from aetrain.model.pca import PCA
from aetrain.runs import process_group
from aetrain.runs.build import Components, build
from aetrain.runs.entry import with_original_overrides
from aetrain.runs.epoch_selection import check_names, check_pruned, check_split, stop_reason_of_finished
from aetrain.runs.extension import check_epochs
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import check_same_data
from aetrain.runs.start_weights import find_start_weights
from aetrain.runs.training_run import TrainingRun, reporting_disk_errors
from aetrain.storage.checkpoint_state import latest_state
from aetrain.training.backend.denormals import flush_denormals
from aetrain.training.backend.setup import backend
from aetrain.training.backend.threads import choose_threads
from aetrain.training.loop import Callback, EpochLoader, ProgressBar, TrainState, fit
from aetrain.utils import processes

log = logging.getLogger("aetrain")

CONTINUE_STOPPED = "a larger stop.patience= continues it, or stop.patience=null"
PCA_MAX_PIXELS = 4096  # the covariance of larger images takes longer than training
PCA_BATCH_SIZE = 2048  # images of which moments are summed at a time


@flush_denormals()  # before the first parallel computation: the threads that it starts compute as this one
def train(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Train a model from the start or from the run's checkpoint; return the content of metrics.json."""
    metrics = already_done(request, settings)
    if metrics is not None:
        return metrics
    components = build(settings)
    check_names(request, settings, components)
    start_weights = find_start_weights(settings, components, request.run_dir.path)
    process_group.begin(settings, components)
    splits = process_group.load_together(components, load_data)
    check_split(request, settings, components, splits.held_out[0])
    check_training_images(components, splits)
    check_measures(components, splits)
    data = digest_data(splits)
    check_same_data(request.run_dir, data)
    request = claim_directory(request)
    run_dir = request.run_dir
    resumed = latest_state(run_dir.path)
    threads = choose_threads(settings, components.model, resumed)
    with (
        run_dir.logging(),
        reporting_disk_errors(run_dir),
        process_group.explaining_loss(run_dir),
        backend(process_group.share_threads(threads, resumed, components.device)),
    ):
        log_data(components, splits)
        fit_pca = pca_baseline(components, splits)
        training_run = TrainingRun(request, settings, components, splits, data, fit_pca)
        with training_run.event_file():
            process_group.share_start(is_new=training_run.saved is None)
            training_run.prepare(start_weights)
            state, steps, batches = training_run.state, components.optimizer_steps, training_run.batches
            process_group.share_state(state, training_run.training_state, steps)
            process_group.compile_if_set(settings, components, batches, state)
            bar = _progress_bar() if request.single else None
            share_end_of_epoch = partial(process_group.share_end_of_epoch, steps=steps)
            callbacks: list[Callback] = [process_group.check_same_weights, training_run.record, share_end_of_epoch]
            fit(state, steps, batches, callbacks, bar, settings.accumulate_grad_batches)
            check_pruned(training_run.journal, state.stop_reason)
            with training_run.final_weights(), processes.act_alone():
                return training_run.finish(evaluate_components(components, splits, fit_pca))


def already_done(request: RunRequest, settings: Settings) -> dict[str, Any] | None:
    """Return the metrics of a run that is finished, or failed or pruned in an earlier sweep; None where work is left.

    Raise ConfigError where the directory holds another run, or this one at a later epoch than the last of `epochs`.
    """
    run_dir = request.run_dir
    run_dir.check_same_config(request.config)
    metrics = run_dir.metrics()
    status = metrics.get("status")
    if status == "finished" and metrics.get("epochs", 0) >= settings.epochs:
        log.info("%s is finished: nothing to do (a larger epochs= continues it)", run_dir)
    elif status == "finished" and (reason := stop_reason_of_finished(request, settings, run_dir)):
        log.info("%s stopped in epoch %d: nothing to do: %s (%s)", run_dir, metrics["epochs"], reason, CONTINUE_STOPPED)
    elif status == "failed" and not request.single and not settings.retry:
        log.info("%s failed before: %s (retry=true trains it again)", run_dir, metrics.get("cause"))
    elif status == "pruned" and not request.single:
        log.info("%s was stopped by its search before: %s", run_dir, metrics.get("cause"))
    else:
        if (checkpoint := latest_state(run_dir.path)) is not None:
            check_epochs(run_dir, checkpoint.epoch, settings.epochs)
        return None
    return metrics


def claim_directory(request: RunRequest) -> RunRequest:
    """Lock the run's directory; return the request with the overrides that the run began with."""
    request = with_original_overrides(request)
    request.run_dir.claim(request.config, request.overrides)
    return request


def load_data(components: Components) -> Splits:
    """Return the data set on the device."""
    with error_context("dataset"):
        splits = components.dataset.load()
    return splits.to(components.device)


def check_training_images(components: Components, splits: Splits) -> None:
    """Raise ConfigError where there are no images to train on, or values that have no likelihood.

    A single image is for testing.
    """
    if not len(splits.train):
        path, noun = getattr(components.dataset, "path", None), components.dataset.noun
        if path is None:
            raise ConfigError(f"the data set has no training {noun}s: return some from its read()")
        raise ConfigError(f"dataset.path={path!r}: only 1 {noun} there, 2 are needed to train and to test: add {noun}s")
    likelihood = components.model.likelihood
    if components.dataset.kind == "image" or likelihood.support == "real":
        return
    for x in in_order(splits.train, PCA_BATCH_SIZE, components.dataset.prepare):
        known = x[~x.isnan()]
        if len(known):
            with error_context("likelihood"):
                likelihood.check_values(float(known.min()), float(known.max()))


def log_data(components: Components, splits: Splits) -> None:
    """Log the sizes of the splits, the conversions of the images, and the warnings about them."""
    log.info("data: %s", splits.describe())
    log_conversions(components.dataset)


def log_conversions(dataset: Dataset) -> None:
    """Log the conversions of the images of a data set, and the warnings about them."""
    for conversion in dataset.conversions:
        log.info("data: %s", conversion)
    for warning in dataset.warnings:
        log.warning("data: %s", warning)


def check_measures(components: Components, splits: Splits) -> None:
    """Raise ConfigError where a measure cannot be computed on these images, or where two have metrics of one name."""
    owners: dict[int, str] = {}
    for name, measure in components.measures.items():
        with error_context(f"measures.{name}"):
            measure.check_images(splits)
        for count in measure.count_labels(splits) if isinstance(measure, FewLabels) else ():
            if (owner := owners.setdefault(count, name)) != name:
                raise ConfigError(
                    f"measures.{owner} and measures.{name} both fine-tune on {count} labels, and their metrics have "
                    f"the same names: change measures.{owner}.labels or measures.{name}.labels"
                )


def evaluate_components(
    components: Components, splits: Splits, fit_pca: Callable[[], PCA | None] | None = None
) -> Metrics:
    """Return the standard metrics of the test images and the measures.

    `fit_pca` returns the baseline that views have shown, if there are views; by default it is fitted here.
    """
    prepare = components.dataset.prepare
    evaluator = Evaluator(splits.test, prepare, components.noise)
    pca = fit_pca_baseline(components, splits) if fit_pca is None else fit_pca()
    metrics = evaluator.evaluate_full(components.model.eval(), components.objective, pca)
    metrics |= components.dataset.baseline_metrics(splits.test)
    inputs = EvalInputs(
        components.model,
        components.objective,
        components.noise,
        splits,
        prepare,
        components.make_untrained,
        components.seed,
        pca,
    )
    for measure in components.measures.values():
        metrics |= measure(inputs)
    return {f"test/{name}": value for name, value in metrics.items()}


def pca_baseline(components: Components, splits: Splits) -> Callable[[], PCA | None]:
    """Return a function that fits the baseline at its first call, for views and metrics."""

    @cache
    def fit_pca() -> PCA | None:
        return fit_pca_baseline(components, splits)

    return fit_pca


def fit_pca_baseline(components: Components, splits: Splits) -> PCA | None:
    """Fit PCA with as many components as the code has units; return None, and log it, where images are too large.

    The mean of the known values takes the place of a missing one.
    """
    if not len(splits.train):
        log.info("test/pca_sse is left out: there are no training %ss to fit PCA to", components.dataset.noun)
        return None
    channels, height, width = components.model.image_shape
    if (pixels := channels * height * width) > PCA_MAX_PIXELS:
        log.info("test/pca_sse is left out: %ss of %d values are too large for PCA", components.dataset.noun, pixels)
        return None

    def batches() -> Iterator[Tensor]:
        return in_order(splits.train, PCA_BATCH_SIZE, components.dataset.prepare)

    if not components.model.has_missing:
        return PCA.fit(batches(), components.model.code_dim)
    mean = known_mean(batches())
    return PCA.fit((fill_missing(x, mean) for x in batches()), components.model.code_dim)


def _progress_bar() -> ProgressBar | None:
    """Return a progress bar for each epoch on a terminal and in a notebook; None otherwise."""
    is_notebook = "ipykernel" in sys.modules  # the kernel shows what is written to stderr below the cell
    if not (sys.stderr.isatty() or is_notebook):
        return None
    from tqdm import tqdm

    def progress_bar(loader: EpochLoader, state: TrainState) -> Iterator[Tensor]:
        text = f"epoch {state.epoch + 1}/{state.epochs}"
        yield from tqdm(loader, desc=text, leave=False, mininterval=0.2)

    return progress_bar
