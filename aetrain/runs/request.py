"""A request for one run: its config, its directory, its overrides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from aetrain.storage.run_directory import RunDirectory

# Return why a search stops the run after an epoch, from the lines of history.jsonl so far; empty where it continues.
Prune = Callable[[Sequence[Mapping[str, Any]]], str]


@dataclass(frozen=True)
class RunRequest:
    """One run of a command or of a sweep."""

    config: DictConfig
    run_dir: RunDirectory
    overrides: Sequence[str] = ()
    single: bool = True  # the only run of its command, which a person may watch; not one of a sweep
    in_search: bool = False  # a search compares it with others by its objective
    prune: Prune | None = None  # asked after every epoch; in a sweep it is sent to the process of the run
