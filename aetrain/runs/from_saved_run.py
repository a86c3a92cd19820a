"""Start a command from a saved run: `run=DIR` for the modes that read one, `resume=DIR` to continue its training.

`start=DIR` begins another training with the weights of the run, and with its settings where none are given.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from aetrain.config.errors import ConfigError
from aetrain.config.keywords import keyword_overrides
from aetrain.config.overrides import (
    DEFAULT_NAME,
    PROVIDER,
    READERS,
    SAVED,
    evaluation_name,
    key_of,
    literal,
    run_name,
)
from aetrain.config.paths import groups
from aetrain.config.settings import role_of, root_settings
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.saved_config import read_saved_config
from aetrain.storage.trust import is_signed

TRAIN_MODE = "aetrain.runs.train.train"
TRAINING_MODES = ("train", "lr_find")  # options of `mode` that train a model
EVALUATION_MODES = ("eval", "encode", "export", "recommend", "score", "search")  # that read a run without training

# Groups and root settings that are not taken from the run: the command line or the defaults decide.
NOT_FROM_RUN = ("run", "query", "user", "start", "resume", "device", "verbose", "trust", "data_dir")
NOT_FROM_RESUMED_RUN = ("run", "query", "user", "resume", "verbose", "retry", "trust")
NOT_FROM_STARTING_RUN = (*NOT_FROM_RUN, "retry", "pretrain")  # its weights take the place of pretraining


def start_from_run(overrides: Sequence[str], parsed: Sequence[Override], multirun: bool = False) -> list[str]:
    """Return overrides that begin with the config of the run that `run=`, `start=` or `resume=` names.

    Without any of them, `overrides` are returned as they are. `multirun` says whether they are those of a sweep.

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
    keys = [key for key in ("resume", "start", "run") if key in by_key and by_key[key].value() is not None]
    if not keys:
        return list(overrides)
    key = keys[0]
    if "start" in keys and (len(keys) > 1 or mode not in (None, *TRAINING_MODES)):
        other = f"mode={mode}" if len(keys) == 1 else f"{' and '.join(keys)}="
        raise ConfigError(f"start= begins a new training with the weights of a run, and does not go with {other}")
    if by_key[key].is_sweep_override():
        advice = {"run": "sweep over its conditions, as in noise=none,gaussian, or "}.get(key, "")
        raise ConfigError(f"{key}= takes one run: {advice}use a shell loop")
    if key == "resume" and multirun:
        raise ConfigError(
            f"resume={by_key[key].value()} continues one run: leave out -m, or use start=, which begins new runs with "
            "its weights"
        )
    if "experiment" in by_key:
        raise ConfigError(f"experiment= and {key}= both choose a config to start from: drop one of them")
    run = Path(str(by_key[key].value()))
    typed = _keep_last(parsed)
    if key == "resume":
        return [*_resume(run, by_key), *(text for text in typed if key_of(text) != "resume")]
    return [*(_start(run, by_key, typed) if key == "start" else _evaluate(run, by_key, typed)), *overrides]


def _keep_last(parsed: Sequence[Override]) -> list[str]:
    """Return the overrides of the command line, of each setting the last value; a deletion stands beside it."""
    return [*{(_full_key(item), item.is_delete()): item.input_line or "" for item in parsed}.values()]


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


def _evaluate(run: Path, by_key: Mapping[str, Override], typed: Sequence[str]) -> list[str]:
    """Return the overrides that read a run in its own directory, or below its eval/ under other conditions."""
    if "mode" not in by_key:
        raise ConfigError(
            f"run={run} is for the modes that read a run: add mode=eval\n"
            f"  to continue its training use resume={run}, with more epochs= if it is finished\n"
            f"  to begin a new training with its weights use start={run}"
        )
    mode = by_key["mode"].value()
    ignored = [item for item in typed if role_of(key_of(item)).trains_only]
    if ignored and mode in EVALUATION_MODES:
        raise ConfigError(f"mode={mode} does not train, so that {ignored[0]} would change nothing: leave it out")
    saved, text = read_saved_config(run)
    name = evaluation_name(run, typed)
    directory = run if name == DEFAULT_NAME else run / "eval" / name
    return [
        f"hydra.run.dir={literal(str(directory))}",
        f"hydra.sweep.dir={literal(str(run / 'eval'))}",
        *_trust_signed(run, text, by_key),
        *_choose_saved(saved, by_key, NOT_FROM_RUN),
        *_keep_scale(saved, by_key),
    ]


def _start(run: Path, by_key: Mapping[str, Override], typed: Sequence[str]) -> list[str]:
    """Return the overrides that begin a new training with the settings of a run that the command line does not give.

    The new directory has the name of the run's own overrides and of those of the command line.
    """
    saved, text = read_saved_config(run, "start")
    _check_is_training(saved, run, "start")
    merged = merge_overrides(run, typed)
    name = f"{run_name(merged)},start={run_name([run.absolute().name])}"
    directory = [] if "hydra.run.dir" in by_key else [f"hydra.run.dir='outputs/{name}/${{now:%Y%m%d-%H%M%S-%f}}'"]
    return [
        *directory,
        *_trust_signed(run, text, by_key),
        *_choose_saved(saved, by_key, NOT_FROM_STARTING_RUN),
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
        raise ConfigError(
            f"resume={run} continues a training in its directory: drop run=, mode= and hydra.run.dir=\n"
            f"  start={run} begins a new run, in another directory, with its weights"
        )
    saved, text = read_saved_config(run, "resume")
    _check_is_training(saved, run, "resume")
    trust = _trust_signed(run, text, by_key)
    return [f"hydra.run.dir={literal(str(run))}", *trust, *_choose_saved(saved, by_key, NOT_FROM_RESUMED_RUN)]


def _check_is_training(saved: Mapping[str, Any], run: Path, key: str) -> None:
    mode = saved.get("mode")
    if not isinstance(mode, dict) or mode.get("_target_") != TRAIN_MODE:
        action = {"resume": "can be resumed", "start": "has weights to begin with"}[key]
        raise ConfigError(f"{key}={run}: that is no training run, and only training {action}")


def merge_overrides(run: Path, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with which a run began, followed by others that replace those of the same settings.

    A group that is chosen anew replaces all settings in it.
    """
    keys = {key_of(text) for text in overrides}
    replaced = {*keys, "pretrain"}
    own = RunDirectory(run).overrides()
    kept = [text for text in own if not {key_of(text), key_of(text).partition(".")[0]} & replaced]
    return [*kept, *overrides]


def _trust_signed(run: Path, text: bytes, by_key: Collection[str]) -> list[str]:
    """Return `trust=true` where this user has signed the config's text and the command line does not set it."""
    return ["trust=true"] if "trust" not in by_key and is_signed(run, text) else []


def _choose_saved(saved: Mapping[str, Any], by_key: Collection[str], excluded: Collection[str]) -> list[str]:
    """Return overrides that choose a saved config's sections and root settings, except those of the command line.

    Those that are `excluded`, groups among them, are as in the default config. Raise ConfigError for a key that is no
    setting's name: as an override it could set anything, also Hydra's callbacks.
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
            if key not in ("mode", *excluded, *by_key):
                chosen.append(f"{key}={SAVED}")
        elif key not in by_key and key not in excluded:
            chosen.append(f"{key}={literal(value)}")
    return chosen
