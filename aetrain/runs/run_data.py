"""The data of a run: their digests in its checkpoint and its directory, compared with the data of a later command.

The checkpoint has the digests of the splits, `data.json` a digest of each image file, from which a message names files.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.data.digests import DataDigests
from aetrain.storage import atomic
from aetrain.storage.checkpoint_state import latest_state
from aetrain.storage.run_directory import RunDirectory

DATA_FILE = "data.json"


def check_same_data(run_dir: RunDirectory, now: DataDigests) -> None:
    """Raise ConfigError, naming the difference, where the run in a directory was trained on other data."""
    if change := describe_change(run_dir.path, now):
        raise ConfigError(
            f"{run_dir} was trained on other data: {change}\n  restore the data, with which training resumes exactly, "
            f"or begin a new run: start={run_dir} with its weights, or another directory (hydra.run.dir=) without them"
        )


def describe_change(run: Path, now: DataDigests) -> str:
    """Return in what the data differ from those that a run was trained on.

    An empty string where they are the same, and where the run has no digests: it has no checkpoint, or is from 0.1.
    """
    state = latest_state(run)
    if state is None or not state.data:
        return ""
    return now.describe_change(DataDigests(state.data, read_files(run)))


def has_digests(run: Path) -> bool:
    """Tell whether the checkpoint of a run has digests of its data; one of 0.1 has none."""
    state = latest_state(run)
    return state is not None and bool(state.data)


def write_files(run: Path, data: DataDigests) -> None:
    """Write the digests of the image files into a run directory, where the data are files."""
    if data.files:
        atomic.replace_text(run / DATA_FILE, json.dumps({"files": data.files}, indent=1) + "\n")


def read_files(run: Path) -> Mapping[str, str | None]:
    """Return the digests of the image files of a run; empty where there are none or the file is damaged."""
    try:
        content = json.loads((run / DATA_FILE).read_text(encoding="utf-8"))
        files = content["files"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return files if isinstance(files, dict) else {}
