"""The part of a checkpoint that is no tensor, `state.json`: sealed by a digest, readable without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aetrain.storage.hashing import sha256

STATE_FILE = "state.json"
CHECKPOINT = "checkpoint"
PREVIOUS = "checkpoint.previous"  # the checkpoint before; read where the newest is damaged
PICTURES = "checkpoint.pictures"  # a copy of the logged pictures, a file an epoch; read where the event file is damaged


@dataclass(frozen=True)
class CheckpointState:
    """The epoch, the digests of the other files and of the data, a copy of the config, the threads and processes."""

    epoch: int
    sha256: Mapping[str, str] = field(default_factory=dict)  # of the other files, by name
    config: str = ""  # a copy of .hydra/config.yaml
    overrides: Sequence[str] = ()  # a copy of .hydra/overrides.yaml
    data: Mapping[str, Any] = field(default_factory=dict)  # the digests of the data, by split; empty in runs of 0.1
    threads: int | None = None  # of the CPU, with which the last epoch was trained; None in runs of 0.1
    processes: int = 1  # that trained the last epoch

    def to_json(self) -> bytes:
        """Return the content of state.json, with a digest of itself."""
        content = asdict(self)
        return json.dumps(content | {"seal": _seal(content)}, indent=1).encode() + b"\n"


def read_state(folder: Path) -> CheckpointState:
    """Read the state of a checkpoint's folder. Raise ValueError, KeyError or OSError where it is damaged."""
    content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    if content.pop("seal") != _seal(content):
        raise ValueError(f"{STATE_FILE} does not match its digest")
    state = CheckpointState(**content)
    if not isinstance(state.epoch, int):
        raise ValueError(f"{STATE_FILE} has epoch {state.epoch}")
    return state


def find_state(folder: Path) -> CheckpointState | None:
    """Return the state of a checkpoint's folder; None where it cannot be read."""
    try:
        return read_state(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def latest_state(run: Path) -> CheckpointState | None:
    """Return the state of the newest readable checkpoint of a run; None where there is none."""
    states = (find_state(run / name) for name in (CHECKPOINT, PREVIOUS))
    return next((state for state in states if state is not None), None)


def _seal(content: Mapping[str, object]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
