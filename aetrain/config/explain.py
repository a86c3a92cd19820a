"""Hydra's and OmegaConf's exceptions as one short message each."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from aetrain.config.errors import did_you_mean, listed
from aetrain.config.paths import groups


def explain(error: BaseException) -> str:
    """The message for an exception that composing a config raised; its own text where nothing better is known."""
    for cause in _causes(error):
        match cause:
            case MissingConfigException() if cause.missing_cfg_file and cause.options:
                group, _, option = cause.missing_cfg_file.rpartition("/")
                return (
                    f"no {group or 'config'} named '{option}'{did_you_mean(option, cause.options)}\n"
                    f"  choose from {listed(cause.options)}"
                )
            case OverrideParseException():
                return (
                    f"cannot read '{cause.override}': {str(cause).splitlines()[0]}\n"
                    "  settings are key=value; quote what has spaces or brackets, as in 'model.hidden=[512,256]'"
                )
            case OmegaConfBaseException() if cause.full_key and "not in" in str(cause):
                return _unknown_key(cause)
            case InterpolationResolutionError():
                return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    text = str(error).strip()
    if unknown := re.match(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
        return _unknown_name(unknown[1], None)
    if "To append to your config use +" in text:  # advice that makes a setting which is then refused
        text = text.split("To append")[0].strip()
    return text or type(error).__name__


def is_about_config(error: BaseException) -> bool:
    """Whether an exception comes from reading or composing a config, and so is the user's to mend."""
    return isinstance(error, HydraException | OmegaConfBaseException)


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    return list(reversed(chain))  # the innermost knows most


def _unknown_key(error: OmegaConfBaseException) -> str:
    return _unknown_name(str(error.full_key), error.parent_node)


def _unknown_name(full_key: str, parent: Any) -> str:
    node, _, key = full_key.rpartition(".")
    if not node:
        from aetrain.config.settings import Settings

        known = set(Settings.__annotations__) | set(groups()) | {"hydra"}
    else:
        known = set(parent) if isinstance(parent, DictConfig | Mapping) else set()
        target = parent.get("_target_") if isinstance(parent, DictConfig) else None
        known = {str(name) for name in known if not str(name).startswith("_")}
        if target is not None:
            return (
                f"no setting '{full_key}'{did_you_mean(key, known)}\n"
                f"  {node} is a {str(target).rpartition('.')[2]} with {listed(known) if known else 'no settings'}"
            )
    return f"no setting '{full_key}'{did_you_mean(key, known)}\n  choose from {listed(known)}"
