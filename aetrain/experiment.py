"""A training run, told in order: build what the config names, train it, measure it, leave a directory behind."""

import errno
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from aetrain.build import Parts, build
from aetrain.config.compose import SAVED, run_name
from aetrain.config.errors import ConfigError, Terminated, blamed_on
from aetrain.config.explain import explained
from aetrain.config.leftovers import drop_leftovers
from aetrain.config.validate import locate, validate
from aetrain.data.batches import Batches, in_order
from aetrain.data.dataset import Splits
from aetrain.directory import TIMINGS, RunDirectory, Taken, flat, tensorboard_command
from aetrain.evaluation.measures import Subject
from aetrain.evaluation.ruler import Figures, Ruler
from aetrain.evaluation.tables import epoch_line, figures_table
from aetrain.model.pca import PCA
from aetrain.training import checkpoint
from aetrain.training.fit import EpochOfBatches, Run, fit, seed_epoch
from aetrain.training.memory import keep_freed_memory
from aetrain.training.pretrain import Supplies
from aetrain.views.logbook import Logbook
from aetrain.views.scene import scenes

log = logging.getLogger("aetrain")

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}

PCA_MAX_PIXELS = 4096  # the covariance of larger images takes longer than training


@dataclass(frozen=True)
class Job:
    """What one run was asked for."""

    config: DictConfig
    plain: dict[str, Any]  # the same, as plain data with every interpolation resolved
    directory: RunDirectory
    overrides: Sequence[str] = ()
    single: bool = True  # whether it is the only one, and a person may be watching


def run(config: DictConfig, directory: Path, overrides: Sequence[str] = (), single: bool = True) -> dict[str, Any]:
    """Check the config as a whole, then do what its mode says. What went wrong is left in the run's own log."""
    home = RunDirectory(directory)
    keep_freed_memory()
    try:
        drop_leftovers(config, overrides)
        plain = checked(config, overrides)
        mode = locate(plain["mode"]["_target_"])
        return mode(Job(config, plain, home, overrides, single))
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        # A sweep's runs keep a record of what they were refused for.
        if home.claimed or not (single or isinstance(error, Taken) or home.status == "finished"):
            _record_failure(home, config, overrides, error)
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


def _record_failure(home: RunDirectory, config: DictConfig, overrides: Sequence[str], error: BaseException) -> None:
    match error:
        case KeyboardInterrupt():
            cause = f"stopped by {'SIGTERM' if isinstance(error, Terminated) else 'Ctrl-C'}"
            home.record_failure(config, overrides, "interrupted", cause)
        case SystemExit():
            home.record_failure(config, overrides, "failed", f"SystemExit: {error.code}")
        case Exception() if not isinstance(error, ConfigError):
            home.record_failure(config, overrides, "failed", f"{type(error).__name__}: {error}", error)
        case _:
            home.record_failure(config, overrides, "failed", str(error) or type(error).__name__)


def train(job: Job) -> dict[str, Any]:
    """Train a model from the start, or from where this directory's run stopped."""
    home, plain = job.directory, job.plain
    home.refuse_another(job.config)
    if home.status == "finished" and home.metrics().get("epochs", 0) >= plain["epochs"]:
        if not job.single:
            home.count_anew()
        log.info("%s is finished: nothing to do (more epochs= would continue it)", home)
        return home.metrics()
    if home.status == "failed" and not job.single and not plain["retry"]:
        home.count_anew()
        log.info("%s failed before: %s (retry=true would try it again)", home, home.metrics().get("cause"))
        return home.metrics()
    parts = build(plain)
    splits = load(parts)
    said = [text for text in job.overrides if not text.endswith(f"={SAVED}")]
    if said != list(job.overrides):  # resume= goes on with what was said at first
        job = replace(job, overrides=home.overrides())
    home.claim(job.config, job.overrides)
    with home.logging():
        try:
            return _train(job, parts, splits)
        except checkpoint.CheckpointError as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise ConfigError(
                f"{home} cannot be written to: {error.strerror}; training has stopped, its last good checkpoint is "
                "kept, and the same command goes on from there"
            ) from error


def load(parts: Parts) -> Splits:
    """The data set, on the device."""
    with blamed_on("dataset"):
        splits = parts.dataset.load()
    return splits.to(parts.device)


