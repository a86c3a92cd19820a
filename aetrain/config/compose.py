"""Between the command line and Hydra: names for runs, and a run directory's own config as the one to start from."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups

SAVED = "saved"  # the option under which a run's own section of a group goes
MAX_NAME = 120
DEFAULT = "default"  # the name of a run that overrides nothing

# Settings that say where and how to work, not what the run is, and so are no part of its name.
NAMELESS = ("mode", "run", "trust", "data_dir", "device", "dataset.path")

# Settings whose value is a path.
PATHS = ("run", "data_dir", "dataset.path", "hydra.run.dir", "hydra.sweep.dir")


def register_resolvers() -> None:
    """Make `${run_name:}` known to configs; it is used below `hydra:` alone."""
    OmegaConf.register_new_resolver("run_name", _run_name_of, replace=True)


def _run_name_of(*, _root_: DictConfig) -> str:
    hydra = _root_.hydra
    swept = OmegaConf.select(hydra, "job.config.override_dirname.exclude_keys") or []
    return run_name([text for text in hydra.overrides.task if text.split("=")[0].lstrip("+~") not in swept])


def run_name(overrides: Sequence[str]) -> str:
    """A folder's name that says what was overridden, in the order in which it was: `model=vae,dataset=fashion`."""
    said = [text for text in overrides if text.split("=")[0].lstrip("+~") not in NAMELESS]
    name = re.sub(r"[^\w.,=+~\-\[\]]+", "_", ",".join(said)).strip("_.") or DEFAULT
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def quoted_paths(overrides: Sequence[str]) -> list[str]:
    """Overrides with the values of settings that are paths in quotes: Hydra takes a bare `=` or `,` for its own."""
    return [_quoted_path(text) for text in overrides]


def _quoted_path(text: str) -> str:
    key, _, value = text.partition("=")
    plain = re.fullmatch(r"[\w./\\~:@$ -]*", value)
    sweep = "," in value and not Path(value).exists()
    return text if key not in PATHS or plain or sweep or value[:1] in "'\"" else f"{key}={_literal(value)}"


def parse(overrides: Sequence[str]) -> list[Override]:
    """The command line's overrides, as Hydra reads them."""
    return OverridesParser.create().parse_overrides(list(overrides))


def constant_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that are the same in every job of a sweep; all others are what its runs differ in."""
    return [o.key_or_group for o in parse(overrides) if not o.is_sweep_override()]


def starting_from_run(overrides: Sequence[str]) -> list[str]:
    """Overrides that begin with the config of the run that `run=DIR` names, so that it alone is what they change.

    Each section of the saved config becomes the option `saved` of its group, and is chosen unless the command line
    chooses another, as in `mode=eval run=DIR noise=gaussian`. What comes out goes into the run's own directory, or
    below its eval/ under the name of what was changed. Without `run=` nothing changes.
    """
    given = {o.key_or_group: o for o in parse(overrides) if not o.is_delete()}
    if "run" not in given or given["run"].is_sweep_override() or given["run"].value() in (None, ""):
        return list(overrides)
    if "experiment" in given:
        raise ConfigError("experiment= and run= both say what to start from: drop one of them")
    run = Path(str(given["run"].value()))
    saved = saved_config(run)
    conditions = [o.input_line or "" for o in given.values()]
    name = run_name(conditions)
    first = [
        f"hydra.run.dir={_literal(str(run if name == DEFAULT else run / 'eval' / name))}",
        f"hydra.sweep.dir={_literal(str(run / 'eval'))}",
    ]
    for key, value in saved.items():
        if key in groups():
            ConfigStore.instance().store(group=str(key), name=SAVED, node=OmegaConf.create(value), provider="run")
            if key != "mode" and key not in given:
                first.append(f"{key}={SAVED}")
        elif key not in given and key not in ("run", "device", "trust", "data_dir"):
            first.append(f"{key}={_literal(value)}")
    return [*first, *overrides]


def saved_config(run: Path) -> dict[str, Any]:
    """The config that a run directory holds, as plain data with its interpolations as they were written."""
    file = run / ".hydra" / "config.yaml"
    if not run.is_dir():
        raise ConfigError(f"run={run} is no directory: give the directory of a run, such as those below outputs/")
    if not file.is_file():
        below = sorted(str(path.parent.parent) for path in run.glob("**/.hydra/config.yaml"))
        hint = f"; did you mean run={below[-1]}?" if below else ""
        raise ConfigError(f"run={run} is not the directory of a run: it has no .hydra/config.yaml{hint}")
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # whatever a YAML parser may raise on a damaged file
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError(f"{file} is not the config of a run")
    return {str(key): value for key, value in config.items()}


def _literal(value: Any) -> str:
    """A root setting as Hydra's grammar writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "\\'") + "'"
