"""What a checkpoint says beside its tensors, in `state.json`: sealed, and readable without torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

STATE = "state.json"
NAME = "checkpoint"
PREVIOUS = "checkpoint.previous"  # what was there before; read where the newest is damaged
PICTURES = "checkpoint.pictures"  # what was shown, a file an epoch; read where the event file is damaged


@dataclass(frozen=True)
class State:
    """The epoch, the digests of the files beside it, and a copy of what the run is made from."""

    epoch: int
    sha256: Mapping[str, str] = field(default_factory=dict)  # of the other files, by name
    config: str = ""  # .hydra/config.yaml, should that be lost
    overrides: Sequence[str] = ()  # .hydra/overrides.yaml, likewise

    def sealed(self) -> bytes:
        """As state.json holds it, with a digest of what it says itself."""
        said = asdict(self)
        return json.dumps(said | {"seal": _seal(said)}, indent=1).encode() + b"\n"


def read(folder: Path) -> State:
    """The state of a checkpoint's folder; a ValueError, KeyError or OSError where it is not what was written."""
    said = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if said.pop("seal") != _seal(said):
        raise ValueError(f"{STATE} is not what was written")
    found = State(**said)
    if not isinstance(found.epoch, int):
        raise ValueError(f"{STATE} says epoch {found.epoch}")
    return found


def kept(run: Path) -> State | None:
    """The state of the newest checkpoint of a run that can be read."""
    for name in (NAME, PREVIOUS):
        try:
            return read(run / name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return None


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _seal(said: Mapping[str, object]) -> str:
    return digest(json.dumps(said, sort_keys=True).encode())
