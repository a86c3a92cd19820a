"""What an experiment says of an option that the command line then replaced: `experiment=sparse_kl sparsity=none`."""

import inspect
import logging
from collections.abc import Sequence

from omegaconf import DictConfig, open_dict

from aetrain.config.paths import groups
from aetrain.config.validate import SET_APART, locate

log = logging.getLogger("aetrain")


def drop_leftovers(config: DictConfig, overrides: Sequence[str]) -> None:
    """Remove an experiment's settings of a group that the option chosen on the command line does not have.

    An experiment's `sparsity: {target: 0.01}` is meant for the option that it chose. Settings that the new option has
    as well are kept, and what the command line itself says is left for the validation to judge.
    """
    said = {text.partition("=")[0].lstrip("+~") for text in overrides}
    if "experiment" not in said:
        return
    for group in said & groups().keys() - {"experiment"}:
        node = config[group]
        if not isinstance(node, DictConfig) or "_target_" not in node:
            continue
        try:
            known = {*inspect.signature(locate(node["_target_"])).parameters, *SET_APART.get(group, ())}
        except (ImportError, AttributeError, ValueError):
            continue  # the validation says what is wrong with it
        known |= {"_target_", "_partial_"}
        left = [key for key in map(str, node) if key not in known and f"{group}.{key}" not in said]
        with open_dict(config):
            for key in left:
                del node[key]
        if left:
            log.info("left out of the experiment, since this %s has no such setting: %s", group, ", ".join(left))
