"""Start a command from a saved run: `run=DIR` for the modes that read one, `resume=DIR` to continue its training."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from aetrain.config.errors import ConfigError
from aetrain.config.keywords import keyword_overrides
from aetrain.config.overrides import DEFAULT_NAME, PROVIDER, READERS, SAVED, evaluation_name, literal
from aetrain.config.paths import groups
from aetrain.config.settings import root_settings
from aetrain.storage.saved_config import read_saved_config
from aetrain.storage.trust import is_signed

TRAIN_MODE = "aetrain.runs.train.train"

# Root settings that are not taken from the run: the command line or the defaults decide.
NOT_FROM_RUN = ("run", "query", "user", "resume", "device", "verbose", "trust", "data_dir")
NOT_FROM_RESUMED_RUN = ("run", "query", "user", "resume", "verbose", "retry", "trust")


def start_from_run(overrides: Sequence[str], parsed: Sequence[Override]) -> list[str]:
    """Return overrides that begin with the config of the run that `run=` or `resume=` names; else `overrides` as is.

    Each section of the saved config becomes the option `saved` of its group, and is chosen unless the command line
    chooses another, as in `mode=eval run=DIR noise=gaussian`. The output of a mode goes into the run's own directory,
    or below its eval/ under a name of the changes. `resume=DIR` continues the training in its directory. A run
    that this user has signed is trusted: `trust=true` is added.
    """
    by_key = {_full_key(override): override for override in parsed if not override.is_delete()}
    mode = by_key["mode"].value() if "mode" in by_key else None
    if "query" in by_key and mode != "search":
        raise ConfigError("query= is the image that mode=search looks for: add mode=search")
    if "user" in by_key and mode != "recommend":
        raise ConfigError("user= is the user for whom mode=recommend makes a list: add mode=recommend")
    if "run" in by_key and isinstance(by_key["run"].value(), list) and mode != "report":
        raise ConfigError(f"run=[...] is for mode=report: mode={mode or 'train'} takes one run")
    if mode in READERS:
        return _check_reader(str(mode), by_key, overrides)
    key = next((key for key in ("resume", "run") if key in by_key and by_key[key].value() is not None), None)
    if key is None:
        return list(overrides)
    if by_key[key].is_sweep_override():
        advice = {"run": "sweep over its conditions, as in noise=none,gaussian, or ", "resume": ""}[key]
        raise ConfigError(f"{key}= takes one run: {advice}use a shell loop")
    if "experiment" in by_key:
        raise ConfigError(f"experiment= and {key}= both choose a config to start from: drop one of them")
    run = Path(str(by_key[key].value()))
    if key == "resume":
        rest = [override.input_line or "" for name, override in by_key.items() if name != "resume"]
        return [*_resume(run, by_key), *rest]
    return [*_evaluate(run, by_key), *overrides]


def _full_key(override: Override) -> str:
    """Return the key of an override with its package: `noise@views.noise_map.extra_kinds.x` leaves `noise` alone."""
    package = f"@{override.package}" if override.package else ""
    return f"{override.key_or_group}{package}"


def _check_reader(mode: str, by_key: Mapping[str, Override], overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a mode that reads directories. Raise ConfigError for those that it would ignore."""
    ignored = [key for key in by_key if key.split(".")[0] not in ("mode", "run", "hydra")]
    if ignored:
        raise ConfigError(f"mode={mode} reads finished runs and has no such setting: drop {ignored[0]}=")
    if any(override.is_sweep_override() for override in by_key.values()):
        raise ConfigError(
            f"mode={mode} takes one folder with all its runs: use run= with the folder that holds them"
            f"{', or run=[A,B]' if mode == 'report' else ''}"
        )
    return list(overrides)


def _evaluate(run: Path, by_key: Mapping[str, Override]) -> list[str]:
    """Return the overrides that read a run in its own directory, or below its eval/ under other conditions."""
    if "mode" not in by_key:
        raise ConfigError(
            f"run={run} is for the modes that read a run: add mode=eval\n"
            f"  to continue its training use resume={run}, with more epochs= if it is finished"
        )
    saved, text = read_saved_config(run)
    name = evaluation_name(run, [override.input_line or "" for override in by_key.values()])
    directory = run if name == DEFAULT_NAME else run / "eval" / name
    return [
        f"hydra.run.dir={literal(str(directory))}",
        f"hydra.sweep.dir={literal(str(run / 'eval'))}",
        *_trust_signed(run, text, by_key),
        *_choose_saved(saved, by_key, NOT_FROM_RUN),
        *_keep_scale(saved, by_key),
    ]


def _keep_scale(saved: Mapping[str, Any], by_key: Collection[str]) -> list[str]:
    """Return the override that gives another data set the range of pixels with which the run's network was trained."""
    dataset = saved.get("dataset")
    scale = dataset.get("scale") if isinstance(dataset, dict) else None
    if "dataset" not in by_key or "dataset.scale" in by_key or scale is None:
        return []
    return keyword_overrides({"++dataset.scale": scale})  # ++: an option of the user's own may not list the setting


def _resume(run: Path, by_key: Collection[str]) -> list[str]:
    """Return the overrides that continue a run's training in its own directory."""
    if {"run", "mode", "hydra.run.dir"} & set(by_key):
        raise ConfigError(f"resume={run} continues a training in its directory: drop run=, mode= and hydra.run.dir=")
    saved, text = read_saved_config(run, "resume")
    mode = saved.get("mode")
    if not isinstance(mode, dict) or mode.get("_target_") != TRAIN_MODE:
        raise ConfigError(f"resume={run}: that is no training run, and only training can be resumed")
    trust = _trust_signed(run, text, by_key)
    return [f"hydra.run.dir={literal(str(run))}", *trust, *_choose_saved(saved, by_key, NOT_FROM_RESUMED_RUN)]


def _trust_signed(run: Path, text: bytes, by_key: Collection[str]) -> list[str]:
    """Return `trust=true` where this user has signed the config's text and the command line does not set it."""
    return ["trust=true"] if "trust" not in by_key and is_signed(run, text) else []


def _choose_saved(saved: Mapping[str, Any], by_key: Collection[str], excluded: Collection[str]) -> list[str]:
    """Return overrides that choose a saved config's sections and root settings, except those of the command line.

    Raise ConfigError for a key that is no setting's name: as an override it could set anything, also Hydra's callbacks.
    """
    chosen = []
    names = {*groups(), *root_settings()}
    for key, value in saved.items():
        if key not in names:
            raise ConfigError(f"the run's .hydra/config.yaml is damaged: {key!r} is not a setting")
        if key in groups():
            if not isinstance(value, dict):
                raise ConfigError(f"the run's .hydra/config.yaml is damaged: {key} is not a section")
            if "defaults" in value:  # Hydra would compose other sections from it
                raise ConfigError(f"the run's .hydra/config.yaml is damaged: {key} has a list of defaults")
            ConfigStore.instance().store(group=key, name=SAVED, node=OmegaConf.create(value), provider=PROVIDER)
            if key != "mode" and key not in by_key:
                chosen.append(f"{key}={SAVED}")
        elif key not in by_key and key not in excluded:
            chosen.append(f"{key}={literal(value)}")
    return chosen
