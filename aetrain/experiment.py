"""A training run, told in order: build what the config names, train it, measure it, leave a directory behind."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from aetrain.attempt import Attempt, Job, told_of
from aetrain.build import Parts, build
from aetrain.config.compose import SAVED
from aetrain.config.errors import ConfigError, Terminated, blamed_on
from aetrain.config.explain import explained
from aetrain.config.leftovers import drop_leftovers
from aetrain.config.validate import locate, validate
from aetrain.data.batches import in_order
from aetrain.data.dataset import Splits
from aetrain.directory import RunDirectory, Taken
from aetrain.evaluation.measures import Subject
from aetrain.evaluation.ruler import Figures, Ruler
from aetrain.model.pca import PCA
from aetrain.training.compiling import compile_updates
from aetrain.training.fit import EpochOfBatches, Run, fit
from aetrain.training.libraries import set_up

log = logging.getLogger("aetrain")

PCA_MAX_PIXELS = 4096  # the covariance of larger images takes longer than training


def run(config: DictConfig, directory: Path, overrides: Sequence[str] = (), single: bool = True) -> dict[str, Any]:
    """Check the config as a whole, then do what its mode says. What went wrong is left in the run's own log."""
    home = RunDirectory(directory)
    try:
        drop_leftovers(config, overrides)
        plain = checked(config, overrides)
        mode = locate(plain["mode"]["_target_"])
        with home.writable(), set_up():
            return mode(Job(config, plain, home, overrides, single))
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        # A sweep's runs keep a record of what they were refused for, or else the sweep does.
        own = home.claimed or not (single or isinstance(error, Taken) or home.status == "finished")
        recorded = own and record_failure(home, config, overrides, error)
        if not (recorded or single) and isinstance(error, Exception):
            home.refuse(str(error))
        if isinstance(error, SystemExit):  # said by a component; it must not end a sweep, nor look like a success
            raise ConfigError(f"SystemExit: {error.code}") from error
        raise
    finally:
        home.release()


def checked(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The config as plain data, its interpolations resolved; a ConfigError with all that is wrong with it.

    Sections that `overrides` take from a saved run may name no code but aetrain's and torch's, unless trust=true.
    """
    with explained():
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    theirs = set() if plain.get("trust") is True else {text for text in overrides if text.endswith(f"={SAVED}")}
    validate(plain, untrusted=lambda key: f"{key.partition('.')[0]}={SAVED}" in theirs)
    return plain


def record_failure(home: RunDirectory, config: DictConfig, overrides: Sequence[str], error: BaseException) -> bool:
    """Leave the reason for which a run has ended in its directory; False where it could not be."""
    match error:
        case KeyboardInterrupt():
            cause = f"stopped by {'SIGTERM' if isinstance(error, Terminated) else 'Ctrl-C'}"
            return home.record_failure(config, overrides, "interrupted", cause)
        case SystemExit():
            return home.record_failure(config, overrides, "failed", f"SystemExit: {error.code}")
        case Exception() if not isinstance(error, ConfigError):
            return home.record_failure(config, overrides, "failed", f"{type(error).__name__}: {error}", error)
        case _:
            return home.record_failure(config, overrides, "failed", str(error) or type(error).__name__)


def train(job: Job) -> dict[str, Any]:
    """Train a model from the start, or from where this directory's run stopped."""
    known = nothing_to_do(job)
    if known is not None:
        return known
    parts = build(job.plain)
    splits = load(parts)
    check_images(parts, splits)
    job = claimed(job)
    with job.directory.logging(), told_of(job.directory):
        attempt = Attempt(job, parts, splits)
        with attempt.opened():
            attempt.prepare()
            if job.plain["compile"] and not attempt.state.last:
                compile_updates(parts.updates, (parts.model, parts.objective), attempt.batches)
            fit(attempt.state, parts.updates, attempt.batches, [attempt.record], _progress(job))
            return attempt.finish(measure(parts, splits))


def nothing_to_do(job: Job) -> dict[str, Any] | None:
    """The figures of a run that is finished, or that failed in an earlier sweep; None where there is work to do.

    A ConfigError where the directory holds another run.
    """
    home = job.directory
    home.refuse_another(job.config)
    if home.status == "finished" and home.metrics().get("epochs", 0) >= job.plain["epochs"]:
        log.info("%s is finished: nothing to do (more epochs= would continue it)", home)
    elif home.status == "failed" and not job.single and not job.plain["retry"]:
        log.info("%s failed before: %s (retry=true would try it again)", home, home.metrics().get("cause"))
    else:
        return None
    if not job.single:
        home.count_anew()
    return home.metrics()


def claimed(job: Job) -> Job:
    """The job, its directory kept from others; one that goes on with a run does so under what was said at first."""
    if any(text.endswith(f"={SAVED}") for text in job.overrides):
        job = replace(job, overrides=job.directory.overrides())
    job.directory.claim(job.config, job.overrides)
    return job


def load(parts: Parts) -> Splits:
    """The data set, on the device."""
    with blamed_on("dataset"):
        splits = parts.dataset.load()
    return splits.to(parts.device)


def check_images(parts: Parts, splits: Splits) -> None:
    """A ConfigError where a measure that was asked for cannot measure by these images."""
    for name, measure in parts.measures.items():
        with blamed_on(f"measures.{name}"):
            measure.check_images(splits)


def measure(parts: Parts, splits: Splits, pca: PCA | None = None) -> Figures:
    """The whole ruler, on the test images, and the measures that were asked for; `pca` where it is known already."""
    prepare = parts.dataset.prepare
    ruler = Ruler(splits.test, prepare, parts.noise)
    pca = pca or yardstick(parts, splits)
    figures = ruler.full(parts.model.eval(), parts.objective, pca)
    subject = Subject(parts.model, parts.objective, parts.noise, splits, prepare, parts.untrained, parts.seed, pca)
    for each in parts.measures.values():
        figures |= each(subject)
    return {f"test/{name}": value for name, value in figures.items()}


def yardstick(parts: Parts, splits: Splits) -> PCA | None:
    """PCA of the training images with a code of the model's size; None, and a word, where images are too large."""
    channels, height, width = parts.model.image_shape
    if (pixels := channels * height * width) > PCA_MAX_PIXELS:
        log.info("test/pca_sse is left out: images of %d pixels are too large for it", pixels)
        return None
    return PCA.fit(in_order(splits.train, 2048, parts.dataset.prepare), parts.model.code_dim)


def _progress(job: Job) -> Callable[[EpochOfBatches, Run], Iterator[Tensor]] | None:
    """A bar for each epoch of a single run on a terminal; nothing, and nothing paid, otherwise."""
    import sys

    if not (job.single and sys.stderr.isatty()):
        return None
    from tqdm import tqdm

    return lambda batches, run: tqdm(batches, desc=f"epoch {run.epoch + 1}/{run.epochs}", leave=False, mininterval=0.2)
