"""Read run directories for a report. Damage in one run, or hostile content, must not affect the rest of the report."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aetrain.config.chosen_options import chosen_options
from aetrain.config.errors import ConfigError
from aetrain.config.overrides import parse_assignments
from aetrain.config.settings import flatten, role_of
from aetrain.evaluation.finding import Finding
from aetrain.storage.descriptions import read_descriptions
from aetrain.storage.old_metrics import upgrade_lines
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.saved_config import resolve_config, saved_config

MAX_FILE_BYTES = 50_000_000  # larger files are not read
MAX_ABSOLUTE_METRIC = 1e300  # larger numbers are left out: sums of them would overflow

TRAINING_MODE = "aetrain.runs.train.train"  # `mode._target_` of a run that trains; other modes use such a run
INTERPOLATION = "${"  # begins a reference to another setting or a resolver
SAVED_STATUSES = ("finished", "failed", "pruned", "interrupted", "running")


@dataclass(frozen=True)
class RunSummary:
    """The readable content of one run directory."""

    path: Path
    name: str  # its path relative to the folder of the report
    status: str  # finished, failed, pruned, interrupted, running, stopped (no process is running it) or damaged
    link: str = "."  # its path relative to the page
    cause: str = ""  # of a failure or of the damage
    settings: Mapping[str, Any] = field(default_factory=dict)  # its config with references resolved, by dotted name
    overrides: Mapping[str, str] = field(default_factory=dict)  # its command line, by key
    options: Mapping[str, str] = field(default_factory=dict)  # of groups: {"model": "vae"}, those of an experiment too
    metrics: Mapping[str, float] = field(default_factory=dict)  # finite numbers of metrics.json, by tag
    descriptions: Mapping[str, str] = field(default_factory=dict)  # of metrics, by name; empty in runs of version 0.1
    history: Sequence[Mapping[str, float]] = ()  # metrics of each epoch, `epoch` among them
    diagnosed: bool = False  # whether the diagnostics have examined it
    findings: Sequence[Finding] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)  # figures/*.png, by name

    @property
    def seed(self) -> str:
        """The seed as text; empty if it is unknown."""
        return str(self.settings.get("seed", ""))


def without_evaluations(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs without the directories below them, such as those of evaluations, unless these train."""
    paths = {run.path for run in runs}
    return [run for run in runs if _trains(run) or not paths & {*run.path.parents}]


def _trains(run: RunSummary) -> bool:
    return run.settings.get("mode._target_") in (TRAINING_MODE, None)


def read_run(path: Path, folder: Path, page_folder: Path) -> RunSummary:
    """Return the summary of a run directory in or below `folder`; unreadable parts are empty."""
    run_dir = RunDirectory(path)
    settings, damage = _read_settings(path)
    overrides = parse_assignments(run_dir.overrides())
    metrics = _read_file(path / "metrics.json", json.loads, dict, {})
    status = metrics.get("status", "running")
    if damage:
        status = "damaged"
    elif status not in SAVED_STATUSES:
        status, damage = "damaged", "metrics.json is damaged"
    elif status == "running" and not run_dir.is_locked:
        status = "stopped"
    return RunSummary(
        path=path,
        name=path.relative_to(folder).as_posix() if path != folder else path.resolve().name,
        status=status,
        link=Path(os.path.relpath(path, page_folder)).as_posix(),
        cause=damage or str(metrics.get("cause", "")),
        settings=settings,
        overrides=overrides,
        options=chosen_options(settings, overrides),
        metrics=upgrade_lines([_finite_numbers(metrics)], path)[0],
        descriptions=read_descriptions(path),
        history=upgrade_lines(_read_history(path / "history.jsonl"), path),
        diagnosed=(path / "findings.json").is_file(),
        findings=_read_findings(path / "findings.json"),
        pictures={file.stem: file for file in sorted(path.glob("figures/*.png")) if file.is_file()},
    )


def _read_settings(path: Path) -> tuple[dict[str, Any], str]:
    """Return the settings of a run by dotted name, and a description of the damage, empty if there is none.

    Locations that were not typed into the config are left out: the environment's `data_dir`, and `dataset.path`, which
    refers to it.
    """
    try:
        config = saved_config(path)
        if INTERPOLATION not in str(config):
            return _by_name(config), ""
        raw, resolved = _by_name(config), _by_name(resolve_config(config))
    except (ConfigError, OSError, RecursionError) as error:
        return {}, str(error)
    return {key: value for key, value in resolved.items() if not _is_location(key, raw.get(key))}, ""


def _by_name(config: dict[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in flatten(config).items()}


def _is_location(key: str, text: Any) -> bool:
    """Return whether a setting's text is an interpolation, and it or the setting to which it refers is a location."""
    if not isinstance(text, str) or not text.startswith(INTERPOLATION):
        return False
    return not role_of(key).compared or not role_of(text[len(INTERPOLATION) : -1]).compared


def _read_file(file: Path, parse: Callable[[str], Any], kind: type, default: Any) -> Any:
    """Return the parsed content of a file; `default` if it cannot be read or is not of the expected kind."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return default
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return default
    return content if isinstance(content, kind) else default


def _finite_numbers(node: Any) -> dict[str, float]:
    """Return the finite numbers of a JSON object; empty if it is not an object."""
    if not isinstance(node, dict):
        return {}
    numbers = {}
    for key, value in node.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_ABSOLUTE_METRIC:
            numbers[str(key)] = float(value)
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _read_history(file: Path) -> list[dict[str, float]]:
    """Return the metrics of each epoch, sorted by epoch; damaged lines are left out."""
    epochs: dict[float, dict[str, float]] = {}
    for text in _read_file(file, str.splitlines, list, []):
        try:
            metrics = _finite_numbers(json.loads(text))
        except (ValueError, RecursionError):
            continue
        if "epoch" in metrics:
            epochs[metrics["epoch"]] = metrics
    return [epochs[epoch] for epoch in sorted(epochs)]


def _read_findings(file: Path) -> list[Finding]:
    """Return the findings of the diagnostics; damaged ones are left out."""
    findings = []
    for item in _read_file(file, json.loads, list, []):
        match item:
            case {"what": str(what), "evidence": str(evidence), "remedy": str(remedy)}:
                findings.append(Finding(what, evidence, remedy))
    return findings
