"""`mode=eval`: evaluate the checkpoint of a run, as it was trained or under other conditions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.config.overrides import SAVED
from aetrain.config.settings import Settings
from aetrain.data.digests import DataDigests, digest_data
from aetrain.data.examples import Splits
from aetrain.evaluation.console import final_table, metrics_table
from aetrain.evaluation.metric_descriptions import collect_descriptions, describe_metrics
from aetrain.modes.other_data import chooses_data, own_keys
from aetrain.objective.objective import loss_constants
from aetrain.runs.build import Components, build
from aetrain.runs.epoch_selection import epoch_of_weights
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import describe_change, has_digests
from aetrain.runs.train import check_measures, evaluate_components, load_data, log_data
from aetrain.storage import checkpoint
from aetrain.storage.descriptions import read_descriptions, write_descriptions
from aetrain.storage.hashing import digest
from aetrain.storage.old_metrics import NLL_CONSTANT
from aetrain.storage.run_directory import METRICS_TABLE, RunDirectory, display_path
from aetrain.training.backend.setup import backend
from aetrain.training.backend.threads import choose_threads

log = logging.getLogger("aetrain")

DIGEST_LENGTH = 8  # hexadecimal characters in the name of a directory


def evaluate(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Evaluate the checkpoint of `run` on the whole test set, under the conditions of the command line."""
    source, components, epoch = load_trained(request, settings, "eval")
    splits = load_data(components)
    check_measures(components, splits)
    request = separate_changed_data(request, source, splits)
    threads = choose_threads(settings, components.model)
    with output_directory(request, source, epoch) as known, backend(threads):
        log_data(components, splits)
        log.info("%s after %d epochs", source, epoch)
        metrics = evaluate_components(components, splits)
        measures, noun = components.measures.values(), components.dataset.noun
        descriptions = collect_descriptions(components.objective.penalties, measures, noun)
        descriptions = describe_metrics(metrics, descriptions)
        write_descriptions(request.run_dir.path, descriptions)
        constant = {NLL_CONSTANT: loss_constants(components.model)["nll"]}
        run_dir, all_metrics = request.run_dir, {**known, **constant, **metrics}
        tags = {tag: value for tag, value in all_metrics.items() if "/" in tag}
        run_dir.write_metrics_table(metrics_table(tags, read_descriptions(run_dir.path)))
        run_dir.write_metrics(all_metrics)
        table = final_table(metrics, descriptions, components, settings.verbose)
        log.info("%s\nmetrics: %s", table, display_path(run_dir.path / METRICS_TABLE))
    return metrics


def separate_changed_data(request: RunRequest, source: RunDirectory, splits: Splits) -> RunRequest:
    """Return the request; with a directory of its own below eval/ where the data are not those of the training.

    The results of other data must not replace those of the run. A run of 0.1 has no digests of its data: all data of
    another path are taken for other data.
    """
    data = digest_data(splits)
    is_unknown = chooses_data(request) and not has_digests(source.path)
    changed = warn_of_changed_data(request, source, data) or is_unknown or "dataset" in own_keys(request)
    return separate_data(request, source, data) if changed else request


def separate_data(request: RunRequest, source: RunDirectory, data: DataDigests) -> RunRequest:
    """Return the request, with a directory below eval/ that is named by a digest of the data in place of the run's."""
    name = f"data={digest(data.splits)[:DIGEST_LENGTH]}"
    if not _is_same_directory(request, source):
        if "dataset.path" not in own_keys(request):
            return request
        name = f"{request.run_dir.path.name},{name}"  # the path is not part of the directory's name
    return replace(request, run_dir=RunDirectory(source.path / "eval" / name))


def warn_of_changed_data(request: RunRequest, source: RunDirectory, data: DataDigests) -> bool:
    """Return whether the data are not those that the run was trained on, and log in what they differ.

    Data that the command line chooses, or changes by a setting other than their place, are not compared.
    """
    if any(key.partition(".")[0] == "dataset" and key != "dataset.path" for key in own_keys(request)):
        return False
    change = describe_change(source.path, data)
    if change:
        log.warning("the data are not those that %s was trained on: %s", source, change)
    return bool(change)


def _is_same_directory(request: RunRequest, source: RunDirectory) -> bool:
    return request.run_dir.path.resolve() == source.path.resolve()


@contextmanager
def output_directory(request: RunRequest, source: RunDirectory, epoch: int) -> Iterator[dict[str, Any]]:
    """Lock the directory that a mode writes to, and yield the metrics that its metrics.json keeps.

    It is the run's own directory or one below its eval/. In the latter metrics.json is written at the end, so that a
    mode that was cut off is not mistaken for a finished one.
    """
    run_dir = request.run_dir
    same = _is_same_directory(request, source)
    earlier = run_dir.metrics() if run_dir.metrics().get("epochs") == epoch else {}  # of another mode
    if same:
        run_dir.lock()
    else:
        run_dir.claim(request.config, request.overrides)
    known = source.metrics() if same else {**earlier, "status": "finished", "epochs": epoch}
    try:
        with run_dir.logging():
            yield known
            if run_dir.status == "running" and not same:
                run_dir.write_metrics(known)
    finally:
        run_dir.release()


def load_trained(request: RunRequest, settings: Settings, mode: str) -> tuple[RunDirectory, Components, int]:
    """Return the run that `run=` names, its components with the weights of its checkpoint, and their epoch.

    With keep=best, that is not the last epoch of the training.
    """
    if settings.run is None:
        raise ConfigError(f"mode={mode} needs a run: run=outputs/...")
    source = RunDirectory(Path(settings.run))
    components = build(settings, source.path)
    try:
        # A critic's weights are in the objective; most objectives have none.
        objective = components.objective if components.objective.state_dict() else None
        training = checkpoint.TrainingState(objective) if objective is not None else None
        epoch = checkpoint.load(source.path, components.model, training).epoch
    except checkpoint.CheckpointError as error:
        text = str(error)
        if any(word.startswith("dataset=") and not word.endswith(f"={SAVED}") for word in request.overrides):
            shape = "x".join(map(str, components.model.image_shape))
            mend = "use dataset.size= or dataset.random_crop= to match the run's"
            if components.dataset.kind != "image":
                mend = "use data with the features of the run's"
            text += f"\n  these {components.dataset.noun}s are {shape}: {mend}"
        raise ConfigError(text) from error
    components.model.eval()
    return source, components, epoch_of_weights(source, epoch)
