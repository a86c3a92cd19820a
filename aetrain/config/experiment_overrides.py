"""Drop the settings of an experiment that the command line has made void: `experiment=sparse_kl sparsity=none`."""

import inspect
import logging
from collections.abc import Sequence

from omegaconf import DictConfig, open_dict

from aetrain.config.paths import groups
from aetrain.config.validate import EXTRA_SETTINGS, locate

log = logging.getLogger("aetrain")


def drop_void_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Remove an experiment's settings of a group that the option chosen on the command line does not have.

    An experiment's `sparsity: {target: 0.01}` belongs to the option that it chose. Settings that the new option has as
    well are kept. Settings of the command line itself are left to validation.
    """
    keys = {text.partition("=")[0].lstrip("+~") for text in overrides}
    if "experiment" not in keys:
        return
    for group in keys & groups().keys() - {"experiment"}:
        node = config[group]
        if not isinstance(node, DictConfig) or "_target_" not in node:
            continue
        try:
            known = {*inspect.signature(locate(node["_target_"])).parameters, *EXTRA_SETTINGS.get(group, ())}
        except (ImportError, AttributeError, ValueError):
            continue  # validation reports the problem
        known |= {"_target_", "_partial_"}
        void = [key for key in map(str, node) if key not in known and f"{group}.{key}" not in keys]
        with open_dict(config):
            for key in void:
                del node[key]
        if void:
            log.info("ignored settings of the experiment that this %s does not have: %s", group, ", ".join(void))
