"""Drop the settings of an experiment that the command line has made void: `experiment=sparse_kl sparsity=none`."""

import inspect
import logging
from collections.abc import Collection, Sequence

from omegaconf import DictConfig, open_dict

from aetrain.config.paths import groups
from aetrain.config.validate import EXTRA_SETTINGS, locate

log = logging.getLogger("aetrain")


def drop_void_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Remove an experiment's settings of a group that the option chosen on the command line does not have.

    An experiment's `sparsity: {target: 0.01}` belongs to the option that it chose, and so does its
    `penalty: {dip: {weight: 5}}`. Settings that the new option has as well are kept. Settings of the command line
    itself are left to validation.
    """
    keys = {text.partition("=")[0].lstrip("+~") for text in overrides}
    if "experiment" not in keys:
        return
    for group in keys & groups().keys() - {"experiment"}:
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


def _void_settings(group: str, node: DictConfig, keys: Collection[str]) -> list[str]:
    """Return the settings of a component that its target does not have and the command line does not set."""
    try:
        known = {*inspect.signature(locate(node["_target_"])).parameters, *EXTRA_SETTINGS.get(group, ())}
    except (ImportError, AttributeError, ValueError):
        return []  # validation reports the problem
    known |= {"_target_", "_partial_"}
    return [key for key in map(str, node) if key not in known and f"{group}.{key}" not in keys]


def _void_entries(group: str, node: DictConfig, keys: Collection[str]) -> list[str]:
    """Return the named components of a group, such as those of `penalty`, that have settings but no target."""
    names = [str(name) for name, entry in node.items() if isinstance(entry, DictConfig) and "_target_" not in entry]
    return [name for name in names if not any(f"{key}.".startswith(f"{group}.{name}.") for key in keys)]
