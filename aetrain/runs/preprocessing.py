"""The file `preprocessing.json` of a run: all that its data set has learnt from the training examples.

With it a saved run knows its shapes, and converts new examples as it did in training, without its data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.data.dataset import Dataset
from aetrain.storage import atomic

FILE = "preprocessing.json"


def write_state(run: Path, dataset: Dataset) -> None:
    """Write the fitted state of a data set into a run directory, if it has learnt anything."""
    if state := dataset.fitted_state():
        content = {"dataset": dataset.state_format, "state": state}
        atomic.replace_text(run / FILE, json.dumps(content, ensure_ascii=False) + "\n")


def restore_state(run: Path, dataset: Dataset) -> None:
    """Restore the fitted state of a run's data set in another one of the same format; do nothing where there is none.

    Raise ConfigError where the file is damaged.
    """
    file = run / FILE
    if not file.exists():
        return
    try:
        content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if content["dataset"] == dataset.state_format:
            dataset.restore(content["state"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {error}; train the run again") from error
