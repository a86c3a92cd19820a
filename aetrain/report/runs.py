"""What run directories say, read so that no damage in one, and nothing that a stranger put there, can do harm."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError
from aetrain.config.said import said
from aetrain.directory import RunDirectory, flat
from aetrain.evaluation.finding import Finding

LARGEST = 50_000_000  # bytes of a file that is read

TRAINS = "aetrain.experiment.train"  # what a run's mode is; others measure or use one
STATUSES = ("finished", "failed", "interrupted", "running")


@dataclass(frozen=True)
class Entry:
    """One run, as far as it can be read."""

    path: Path
    name: str  # its place below the folder that is reported on
    status: str  # finished, failed, interrupted, running, stopped (nobody is running it) or damaged
    link: str = "."  # its directory from where the page lies
    cause: str = ""  # of a failure, or what is damaged
    settings: Mapping[str, Any] = field(default_factory=dict)  # its config, by dotted name
    said: Mapping[str, str] = field(default_factory=dict)  # its overrides, by key
    figures: Mapping[str, float] = field(default_factory=dict)  # finite numbers of metrics.json, by tag
    history: Sequence[Mapping[str, float]] = ()  # its epochs, `epoch` among their figures
    examined: bool = False  # whether the doctor has seen it
    findings: Sequence[Finding] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)  # figures/*.png, by name

    @property
    def seed(self) -> str:
        """What it began from."""
        return str(self.settings.get("seed", ""))


def entries(place: Path, page: Path) -> list[Entry]:
    """The runs in and below a folder, by name; what was made of one of them, below it, is none of its own.

    `page` is the folder from which links lead to them.
    """
    found = {file.parent.parent for file in place.glob("**/.hydra/config.yaml")}
    found |= {file.parent for file in place.glob("**/aetrain.log")}
    read = [_entry(path, place, page) for path in sorted(found)]
    return [entry for entry in read if _trains(entry) or not found & {*entry.path.parents}]


def _trains(entry: Entry) -> bool:
    return entry.settings.get("mode._target_") in (TRAINS, None)


def _entry(path: Path, place: Path, page: Path) -> Entry:
    name = path.relative_to(place).as_posix() if path != place else path.resolve().name
    home, damage = RunDirectory(path), ""
    try:
        settings = {str(key): value for key, value in flat(saved_config(path)).items()}
    except (ConfigError, OSError, RecursionError) as error:
        settings, damage = {}, str(error)
    metrics = _read(path / "metrics.json", json.loads, dict, {})
    status = metrics.get("status", "running")
    if damage:
        status = "damaged"
    elif status not in STATUSES:
        status, damage = "damaged", "metrics.json is damaged"
    elif status == "running" and not home.alive:
        status = "stopped"
    return Entry(
        path=path,
        name=name,
        status=status,
        link=Path(os.path.relpath(path, page)).as_posix(),
        cause=damage or str(metrics.get("cause", "")),
        settings=settings,
        said=said(home.overrides()),
        figures=_numbers(metrics),
        history=_history(path / "history.jsonl"),
        examined=(path / "findings.json").is_file(),
        findings=_findings(_read(path / "findings.json", json.loads, list, [])),
        pictures={file.stem: file for file in sorted(path.glob("figures/*.png")) if file.is_file()},
    )


def _read(file: Path, parse: Callable[[str], Any], kind: type, otherwise: Any) -> Any:
    """A file's content where it is what it should be."""
    try:
        if file.stat().st_size > LARGEST:
            return otherwise
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return otherwise
    return content if isinstance(content, kind) else otherwise


def _numbers(node: Any) -> dict[str, float]:
    """The finite numbers of a record."""
    if not isinstance(node, dict):
        return {}
    numbers = {}
    for key, value in node.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            numbers[str(key)] = float(value)
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _history(file: Path) -> list[dict[str, float]]:
    """The epochs in their order; whatever is no epoch is left out."""
    lines: dict[float, dict[str, float]] = {}
    for text in _read(file, str.splitlines, list, []):
        try:
            line = _numbers(json.loads(text))
        except (ValueError, RecursionError):
            continue
        if "epoch" in line:
            lines[line["epoch"]] = line
    return [lines[epoch] for epoch in sorted(lines)]


def _findings(items: Sequence[Any]) -> list[Finding]:
    keys = ("what", "evidence", "remedy")
    known = [item for item in items if isinstance(item, dict) and all(isinstance(item.get(k), str) for k in keys)]
    return [Finding(*(item[key] for key in keys)) for item in known]
