"""`mode=eval`: evaluate the checkpoint of a run, as it was trained or under other conditions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.config.overrides import SAVED
from aetrain.config.settings import Settings
from aetrain.evaluation.console import metrics_table
from aetrain.evaluation.metric_descriptions import collect_descriptions, describe_metrics
from aetrain.runs.build import Components, build
from aetrain.runs.request import RunRequest
from aetrain.runs.train import check_measures, evaluate_components, load_data, log_data
from aetrain.storage import checkpoint
from aetrain.storage.descriptions import write_descriptions
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.backend.setup import backend

log = logging.getLogger("aetrain")


def evaluate(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Evaluate the checkpoint of `run` on the whole test set, under the conditions of the command line."""
    source, components, epoch = load_trained(request, settings, "eval")
    splits = load_data(components)
    check_measures(components, splits)
    with output_directory(request, source, epoch) as known, backend():
        log_data(components, splits)
        log.info("%s after %d epochs, on %d test images", source, epoch, len(splits.test))
        metrics = evaluate_components(components, splits)
        descriptions = collect_descriptions(components.objective.penalties, components.measures.values())
        descriptions = describe_metrics(metrics, descriptions)
        write_descriptions(request.run_dir.path, descriptions)
        request.run_dir.write_metrics({**known, **metrics})
        log.info("%s", metrics_table(metrics, descriptions))
    return metrics


@contextmanager
def output_directory(request: RunRequest, source: RunDirectory, epoch: int) -> Iterator[dict[str, Any]]:
    """Lock the directory that a mode writes to, and yield the metrics that its metrics.json keeps.

    It is the run's own directory or one below its eval/. In the latter metrics.json is written at the end, so that a
    mode that was cut off is not mistaken for a finished one.
    """
    run_dir = request.run_dir
    same = run_dir.path.resolve() == source.path.resolve()
    if same:
        run_dir.lock()
    else:
        run_dir.claim(request.config, request.overrides)
    known = source.metrics() if same else {"status": "finished", "epochs": epoch}
    with run_dir.logging():
        yield known
        if run_dir.status == "running" and not same:
            run_dir.write_metrics(known)


def load_trained(request: RunRequest, settings: Settings, mode: str) -> tuple[RunDirectory, Components, int]:
    """Return the run that `run=` names, its components with the weights of its checkpoint, and their epoch."""
    if settings.run is None:
        raise ConfigError(f"mode={mode} needs a run: run=outputs/...")
    source = RunDirectory(Path(settings.run))
    components = build(settings)
    try:
        # A critic's weights are in the objective; most objectives have none.
        objective = components.objective if components.objective.state_dict() else None
        training = checkpoint.TrainingState(objective) if objective is not None else None
        epoch = checkpoint.load(source.path, components.model, training).epoch
    except checkpoint.CheckpointError as error:
        text = str(error)
        if any(word.startswith("dataset=") and not word.endswith(f"={SAVED}") for word in request.overrides):
            shape = "x".join(map(str, components.model.image_shape))
            text += f"\n  these images are {shape}: use dataset.size= or dataset.random_crop= to match the run's"
        raise ConfigError(text) from error
    components.model.eval()
    return source, components, epoch
