"""Between the command line and Hydra: names for runs, and a run directory's own config as the one to start from."""

import hashlib
import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from aetrain.config.errors import ConfigError, listed
from aetrain.config.paths import groups
from aetrain.config.settings import WHERE_AND_HOW
from aetrain.training import state

log = logging.getLogger("aetrain")

SAVED = "saved"  # the option under which a run's own section of a group goes
MAX_NAME = 120
DEFAULT = "default"  # the name of a run that overrides nothing

NAMELESS = (*WHERE_AND_HOW, "dataset.path")  # no part of a run's name

NO_OPTIONS = (int, float, dict, list, type(None))  # what is no option's name

# Settings whose value is a path.
PATHS = ("run", "query", "resume", "data_dir", "dataset.path", "hydra.run.dir", "hydra.sweep.dir", "mode.out")

# Modes that read the directories of runs as they are: they start from no run's config, and need no torch.
READERS = ("board", "report")


def register_resolvers() -> None:
    """Make `${run_name:}` known to configs; it is used below `hydra:` alone."""
    OmegaConf.register_new_resolver("run_name", _run_name_of, replace=True)


def _run_name_of(*, _root_: DictConfig) -> str:
    hydra = _root_.hydra
    # In a sweep whatever is swept is what its runs differ in, also a path.
    nameless = hydra.job.config.override_dirname.exclude_keys if hydra.mode == RunMode.MULTIRUN else NAMELESS
    return run_name(words_of(hydra.overrides.task), nameless)


def words_of(overrides: Sequence[str]) -> list[str]:
    """The command line's words as they were said: Hydra's own record of them would resolve what is in `${}`."""
    return [str(word) for word in cast(list[Any], OmegaConf.to_container(cast(ListConfig, overrides)))]


def run_name(overrides: Sequence[str], nameless: Collection[str] = NAMELESS) -> str:
    """A folder's name that says what was overridden, in the order in which it was: `model=vae,dataset=fashion`.

    A digest follows where the overrides do not fit into a name, so that no two of them share one.
    """
    said = ",".join(text for text in overrides if text.split("=")[0].lstrip("+~") not in nameless)
    name = re.sub(r"[^\w.,=+~\-\[\]]+", "_", said).strip("_.")[:MAX_NAME]
    if name == said:
        return name or DEFAULT
    return f"{name[: MAX_NAME - 9]}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def quoted_paths(overrides: Sequence[str]) -> list[str]:
    """Overrides with the values of settings that are paths in quotes: Hydra takes a bare `=` or `,` for its own."""
    return [_quoted_path(text) for text in overrides]


def _quoted_path(text: str) -> str:
    key, equals, value = text.partition("=")
    if key in PATHS and equals and not value:  # a variable of the shell that is not set, as in run=$RUN
        raise ConfigError(f"{key}= is empty: give a path, or leave it out")
    plain = re.fullmatch(r"[\w./\\~:@$ -]*", value)
    sweep = "," in value and not Path(value).exists()
    return text if key not in PATHS or plain or sweep or value[:1] in "'\"" else f"{key}={_literal(value)}"


def parse(overrides: Sequence[str]) -> list[Override]:
    """The command line's overrides, as Hydra reads them; a ConfigError for what makes Hydra stumble."""
    read = OverridesParser.create().parse_overrides(list(overrides))
    for override in read:
        if not override.key_or_group:
            raise ConfigError(f"cannot read '{override.input_line}': there is no name before '='")
        options, value = groups().get(override.key_or_group, []), override.value()
        chosen = value if isinstance(value, list) else [] if value is None else [value]
        if options and any(isinstance(each, NO_OPTIONS) for each in chosen):
            raise ConfigError(f"{override.input_line}: {override.key_or_group} is one of {listed(options)}")
    return read


