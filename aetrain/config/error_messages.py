"""Turn any exception into one short message; those of Hydra and OmegaConf get this project's own text."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError, YAMLError

from aetrain.config.errors import ConfigError, did_you_mean, list_choices, unknown_setting
from aetrain.config.overrides import SAVED
from aetrain.config.paths import group_settings, groups
from aetrain.config.settings import root_settings


def explain(error: BaseException) -> str:
    """Return the message for an exception: the setting, the value, the allowed values, the likely fix."""
    if isinstance(error, ConfigError):
        return str(error)
    for cause in _causes(error):
        if message := _explain_one(cause):
            return message
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _without_advice(str(error)) or type(error).__name__
    if _raised_by(error) in ("hydra", "omegaconf", "antlr4", "yaml"):  # some of them expect a well-formed config
        first_line = str(error).partition("\n")[0] or type(error).__name__
        return f"the config cannot be composed: {first_line}"
    return f"{type(error).__name__}: {error}\n  full traceback: HYDRA_FULL_ERROR=1 aetrain ..."


def _raised_by(error: BaseException) -> str:
    """Return the top-level package in which an exception was raised."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] if frames else ""


@contextmanager
def translate_hydra_errors() -> Iterator[None]:
    """Turn the exceptions of Hydra, OmegaConf and YAML into a ConfigError with their message."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(explain(error)) from error


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and, where Hydra only wraps another, that one before it: the innermost knows most."""
    cause = error.__cause__ if isinstance(error, HydraException | OmegaConfBaseException) else None
    return [*(_causes(cause) if cause else ()), error]


def _explain_one(error: BaseException) -> str | None:
    """Return the message for one exception of a chain; None where another of the chain may know more."""
    match error:
        case MissingConfigException():
            return _unknown_option(error)
        case OverrideParseException():
            return _unparsable(error.override)
        case MarkedYAMLError():
            return _broken_yaml(error)
        case YAMLError():
            return f"a config is not YAML: {str(error).splitlines()[0]}"
        case UnicodeDecodeError():
            return f"a config is not text in UTF-8: byte {error.object[error.start]:#x} at {error.start}"
        case ConfigKeyError() | ConfigAttributeError() if error.full_key:
            return _unknown_key(error)
        case InterpolationResolutionError():
            return f"{error.full_key or 'the config'} cannot be resolved: {str(error).splitlines()[0]}"
        case HydraException():
            return _explain_hydra(str(error))
        case RuntimeError() if type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool"):
            return (
                "one of the launcher's worker processes was killed, which ended the sweep; a system that runs out of "
                "memory kills processes\n  the same command with hydra.sweep.dir= (the sweep's directory) continues it"
            )
        case OSError() if (kind := re.match("Invalid loaded object type: (.*)", str(error))) is not None:
            return f"a config is a section with a line 'name: value' for each setting, but this one is a {kind[1]}"
        case ValueError() if match := re.match(r"(?:Invalid defaults list in|In) '?(.*?)'?[:,] (.*)", str(error)):
            return f"{match[1]}.yaml has a wrong list of defaults: {match[2]}"
        case OSError() if error.strerror:
            return f"{error.strerror}: {error.filename}\n  {LOCATION_HINT}" if error.filename else error.strerror
    return None


# Hydra's other plugins that search: sweepers and their packages.
OTHER_SWEEPERS = {"ax": "hydra-ax-sweeper", "nevergrad": "hydra-nevergrad-sweeper"}

# --- Options ----------------------------------------------------------------------------------------------------------


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if group == "hydra/sweeper" and option in OTHER_SWEEPERS:
        return (
            f"hydra/sweeper={option} needs the package {OTHER_SWEEPERS[option]}: pip install {OTHER_SWEEPERS[option]}\n"
            "  its version 1.2 is for packages of 2021; aetrain's own are hydra/sweeper=optuna and hydra/sweeper=random"
        )
    options = [name for name in error.options or groups().get(group) or () if name != SAVED and "+" not in name]
    if not options:
        return f"there is no config '{error.missing_cfg_file}': a config is a YAML file in a group's folder"
    others = [f"{other}={option}" for other, names in groups().items() if option in names and other != group]
    near = did_you_mean(option, options) or (f"; did you mean {list_choices(others)}?" if others else "")
    kind = group or "config"
    return f"no {kind} named '{option}'{near}\n  choose from {list_choices(options, option)}"