def _train(job: Job, parts: Parts, splits: Splits) -> dict[str, Any]:
    home, plain, model, objective = job.directory, job.plain, parts.model, parts.objective
    batches = Batches(splits.train, plain["batch_size"], parts.dataset.prepare)
    watched_name, watched = splits.held_out
    watch = Ruler(watched, parts.dataset.prepare, parts.noise)
    logbook = Logbook(home.path, parts.views, scenes(model, watched, parts.dataset.prepare, parts.noise))
    state = Run(model, plain["seed"], plain["epochs"])
    saved = checkpoint.resume(home.path, model, objective, parts.optimizers)
    if saved is not None and saved.epoch > state.epochs:
        raise ConfigError(f"{home} is at epoch {saved.epoch} already: use more epochs= than {state.epochs}")
    state.epoch = saved.epoch if saved else 0
    journal = [*saved.journal] if saved else []
    home.write_history([line for line in journal if _is_history(line)])
    num_parameters = sum(p.numel() for p in model.parameters())
    log.info("%s: %d weights, %d training images, %s", home, num_parameters, len(splits.train), parts.device)

    def record(run: Run) -> None:
        """Measure, remember and show an epoch; epoch 0 is the model before training."""
        model.eval()
        figures = {f"train/{name}": value for name, value in run.metrics.items()}
        if all(map(math.isfinite, figures.values())):
            figures |= {f"{watched_name}/{name}": value for name, value in watch.quick(model, objective).items()}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"training diverged in epoch {run.epoch}: {name} is {value}; try a smaller optimizer.lr "
                    f"(it is {plain['optimizer'].get('lr')}); the last good checkpoint is kept in {home.path}"
                )
        line = {"epoch": run.epoch, **figures, "seconds": round(run.seconds, 4)}
        journal.append(line)
        home.append_history(line)
        logbook.scalars(run.epoch, figures)
        logbook.pictures(run.epoch, last=run.last)
        log.info("%s", epoch_line(run, figures, watched_name, batches.num_images))
        checkpoint.save(home.path, model, objective, parts.optimizers, run.epoch, journal)

    def record_stage(epoch: int, figures: Mapping[str, float]) -> None:
        """Remember and show an epoch of pretraining."""
        journal.append({"epoch": epoch, **figures})
        logbook.scalars(epoch, figures)

    config = OmegaConf.to_yaml(job.config)
    with logbook.opened(config, state.epoch if saved else None, _curves(journal), last=state.epochs):
        began = time.perf_counter()
        if saved is None:
            seed_epoch(state.seed, 0)
            make = parts.make_optimizer
            with blamed_on("pretrain"):
                parts.pretrain(model, Supplies(batches, parts.noise, objective, make, state.seed, record_stage))
            record(state)
        fit(state, parts.updates, batches, [record], _progress(job))
        return _finish(job, parts, splits, state, logbook, began)


def _is_history(line: checkpoint.Line) -> bool:
    """Whether a line of the journal is an epoch of training, not of a stage of pretraining."""
    return "seconds" in line


def _curves(journal: Sequence[checkpoint.Line]) -> list[tuple[int, dict[str, float]]]:
    return [
        (line["epoch"], {tag: value for tag, value in line.items() if tag not in ("epoch", *TIMINGS)})
        for line in journal
    ]


def _finish(job: Job, parts: Parts, splits: Splits, state: Run, logbook: Logbook, began: float) -> dict[str, Any]:
    """Measure the trained model on the whole ruler, and write down what came of it."""
    home, plain = job.directory, job.plain
    num_parameters = sum(p.numel() for p in parts.model.parameters())
    figures = measure(parts, splits)
    lines = home.history()[1:]
    if lines:
        figures["train/seconds_per_epoch"] = sorted(line["seconds"] for line in lines)[len(lines) // 2]
    hparams = {key: value for key, value in flat(plain).items() if _is_hparam(key, value)}
    trial = run_name([text for text in job.overrides if not text.startswith(("seed=", "epochs="))])
    logbook.close(hparams, figures, trial=trial)
    metrics = {
        "status": "finished",
        "epochs": state.epoch,
        "weights": num_parameters,
        "seconds": round(time.perf_counter() - began, 3),
        **figures,
    }
    home.write_metrics(metrics)
    log.info("%s", figures_table(figures))
    log.info("pictures: %s/figures\ncompare:  %s", home, tensorboard_command(_logdir(home.path)))
    return metrics


def measure(parts: Parts, splits: Splits) -> Figures:
    """The whole ruler, on the test images, and the measures that were asked for."""
    prepare = parts.dataset.prepare
    channels, height, width = parts.model.image_shape
    pca = None
    if (pixels := channels * height * width) <= PCA_MAX_PIXELS:
        pca = PCA.fit(in_order(splits.train, 8192, prepare), parts.model.code_dim)
    else:
        log.info("test/pca_sse is left out: images of %d pixels are too large for it", pixels)
    ruler = Ruler(splits.test, prepare, parts.noise)
    figures = ruler.full(parts.model.eval(), parts.objective, pca)
    subject = Subject(parts.model, parts.objective, parts.noise, splits, prepare)
    for each in parts.measures.values():
        figures |= each(subject)
    return {f"test/{name}": value for name, value in figures.items()}


def _is_hparam(key: str, value: Any) -> bool:
    return isinstance(value, int | float | str) and not key.startswith(
        ("views.", "measures.", "mode.", "run", "resume", "retry", "trust", "data_dir", "seed", "epochs")
    )


def _logdir(path: Path) -> Path:
    """The folder to open TensorBoard on: the nearest one above that is called outputs, else the run's parent."""
    return next((folder for folder in path.parents if folder.name == "outputs"), path.parent)


def _progress(job: Job) -> Callable[[EpochOfBatches, Run], Iterator[Tensor]] | None:
    """A bar for each epoch of a single run on a terminal; nothing, and nothing paid, otherwise."""
    import sys

    if not (job.single and sys.stderr.isatty()):
        return None
    from tqdm import tqdm

    return lambda batches, run: tqdm(batches, desc=f"epoch {run.epoch + 1}/{run.epochs}", leave=False, mininterval=0.2)
