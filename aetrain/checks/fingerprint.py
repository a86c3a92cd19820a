"""What a run came to, as digests: two runs with equal ones are the same, bit for bit, in all but what a clock says."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from aetrain.directory import TIMINGS, RunDirectory
from aetrain.training import checkpoint
from aetrain.training.state import NAME, PICTURES, STATE
from aetrain.views.logbook import event_files, events

# What belongs into a run's directory; all else is a leftover.
BELONGS = (
    *("aetrain.log", "history.jsonl", "metrics.json", "projector_config.pbtxt"),
    *(".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/lock"),
)
DRAWN = ("figures/", "projector")
FOLDERS = ("checkpoint/", "checkpoint.previous/", f"{PICTURES}/", "figures/", "projector/", "eval/")


def fingerprint(run: Path) -> dict[str, str]:
    """Digests of a run's weights, optimizer state, figures, history, curves and pictures, and its leftovers by name."""
    home, place = RunDirectory(run), run / NAME
    training = torch.load(place / checkpoint.TRAINING, weights_only=True, map_location="cpu")
    files = [str(file.relative_to(run)) for file in sorted(run.rglob("*")) if file.is_file()]
    logs = {file.name for file in event_files(run)}
    shown = [event for file in event_files(run) for event in events(file)]
    values = [(event.step, value) for event in shown for value in event.summary.value]
    curves = sorted((value.tag, step, value.simple_value) for step, value in values if value.HasField("simple_value"))
    pictures = sorted((v.tag, s, v.SerializeToString()) for s, v in values if not v.HasField("simple_value"))
    return {
        "epoch": str(json.loads((place / STATE).read_text())["epoch"]),
        "weights": digest(load_file(place / checkpoint.WEIGHTS)),
        "optimizers": digest(training["optimizers"]),
        "objective": digest(training["objective"]),
        "metrics": digest(_untimed(home.metrics())),
        "history": digest([_untimed(line) for line in home.history()]),
        "curves": digest(curves),
        "pictures": digest(pictures),
        "figures": digest({name: (run / name).read_bytes() for name in files if name.startswith(DRAWN)}),
        "event files": str(len(logs)),
        "leftovers": ", ".join(
            name
            for name in files
            if name.endswith(".new") or not (name in logs or name in BELONGS or name.startswith(FOLDERS))
        ),
    }


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The names of what differs."""
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


def digest(content: Any) -> str:
    """A short digest of tensors, numbers, texts and what is made of them."""
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()[:16]


def _feed(sha: Any, content: Any) -> None:
    match content:
        case Tensor():
            tensor = content.detach().cpu().contiguous()
            sha.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            sha.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
        case bytes():
            sha.update(content)
        case Mapping():
            for key in sorted(content, key=str):
                sha.update(f"{key}:".encode())
                _feed(sha, content[key])
        case Sequence() if not isinstance(content, str):
            sha.update(f"[{len(content)}".encode())
            for item in content:
                _feed(sha, item)
        case _:
            sha.update(repr(content).encode())


def _untimed(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in TIMINGS}