def _unknown_key(error: OmegaConfBaseException) -> str:
    parent = error.parent_node
    siblings = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    key = str(error.full_key)
    if "." not in key:
        siblings += groups()  # `experiment` has no section of its own
    return unknown_setting(key, {name for name in siblings if not name.startswith("_")})


# --- The command line -------------------------------------------------------------------------------------------------


def _unparsable(override: str) -> str:
    """Return the message for an override outside of Hydra's grammar."""
    word, equals, value = override.partition("=")
    if not equals:
        settings = {*groups(), *group_settings(), *root_settings()}
        chosen = [f"{group}={word}" for group, options in groups().items() if word in options]
        example = "epochs=5 or model=vae"
        if chosen:
            example = list_choices(chosen)
        elif word in settings:
            example = f"{word}=..."
        return f"cannot read '{override}': it has no '='\n  write name=value, such as {example}"
    if not word.strip():
        return f"cannot read '{override}': there is no name before '='\n  write name=value, such as epochs=5"
    for opening, closing in ("[]", "{}", "()", "''", '""'):
        if value.count(opening) != value.count(closing) or (opening == closing and value.count(opening) % 2):
            return f"cannot read '{override}': a {opening} or {closing} is missing\n  {QUOTING_HINT}"
    return f"cannot read '{override}'\n  write name=value; {QUOTING_HINT}"


QUOTING_HINT = """quote values with spaces, brackets or signs: 'model.hidden=[512, 256]', 'run="outputs/a(1)"'"""


def _explain_hydra(text: str) -> str | None:
    """Return a message in place of those of Hydra whose advice is wrong or long."""
    patterns: dict[str, Callable[..., str]] = {
        r"Ambiguous value for argument '([^=]+)=(.*)'": _ambiguous,
        r"Sweep parameters '(.*)' requires --multirun": lambda override: f"{override} is a sweep: add -m",
        r"Could not override '([^']+)'.*\n?.*No match in the defaults list": _unknown_group,
        r"Could not delete. No match for '([^']+)' in the defaults list": _undeletable,
        r"Could not delete from config. '([^']+)' does not exist": _undeletable,
        r"To override a value use 'override ([^':]+): ([^']+)'": _already_there,
        r"Could not append to config. An item is already at '([^']+)'": _already_there,
        r"Error merging override ([^=]+)=(.*)": _unmergeable,
        r"Additional config directory '(.*)' not found": lambda folder: f"--config-dir {folder} is no folder",
    }
    for pattern, message in patterns.items():
        if match := re.search(pattern, text):
            return message(*match.groups())
    return None


def _ambiguous(key: str, values: str) -> str:
    return f"{key}={values} has several values\n  to sweep over them add -m; for a list write '{key}=[{values}]'"


def _already_there(key: str, value: str = "...") -> str:
    return f"+{key}={value}: it exists already: write {key}={value}"


def _unknown_group(key: str) -> str:
    return unknown_setting(key, groups())


def _unmergeable(key: str, value: str) -> str:
    return f"{key}={value}: {key} is a section with settings of its own"


def _undeletable(key: str) -> str:
    return f"nothing to drop at ~{key}{did_you_mean(key, group_settings())}"


def _without_advice(text: str) -> str:
    """Return Hydra's text without its advice to use `+`, which makes a setting that validation refuses."""
    return text.split("To append to your")[0].strip()


# --- Files ------------------------------------------------------------------------------------------------------------


LOCATION_HINT = "runs are written below outputs/, or to hydra.run.dir= (a sweep: hydra.sweep.dir=)"


def _broken_yaml(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{Path(mark.name)}, line {mark.line + 1}" if mark else "a config"
    return f"{place} is not YAML: {error.problem or error.context}"