def constant_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that are the same in every job of a sweep; all others are what its runs differ in."""
    return [o.key_or_group for o in parse(overrides) if not o.is_sweep_override()]


def starting_from_run(overrides: Sequence[str]) -> list[str]:
    """Overrides that begin with the config of the run that `run=DIR` names, so that it alone is what they change.

    Each section of the saved config becomes the option `saved` of its group, and is chosen unless the command line
    chooses another, as in `mode=eval run=DIR noise=gaussian`. What comes out goes into the run's own directory, or
    below its eval/ under the name of what was changed. `resume=DIR` begins with the run's config as well, and goes on
    with its training where it is. Without either nothing changes.
    """
    _forget_saved()
    given = {o.key_or_group: o for o in parse(overrides) if not o.is_delete()}
    mode = given["mode"].value() if "mode" in given else None
    if "query" in given and mode != "search":
        raise ConfigError("query= is the image that mode=search looks for: add mode=search")
    if mode in READERS:
        return _for_reader(str(mode), given, overrides)
    word = next((w for w in ("resume", "run") if w in given and given[w].value() is not None), None)
    if word is None:
        return list(overrides)
    if given[word].is_sweep_override():
        advice = {"run": "sweep over its conditions, as in noise=none,gaussian, or ", "resume": ""}[word]
        raise ConfigError(f"{word}= takes one run: {advice}use a shell loop")
    if "experiment" in given:
        raise ConfigError(f"experiment= and {word}= both say what to start from: drop one of them")
    run = Path(str(given[word].value()))
    if word == "resume":
        return [*_resumed(run, given), *(o.input_line or "" for key, o in given.items() if key != "resume")]
    if "mode" not in given:
        raise ConfigError(
            f"run={run} is for the modes that look at a run: add mode=eval\n"
            f"  to go on with its training say resume={run}, with more epochs= if it is finished"
        )
    conditions = [o.input_line or "" for o in given.values()]
    name = run_name(conditions)
    first = [
        f"hydra.run.dir={_literal(str(run if name == DEFAULT else run / 'eval' / name))}",
        f"hydra.sweep.dir={_literal(str(run / 'eval'))}",
        *_chosen(saved_config(run), given, ("run", "query", "resume", "device", "trust", "data_dir")),
    ]
    return [*first, *overrides]


def _for_reader(mode: str, given: dict[str, Override], overrides: Sequence[str]) -> list[str]:
    """The overrides of a mode that reads directories; a ConfigError for what it would ignore."""
    idle = [key for key in given if key.split(".")[0] not in ("mode", "run", "hydra")]
    if idle:
        raise ConfigError(f"mode={mode} reads what runs have left, and sets nothing: drop {idle[0]}=")
    if any(override.is_sweep_override() for override in given.values()):
        raise ConfigError(f"mode={mode} takes one folder, with all its runs: give run= the one that holds them all")
    return list(overrides)


def _resumed(run: Path, given: Collection[str]) -> list[str]:
    """What goes on with a run's training in its own directory."""
    if {"run", "mode", "hydra.run.dir"} & set(given):
        raise ConfigError(f"resume={run} goes on with a training where it is: drop run=, mode= and hydra.run.dir=")
    saved = saved_config(run, "resume")
    mode = saved.get("mode")
    if not isinstance(mode, dict) or mode.get("_target_") != "aetrain.experiment.train":
        raise ConfigError(f"resume={run}: that is no training, which alone can be gone on with")
    return [f"hydra.run.dir={_literal(str(run))}", *_chosen(saved, given, ("run", "query", "resume", "retry", "trust"))]


def _chosen(saved: dict[str, Any], given: Collection[str], apart: Collection[str]) -> list[str]:
    """Overrides that choose a saved config's sections and root settings, but those that the command line gives."""
    chosen = []
    for key, value in saved.items():
        if key in groups():
            if not isinstance(value, dict):
                raise ConfigError(f"the run's .hydra/config.yaml is damaged: {key} is no section in it")
            ConfigStore.instance().store(group=key, name=SAVED, node=OmegaConf.create(value), provider="run")
            if key != "mode" and key not in given:
                chosen.append(f"{key}={SAVED}")
        elif key not in given and key not in apart:
            chosen.append(f"{key}={_literal(value)}")
    return chosen


def _forget_saved() -> None:
    """Drop the sections of a run that an earlier command of this process started from."""
    for options in ConfigStore.instance().repo.values():
        if isinstance(options, dict):
            options.pop(f"{SAVED}.yaml", None)


def saved_config(run: Path, word: str = "run") -> dict[str, Any]:
    """The config that a run directory holds, as plain data with its interpolations as they were written.

    Where its file is lost or cut off, the copy that the checkpoint holds.
    """
    file, kept = run / ".hydra" / "config.yaml", state.kept(run)
    copy = _parsed(kept.config, file) if kept and kept.config else None
    if not file.is_file() and copy is None:
        what = "is not the directory of a run: it has no .hydra/config.yaml" if run.is_dir() else "is no directory"
        raise ConfigError(f"{word}={run} {what}{_run_near(run, word)}")
    try:
        config = _parsed(file.read_bytes(), file)
        if copy is not None and _lacks(config, copy):
            raise ConfigError(f"{file} lacks settings that it had")
    except (OSError, ConfigError) as error:
        if copy is None:
            raise
        log.warning("%s: going by the copy in the checkpoint", str(error).partition("\n")[0])
        return copy
    return config


def _parsed(text: str | bytes, file: Path) -> dict[str, Any]:
    """A run's config as plain data; a ConfigError where it is none."""
    try:
        words = text.decode() if isinstance(text, bytes) else text
        config = OmegaConf.to_container(OmegaConf.create(words)) if words.strip() else None
    except Exception as error:  # whatever a YAML parser may raise on a damaged file
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError(f"{file} is not the config of a run")
    return {str(key): value for key, value in config.items()}


def _lacks(config: dict[Any, Any], copy: dict[Any, Any]) -> bool:
    """Whether there is a setting in the copy that the config does not have."""
    return any(
        key not in config
        or (isinstance(value, dict) and (not isinstance(config[key], dict) or _lacks(config[key], value)))
        for key, value in copy.items()
    )


def _run_near(place: Path, word: str) -> str:
    """`; did you mean run=...?` for the run that `place` lies in, or the latest one below it or below outputs/."""
    around = [folder for folder in place.parents if (folder / ".hydra" / "config.yaml").is_file()]
    top = place if place.is_dir() else Path("outputs")
    below = [state.parent.parent for state in top.glob("**/checkpoint/state.json")]
    near = around[:1] or sorted(below, key=lambda run: (run / "checkpoint").stat().st_mtime)
    return (
        f"; did you mean {word}={near[-1]}?" if near else ": give one that training left, such as those below outputs/"
    )


def _literal(value: Any) -> str:
    """A root setting as Hydra's grammar writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "\\'") + "'"
