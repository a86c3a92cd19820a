"""The end of a run: the findings of the diagnostics about its final metrics, and the lines of the log."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aetrain.data.examples import Values
from aetrain.data.mapped_rows import largest_value
from aetrain.data.pixel_values import MAX_DARK
from aetrain.data.sparse_rows import SparseRows
from aetrain.evaluation.diagnostic_inputs import diagnostic_inputs
from aetrain.evaluation.diagnostics import diagnose
from aetrain.evaluation.evaluator import Evaluator, Metrics
from aetrain.evaluation.finding import Finding
from aetrain.runs.build import Components
from aetrain.storage.run_directory import METRICS_TABLE, RunDirectory, display_path
from aetrain.views.tensorboard_link import tensorboard_command, tensorboard_link

log = logging.getLogger("aetrain")


def find_problems(
    components: Components,
    evaluator: Evaluator,
    train_values: Values,
    metrics: Metrics,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
) -> list[Finding]:
    """Return the findings of the diagnostics about a trained model with these final metrics by tag.

    `history` are the metrics of the epochs up to that of the weights, `settings` those of the run by dotted name.
    """
    by_name = {tag.partition("/")[2]: value for tag, value in metrics.items()}
    largest_byte = 255
    if not isinstance(train_values, SparseRows) and train_values.dtype == torch.uint8:
        largest_byte = largest_value(train_values, enough=MAX_DARK)
    model, penalties = components.model, components.objective.penalties
    constant = evaluator.data_constant(model)
    has_targets = evaluator.images.targets is not None
    return diagnose(
        diagnostic_inputs(model, by_name, history, settings, penalties, largest_byte, constant, has_targets)
    )


def log_result(run_dir: RunDirectory, table: str, findings: Sequence[Finding], has_views: bool, single: bool) -> None:
    """Log the table of metrics, the paths of the results, and last the findings with their remedies."""
    log.info("%s\nmetrics:  %s", table, display_path(run_dir.path / METRICS_TABLE))
    figures = run_dir.path / "figures"
    if has_views and any(figures.glob("*")):
        log.info("pictures: %s", display_path(figures))
    if single:  # a sweep logs this once, at its end
        log.info("compare:  %s\nthen at:  %s", tensorboard_command(_log_folder(run_dir.path)), tensorboard_link())
    for finding in findings:
        log.warning("diagnostics: %s: %s\n  %s", finding.what, finding.evidence, finding.remedy)


def _log_folder(path: Path) -> Path:
    """Return the folder to open TensorBoard on: the nearest parent called outputs, else the run's parent."""
    return next((folder for folder in path.parents if folder.name == "outputs"), path.parent)
