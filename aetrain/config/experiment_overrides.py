"""The settings of an experiment that the options of the command line have made void.

Those of a component itself are dropped (`experiment=sparse_kl sparsity=none`). Those of its parts, such as the
penalties of a model, are what the experiment is about: they are refused, with the overrides that leave them out.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from aetrain.config.errors import ConfigError
from aetrain.config.keywords import keyword_overrides
from aetrain.config.overrides import key_of, parse_assignments
from aetrain.config.paths import GROUPS_WITHOUT_SECTION, groups, option_config
from aetrain.config.validate import (
    COMPONENT_LISTS,
    EXTRA_SETTINGS,
    fits,
    locate,
    parameter_names,
    parameter_types,
)

log = logging.getLogger("aetrain")


def drop_void_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Remove an experiment's settings of a group that the option chosen on the command line does not have.

    An experiment's `sparsity: {target: 0.01}` belongs to the option that it chose, and so does its
    `penalty: {dip: {weight: 5}}`. Settings that the new option has as well are kept. Settings of the command line
    itself are left to validation.
    """
    keys = {key_of(text) for text in overrides}
    for group in _chosen_groups(overrides):
        node = config[group]
        if not isinstance(node, DictConfig):
            continue
        is_component = "_target_" in node
        void = _void_settings(group, node, keys) if is_component else _void_entries(group, node, keys)
        with open_dict(config):
            for key in void:
                del node[key]
        if void:
            log.info("ignored settings of the experiment that this %s does not have: %s", group, ", ".join(void))


def refuse_void_parts(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for an experiment's settings that do not fit an option of the command line.

    These are settings of parts that the option does not have (`experiment=beta_vae model=deep`) and values of another
    type than its own. The message has the overrides to add. Settings of the command line are left to validation.
    """
    keys = {key_of(text) for text in overrides}
    problems = []
    for group, option in _chosen_groups(overrides).items():
        node = config[group]
        if not isinstance(node, DictConfig):
            continue
        plain: Any = OmegaConf.to_container(node)
        fixes = [*_omit_void_parts(group, plain), *_restore_values(group, plain, option)]
        fixes = [fix for fix in fixes if not any(f"{key}.".startswith(f"{_key(fix)}.") for key in keys)]
        if fixes:
            problems.append(f"settings of the experiment do not fit {group}={option}: add {' '.join(fixes)}")
    if problems:
        raise ConfigError("\n  ".join(problems))


def _chosen_groups(overrides: Sequence[str]) -> dict[str, str]:
    """Return the options that the command line chooses beside an experiment, by group; none without an experiment."""
    assignments = parse_assignments(overrides)
    if "experiment" not in assignments:
        return {}
    return {
        group: assignments[group] for group in groups() if group in assignments and group not in GROUPS_WITHOUT_SECTION
    }


def _void_settings(group: str, node: DictConfig, keys: Collection[str]) -> list[str]:
    """Return the settings of a component that its target does not have and the command line does not set."""
    try:
        known = {*parameter_names(locate(node["_target_"]))[0], *EXTRA_SETTINGS.get(group, ())}
    except (ImportError, AttributeError, ValueError):
        return []  # validation reports the problem
    known |= {"_target_", "_partial_"}
    return [key for key in map(str, node) if key not in known and f"{group}.{key}" not in keys]


def _void_entries(group: str, node: DictConfig, keys: Collection[str]) -> list[str]:
    """Return the named components of a group, such as those of `penalty`, that have settings but no target."""
    names = [str(name) for name, entry in node.items() if isinstance(entry, DictConfig) and "_target_" not in entry]
    return [name for name in names if not any(f"{key}.".startswith(f"{group}.{name}.") for key in keys)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("~")


def _omit_void_parts(key: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the overrides that leave out settings which the components inside a node do not have."""
    for name, child in node.items():
        if not isinstance(child, Mapping):
            continue
        inner = f"{key}.{name}"
        if key in COMPONENT_LISTS and "_target_" not in child:
            yield f"~{inner}"
            continue
        known = _parameters(child)
        void = [setting for setting in child if known and setting not in known]
        yield from (f"~{inner}.{setting}" for setting in void)
        yield from _omit_void_parts(inner, {setting: value for setting, value in child.items() if setting not in void})


def _restore_values(group: str, node: Mapping[str, Any], option: str) -> Iterator[str]:
    """Yield the overrides that give settings of a group the option's own value, where another does not fit its type."""
    if "_target_" not in node or option not in groups()[group]:
        return
    try:
        target: Any = locate(node["_target_"])
    except (ImportError, AttributeError, ValueError):
        return  # validation reports the problem
    hints = parameter_types(target)
    for name, own in option_config(group, option).items():
        if name not in hints or name not in node or "${" in str(node[name]):
            continue
        if not fits(node[name], hints[name]) and fits(own, hints[name]):
            yield from keyword_overrides({f"{group}.{name}": own})


def _parameters(node: Mapping[str, Any]) -> set[str]:
    """Return the names that a component may have as settings; none where they are not known."""
    if "_target_" not in node:
        return set()
    try:
        names, takes_any = parameter_names(locate(node["_target_"]))
    except (ImportError, AttributeError, ValueError, TypeError):
        return set()  # validation reports the problem
    return set() if takes_any else {*names, "_target_", "_partial_"}
