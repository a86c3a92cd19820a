"""A request for one run: its config, its directory, its overrides."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from aetrain.storage.run_directory import RunDirectory


@dataclass(frozen=True)
class RunRequest:
    """One run of a command or of a sweep."""

    config: DictConfig
    run_dir: RunDirectory
    overrides: Sequence[str] = ()
    single: bool = True  # the only run of its command, which a person may watch; not one of a sweep
