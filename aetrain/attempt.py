"""One attempt at a run: where it begins, what it leaves at the end of every epoch, and what it comes to.

Between `prepare` and `finish` the weights are trained by somebody else, who has `record` called after every epoch.
"""

import errno
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aetrain.build import Parts
from aetrain.config.compose import run_name
from aetrain.config.errors import ConfigError, blamed_on
from aetrain.data.batches import Batches
from aetrain.data.dataset import Splits
from aetrain.directory import TIMINGS, RunDirectory, flat, tensorboard_command
from aetrain.evaluation.ruler import Figures, Ruler
from aetrain.evaluation.tables import epoch_line, figures_table
from aetrain.training import checkpoint
from aetrain.training.fit import Run, seed_epoch
from aetrain.training.pretrain import Supplies
from aetrain.views.logbook import Logbook
from aetrain.views.scene import scenes

log = logging.getLogger("aetrain")

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@dataclass(frozen=True)
class Job:
    """What one run was asked for."""

    config: DictConfig
    plain: dict[str, Any]  # the same, as plain data with every interpolation resolved
    directory: RunDirectory
    overrides: Sequence[str] = ()
    single: bool = True  # whether it is the only one, and a person may be watching


@contextmanager
def told_of(home: RunDirectory) -> Iterator[None]:
    """What a damaged checkpoint or a disk that takes no more raise inside becomes a ConfigError that says so."""
    try:
        yield
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise ConfigError(
            f"{home} cannot be written to: {error.strerror}; training has stopped, its last good checkpoint is "
            "kept, and the same command goes on from there"
        ) from error


class Attempt:
    """A run from where its directory stands, which must be claimed: `opened`, `prepare`, `record` ..., `finish`."""

    def __init__(self, job: Job, parts: Parts, splits: Splits) -> None:
        home, model, prepare = job.directory, parts.model, parts.dataset.prepare
        self.job = job
        self.parts = parts
        self.batches = Batches(splits.train, job.plain["batch_size"], prepare)
        self.watched_name, watched = splits.held_out
        self.watch = Ruler(watched, prepare, parts.noise)
        self.logbook = Logbook(home.path, parts.views, scenes(model, watched, prepare, parts.noise))
        self.state = Run(model, job.plain["seed"], job.plain["epochs"])
        self.saved = checkpoint.resume(home.path, model, parts.objective, parts.optimizers)
        if self.saved is not None and self.saved.epoch > self.state.epochs:
            raise ConfigError(
                f"{home} is at epoch {self.saved.epoch} already: use more epochs= than {self.state.epochs}"
            )
        self.state.epoch = self.saved.epoch if self.saved else 0
        self.journal = [*self.saved.journal] if self.saved else []
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.began = time.perf_counter()
        home.write_history([line for line in self.journal if _is_history(line)])
        log.info("%s: %d weights, %d training images, %s", home, self.num_parameters, len(splits.train), parts.device)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Its event file, open inside."""
        config, epoch = OmegaConf.to_yaml(self.job.config), self.state.epoch if self.saved else None
        with self.logbook.opened(config, epoch, _curves(self.journal), last=self.state.epochs):
            self.began = time.perf_counter()
            yield

    def prepare(self) -> None:
        """Make the weights that training begins with, and record them as epoch 0; nothing where it has begun."""
        if self.saved is not None:
            return
        parts, seed = self.parts, self.state.seed
        seed_epoch(seed, 0)
        make = parts.make_optimizer
        with blamed_on("pretrain"):
            parts.pretrain(
                parts.model, Supplies(self.batches, parts.noise, parts.objective, make, seed, self._record_stage)
            )
        self.record(self.state)

    def _record_stage(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Remember and show an epoch of pretraining."""
        self.journal.append({"epoch": epoch, **figures})
        self.logbook.scalars(epoch, figures)

    def record(self, run: Run) -> None:
        """Measure, remember, show and save an epoch; epoch 0 is the model before training."""
        self.show(run)
        self.save()

    def save(self) -> None:
        """Write the checkpoint of what was last shown."""
        home, parts = self.job.directory, self.parts
        checkpoint.save(
            home.path, parts.model, parts.objective, parts.optimizers, self.journal[-1]["epoch"], self.journal
        )

    def show(self, run: Run) -> None:
        """`record`, but for the checkpoint."""
        home, model, objective = self.job.directory, self.parts.model, self.parts.objective
        model.eval()
        figures = {f"train/{name}": value for name, value in run.metrics.items()}
        if all(map(math.isfinite, figures.values())):
            watched = self.watch.quick(model, objective)
            figures |= {f"{self.watched_name}/{name}": value for name, value in watched.items()}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"training diverged in epoch {run.epoch}: {name} is {value}; try a smaller optimizer.lr "
                    f"(it is {self.job.plain['optimizer'].get('lr')}); the last good checkpoint is kept in {home.path}"
                )
        line = {"epoch": run.epoch, **figures, "seconds": round(run.seconds, 4)}
        self.journal.append(line)
        home.append_history(line)
        self.logbook.scalars(run.epoch, figures)
        self.logbook.pictures(run.epoch, last=run.last)
        log.info("%s", epoch_line(run, figures, self.watched_name, self.batches.num_images))

    def finish(self, figures: Figures) -> dict[str, Any]:
        """Write down what came of it: `figures` are those of the trained model on the whole ruler."""
        home, plain = self.job.directory, self.job.plain
        lines = home.history()[1:]
        if lines:
            figures["train/seconds_per_epoch"] = sorted(line["seconds"] for line in lines)[len(lines) // 2]
        hparams = {key: value for key, value in flat(plain).items() if _is_hparam(key, value)}
        trial = run_name([text for text in self.job.overrides if not text.startswith(("seed=", "epochs="))])
        self.logbook.close(hparams, figures, trial=trial)
        metrics = {
            "status": "finished",
            "epochs": self.state.epoch,
            "weights": self.num_parameters,
            "seconds": round(time.perf_counter() - self.began, 3),
            **figures,
        }
        home.write_metrics(metrics)
        log.info("%s", figures_table(figures))
        log.info("pictures: %s/figures\ncompare:  %s", home, tensorboard_command(_logdir(home.path)))
        return metrics


def _is_history(line: checkpoint.Line) -> bool:
    """Whether a line of the journal is an epoch of training, not of a stage of pretraining."""
    return "seconds" in line


def _curves(journal: Sequence[checkpoint.Line]) -> list[tuple[int, dict[str, float]]]:
    return [
        (line["epoch"], {tag: value for tag, value in line.items() if tag not in ("epoch", *TIMINGS)})
        for line in journal
    ]


def _is_hparam(key: str, value: Any) -> bool:
    return isinstance(value, int | float | str) and not key.startswith(
        ("views.", "measures.", "mode.", "run", "resume", "retry", "trust", "data_dir", "seed", "epochs")
    )


def _logdir(path: Path) -> Path:
    """The folder to open TensorBoard on: the nearest one above that is called outputs, else the run's parent."""
    return next((folder for folder in path.parents if folder.name == "outputs"), path.parent)
