"""`mode=eval`: measure the checkpoint of a run, as it was trained or under other conditions."""

import logging
from pathlib import Path
from typing import Any

from aetrain.attempt import Job
from aetrain.build import Parts, build
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
    home = job.directory
    same = home.path.resolve() == source.path.resolve()
    if not same:
        home.claim(job.config, job.overrides)
    with home.logging():
        log.info("%s after %d epochs, on %d test images", source, epoch, len(splits.test))
        figures = measure(parts, splits)
        known = source.metrics() if same else {"status": "finished", "epochs": epoch}
        home.write_metrics({**known, **figures})
        log.info("%s", figures_table(figures))
    return figures


def trained(job: Job, mode: str) -> tuple[RunDirectory, Parts, int]:
    """The run that `run=` names, its parts with the weights of its checkpoint, and after how many epochs they are."""
    if job.plain["run"] is None:
        raise ConfigError(f"mode={mode} needs a run: run=outputs/...")
    source = RunDirectory(Path(job.plain["run"]))
    parts = build(job.plain)
    try:
        epoch = checkpoint.load(source.path, parts.model).epoch
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error
    parts.model.eval()
    return source, parts, epoch
