"""Fingerprints: digests of all that a run writes. Runs with equal fingerprints are bitwise equal except for timings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from aetrain.storage import hashing
from aetrain.storage.checkpoint import TRAINING_FILE, WEIGHTS_FILE
from aetrain.storage.checkpoint_state import CHECKPOINT, PICTURES, PREVIOUS, STATE_FILE
from aetrain.storage.run_directory import TIMING_METRICS, RunDirectory
from aetrain.views.tensorboard import event_files, read_events

DIGEST_LENGTH = 16  # hexadecimal characters

# The contents of a run directory beside its event file. All other files are leftovers.
FILES = (
    *("aetrain.log", "history.jsonl", "metrics.json", "metrics.txt", "findings.json", "descriptions.json"),
    *("projector_config.pbtxt", "data.json", "start.json"),
    *(".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/signature", ".hydra/lock"),
)
FIGURES = ("figures/", "projector")
FOLDERS = (f"{CHECKPOINT}/", f"{PREVIOUS}/", f"{PICTURES}/", "figures/", "projector/", "eval/")


def fingerprint(run: Path) -> dict[str, str]:
    """Return digests of a run's weights, training state, metrics, curves and pictures, and the names of leftovers.

    Raise OSError, ValueError or KeyError where a file of the run is missing or damaged.
    """
    run_dir, checkpoint = RunDirectory(run), run / CHECKPOINT
    training = torch.load(checkpoint / TRAINING_FILE, weights_only=True, map_location="cpu")
    files = [str(file.relative_to(run)) for file in sorted(run.rglob("*")) if file.is_file()]
    event_file_names = {file.name for file in event_files(run)}
    curves, pictures = _logged_values(run)
    return {
        "epoch": str(json.loads((checkpoint / STATE_FILE).read_text())["epoch"]),
        "weights": digest(load_file(checkpoint / WEIGHTS_FILE)),
        "optimizers": digest(training["optimizers"]),
        "objective": digest(training["objective"]),
        "weight average": digest(training.get("weight_average")),
        "best weights": digest(training.get("best_weights")),
        "metrics": digest(_without_timings(run_dir.metrics())),
        "findings": digest((run / "findings.json").read_bytes()) if "findings.json" in files else "",
        "history": digest([_without_timings(metrics) for metrics in run_dir.history()]),
        "curves": digest(curves),
        "pictures": digest(pictures),
        "figures": digest({name: (run / name).read_bytes() for name in files if name.startswith(FIGURES)}),
        "event files": str(len(event_file_names)),
        "leftovers": ", ".join(name for name in files if name not in event_file_names and _is_leftover(name)),
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the keys in which two fingerprints differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def digest(content: Any) -> str:
    """Return a short digest of tensors, numbers, texts and nested structures of them."""
    return hashing.digest(content)[:DIGEST_LENGTH]


def _logged_values(run: Path) -> tuple[list[tuple[str, int, float]], list[tuple[str, int, bytes]]]:
    """Return the scalars and the other values of the run's event files, sorted by tag and step."""
    curves, pictures = [], []
    for file in event_files(run):
        for event in read_events(file):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    curves.append((value.tag, event.step, value.simple_value))
                else:
                    pictures.append((value.tag, event.step, value.SerializeToString()))
    return sorted(curves), sorted(pictures)


def _is_leftover(name: str) -> bool:
    return name.endswith(".new") or not (name in FILES or name.startswith(FOLDERS))


def _without_timings(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in TIMING_METRICS}
