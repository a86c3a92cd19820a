"""The descriptions of a run's metrics in its directory: `descriptions.json`, names of metrics to texts.

A report reads them without the classes that computed the metrics. The order is that of tables.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from aetrain.storage import atomic

DESCRIPTIONS_FILE = "descriptions.json"
MAX_FILE_BYTES = 1_000_000  # larger files are not read


def write_descriptions(run: Path, descriptions: Mapping[str, str]) -> None:
    """Add descriptions to those of a run directory; a new text replaces an old one. Raise OSError on a full disk."""
    content = json.dumps({**read_descriptions(run), **descriptions}, indent=1)
    atomic.replace_text(run / DESCRIPTIONS_FILE, content + "\n")


def read_descriptions(run: Path) -> dict[str, str]:
    """Return the descriptions in a run directory by the name of the metric; empty where the file is none or damaged."""
    file = run / DESCRIPTIONS_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= MAX_FILE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: text for name, text in content.items() if isinstance(text, str)}
