"""One attempt at a run: where it begins, what it leaves at the end of every epoch, and what it comes to.

Between `prepare` and `finish` the weights are trained by somebody else, who has `record` called after every epoch.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aetrain.build import Parts
from aetrain.config.compose import run_name
from aetrain.config.errors import ConfigError, blamed_on
from aetrain.config.said import hparam_columns, hparams
from aetrain.data.batches import Batches
from aetrain.data.dataset import Splits
from aetrain.directory import TIMINGS, RunDirectory, flat, tensorboard_command, tensorboard_link
from aetrain.evaluation.doctor import case_of, examine
from aetrain.evaluation.finding import Finding
from aetrain.evaluation.ruler import Figures, Ruler
from aetrain.evaluation.tables import epoch_line, figures_table
from aetrain.training import checkpoint
from aetrain.training.fit import Run, seed_epoch
from aetrain.training.pretrain import Supplies
from aetrain.views.logbook import Logbook
from aetrain.views.scene import scenes
from aetrain.views.strip import write_strip

log = logging.getLogger("aetrain")


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
        with home.writable():
            yield
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error


class Attempt:
    """A run from where its directory stands, which must be claimed: `opened`, `prepare`, `record` ..., `finish`."""

    def __init__(self, job: Job, parts: Parts, splits: Splits) -> None:
        home, model, prepare = job.directory, parts.model, parts.dataset.prepare
        self.job = job
        self.config = OmegaConf.to_yaml(job.config)
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
        epoch = self.state.epoch if self.saved else None
        with self.logbook.opened(self.config, epoch, _curves(self.journal), last=self.state.epochs):
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
        parts, journal = self.parts, self.journal
        checkpoint.save(
            self.job.directory.path,
            parts.model,
            parts.objective,
            parts.optimizers,
            journal[-1]["epoch"],
            journal,
            self.config,
            self.job.overrides,
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
        home = self.job.directory
        findings = self._findings(figures)
        if lines := home.history()[1:]:
            figures["train/seconds_per_epoch"] = sorted(line["seconds"] for line in lines)[len(lines) // 2]
        own = hparams(flat(self.job.plain), self.job.overrides)
        trial = run_name([text for text in self.job.overrides if not text.startswith(("seed=", "epochs="))])
        told = "\n".join(f"- **{found.what}**: {found.evidence}; {found.remedy}" for found in findings)
        self.logbook.note("doctor", told or "Nothing is wrong.")
        if self.parts.views:
            write_strip(self.logbook.scene(self.state.epoch), home.path / "figures" / "strip")
        self.logbook.close(own, figures, trial, hparam_columns(self.job.overrides, self.job.single))
        home.write_findings([asdict(found) for found in findings])
        metrics = {
            "status": "finished",
            "epochs": self.state.epoch,
            "weights": self.num_parameters,
            "seconds": round(time.perf_counter() - self.began, 3),
            **figures,
        }
        home.write_metrics(metrics)
        log.info("%s", figures_table(figures))
        for found in findings:
            log.warning("doctor: %s", found)
        log.info("pictures: %s/figures", home)
        if self.job.single:  # a sweep says so at its end
            log.info("compare:  %s\nthen at:  %s", tensorboard_command(_logdir(home.path)), tensorboard_link())
        return metrics

    def _findings(self, figures: Figures) -> list[Finding]:
        """What the training doctor says of it."""
        by_name = {tag.partition("/")[2]: value for tag, value in figures.items()}
        return examine(case_of(self.parts.model, by_name, self.job.directory.history(), flat(self.job.plain)))


def _is_history(line: checkpoint.Line) -> bool:
    """Whether a line of the journal is an epoch of training, not of a stage of pretraining."""
    return "seconds" in line


def _curves(journal: Sequence[checkpoint.Line]) -> list[tuple[int, dict[str, float]]]:
    return [
        (line["epoch"], {tag: value for tag, value in line.items() if tag not in ("epoch", *TIMINGS)})
        for line in journal
    ]


def _logdir(path: Path) -> Path:
    """The folder to open TensorBoard on: the nearest one above that is called outputs, else the run's parent."""
    return next((folder for folder in path.parents if folder.name == "outputs"), path.parent)
