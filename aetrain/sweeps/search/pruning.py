"""The part of a search that concerns one run: whether it belongs to a search, and who may stop it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aetrain.runs.request import Prune

BASIC_SWEEPER = "BasicSweeper"  # Hydra's own, which compares nothing


def is_search(hydra: Mapping[str, Any]) -> bool:
    """Return whether a sweep compares its runs by their objective, from Hydra's own section of the config."""
    return not str(hydra["sweeper"]["_target_"]).endswith(BASIC_SWEEPER)


def storage_of(hydra: Mapping[str, Any]) -> str:
    """Return the location of the storage of hydra/sweeper=optuna: by default a file in the directory of the sweep."""
    from aetrain.sweeps.search.optuna_study import JOURNAL

    storage = hydra["sweeper"]["storage"]
    return str(storage) if storage is not None else str(Path(hydra["sweep"]["dir"]).absolute() / JOURNAL)


def make_pruning(hydra: Mapping[str, Any], config: Mapping[str, Any]) -> Prune | None:
    """Return the function that a run asks after every epoch whether a study prunes it; None where nobody does.

    Optuna has no pruning by several metrics.
    """
    trial_id = hydra["sweeper"].get("trial_id")
    objective = config["objective"]
    if trial_id is None or (not isinstance(objective, str) and len(objective) != 1):
        return None
    from aetrain.sweeps.search.optuna_study import Pruning

    return Pruning(
        storage_of(hydra),
        str(hydra["sweeper"]["study_name"]),
        int(trial_id),
        dict(hydra["sweeper"]["pruner"]),
        objective if isinstance(objective, str) else str(objective[0]),
        int(config["epochs"]),
    )
