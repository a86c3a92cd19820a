"""An experiment, told in order: build what the config names, train it, measure it, leave a directory behind."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from aetrain.build import Parts, build
from aetrain.config.compose import SAVED, run_name
from aetrain.config.errors import ConfigError, blamed_on
from aetrain.config.explain import explained
from aetrain.config.leftovers import drop_leftovers
from aetrain.config.validate import locate, validate
from aetrain.data.batches import Batches, in_order
from aetrain.data.dataset import Splits
from aetrain.directory import RunDirectory, flat
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
    except (Exception, KeyboardInterrupt) as error:
        if home.claimed or not single:  # a sweep's runs keep a record of what they were refused for
            _record_failure(home, config, overrides, error)
        raise


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
    interrupted = isinstance(error, KeyboardInterrupt)
    if home.status == "new":
        home.claim(config, overrides)
    known = interrupted or isinstance(error, ConfigError)
    cause = "stopped by Ctrl-C" if interrupted else f"{'' if known else type(error).__name__ + ': '}{error}"
    with home.logging():
        log.error("%s", f"failed: {cause}" if not interrupted else cause, exc_info=None if known else error)
    home.write_metrics({"status": "interrupted" if interrupted else "failed", "cause": cause})


def train(job: Job) -> dict[str, Any]:
    """Train a model from the start, or from where this directory's run stopped."""
    home, plain = job.directory, job.plain
    home.refuse_another(job.config)
    if home.status == "finished" and home.metrics().get("epochs", 0) >= plain["epochs"]:
        log.info("%s is finished: nothing to do (more epochs= would continue it)", home)
        return home.metrics()
    parts = build(plain)
    splits = _load(parts)
    home.claim(job.config, job.overrides)
    with home.logging():
        return _train(job, parts, splits)


def _load(parts: Parts) -> Splits:
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
    resumed = (home.path / checkpoint.NAME).is_dir()
    if resumed:
        state.epoch = checkpoint.load(home.path, model, objective, parts.optimizers)
        home.cut_history(state.epoch)
    num_parameters = sum(p.numel() for p in model.parameters())
    log.info("%s: %d weights, %d training images, %s", home, num_parameters, len(splits.train), parts.device)

    def record(run: Run) -> None:
        """Measure, remember and show an epoch; epoch 0 is the model before training."""
        for name, value in run.metrics.items():
            if value != value or abs(value) == float("inf"):
                raise ConfigError(
                    f"training diverged in epoch {run.epoch}: {name} is {value}; try a smaller optimizer.lr "
                    f"(it is {plain['optimizer'].get('lr')}); the last good checkpoint is kept in {home.path}"
                )
        model.eval()
        figures = {f"train/{name}": value for name, value in run.metrics.items()}
        figures |= {f"{watched_name}/{name}": value for name, value in watch.quick(model, objective).items()}
        home.append_history({"epoch": run.epoch, **figures, "seconds": round(run.seconds, 4)})
        logbook.scalars(run.epoch, figures)
        logbook.pictures(run.epoch, last=run.last)
        log.info("%s", epoch_line(run, figures, watched_name, batches.num_images))
        checkpoint.save(home.path, model, objective, parts.optimizers, run.epoch)

    logbook.open(OmegaConf.to_yaml(job.config), state.epoch if resumed else None)
    began = time.perf_counter()
    if not resumed:
        seed_epoch(state.seed, 0)
        make, scalars = parts.make_optimizer, logbook.scalars
        with blamed_on("pretrain"):
            parts.pretrain(model, Supplies(batches, parts.noise, objective, make, state.seed, scalars))
        record(state)
    fit(state, parts.updates, batches, [record], _progress(job))
    figures = _measure(parts, splits)
    lines = home.history()[1:]
    if lines:
        figures["train/seconds_per_epoch"] = sorted(line["seconds"] for line in lines)[len(lines) // 2]
    hparams = {key: value for key, value in flat(plain).items() if _is_hparam(key, value)}
    trial = run_name([text for text in job.overrides if not text.startswith("seed=")])
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
    log.info(
        "pictures: %s/figures\ncompare:  tensorboard --logdir %s --samples_per_plugin images=500,scalars=50000",
        home,
        RunDirectory(_logdir(home.path)),
    )
    return metrics


def _measure(parts: Parts, splits: Splits) -> Figures:
    """The whole ruler, on the test images."""
    prepare = parts.dataset.prepare
    channels, height, width = parts.model.image_shape
    pca = None
    if (pixels := channels * height * width) <= PCA_MAX_PIXELS:
        pca = PCA.fit(in_order(splits.train, 8192, prepare), parts.model.code_dim)
    else:
        log.info("test/pca_sse is left out: images of %d pixels are too large for it", pixels)
    ruler = Ruler(splits.test, prepare, parts.noise)
    return {f"test/{name}": value for name, value in ruler.full(parts.model.eval(), parts.objective, pca).items()}


def _is_hparam(key: str, value: Any) -> bool:
    return isinstance(value, int | float | str) and not key.startswith(
        ("views.", "mode.", "run", "trust", "data_dir", "seed", "epochs")
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


def evaluate(job: Job) -> dict[str, Any]:
    """Measure the checkpoint of `run` on the whole test set, under the conditions that the command line adds."""
    if job.plain["run"] is None:
        raise ConfigError("mode=eval needs a run to evaluate: run=outputs/...")
    source = RunDirectory(Path(job.plain["run"]))
    parts = build(job.plain)
    try:
        epoch = checkpoint.load(source.path, parts.model)
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error
    splits = _load(parts)
    home = job.directory
    same = home.path.resolve() == source.path.resolve()
    if not same:
        home.claim(job.config, job.overrides)
    with home.logging():
        log.info("%s after %d epochs, on %d test images", source, epoch, len(splits.test))
        figures = _measure(parts, splits)
        known = source.metrics() if same else {"status": "finished", "epochs": epoch}
        home.write_metrics({**known, **figures})
        log.info("%s", figures_table(figures))
    return figures
