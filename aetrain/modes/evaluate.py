"""`mode=eval`: measure the checkpoint of a run, as it was trained or under other conditions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aetrain.attempt import Job
from aetrain.build import Parts, build
from aetrain.config.compose import SAVED
from aetrain.config.errors import ConfigError
from aetrain.directory import RunDirectory
from aetrain.evaluation.tables import figures_table
from aetrain.experiment import check_images, load, measure
from aetrain.training import checkpoint

log = logging.getLogger("aetrain")


def evaluate(job: Job) -> dict[str, Any]:
    """Measure the checkpoint of `run` on the whole test set, under the conditions that the command line adds."""
    source, parts, epoch = trained(job, "eval")
    splits = load(parts)
    check_images(parts, splits)
    with at_work(job, source, epoch) as known:
        log.info("%s after %d epochs, on %d test images", source, epoch, len(splits.test))
        figures = measure(parts, splits)
        job.directory.write_metrics({**known, **figures})
        log.info("%s", figures_table(figures))
    return figures


@contextmanager
def at_work(job: Job, source: RunDirectory, epoch: int) -> Iterator[dict[str, Any]]:
    """Write into the job's directory: the run's own, or one below its eval/. What its metrics.json is to say already.

    In a directory of its own that is written at the end, so that a job that was cut off is not taken for finished.
    """
    home = job.directory
    same = home.path.resolve() == source.path.resolve()
    if same:
        home.take()
    else:
        home.claim(job.config, job.overrides)
    known = source.metrics() if same else {"status": "finished", "epochs": epoch}
    with home.logging():
        yield known
        if home.status == "running" and not same:
            home.write_metrics(known)


def trained(job: Job, mode: str) -> tuple[RunDirectory, Parts, int]:
    """The run that `run=` names, its parts with the weights of its checkpoint, and after how many epochs they are."""
    if job.plain["run"] is None:
        raise ConfigError(f"mode={mode} needs a run: run=outputs/...")
    source = RunDirectory(Path(job.plain["run"]))
    parts = build(job.plain)
    try:
        epoch = checkpoint.load(source.path, parts.model).epoch
    except checkpoint.CheckpointError as error:
        text = str(error)
        if any(said.startswith("dataset=") and not said.endswith(f"={SAVED}") for said in job.overrides):
            shape = "x".join(map(str, parts.model.image_shape))
            text += f"\n  these images are {shape}: say dataset.size= or dataset.crop= where the run's are not"
        raise ConfigError(text) from error
    parts.model.eval()
    return source, parts, epoch
