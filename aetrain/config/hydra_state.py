"""The state of Hydra and OmegaConf that belongs to the whole process: kept for a program that uses Hydra itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.version import VersionBase

from aetrain.config.overrides import PROVIDER, SAVED
from aetrain.config.paths import CONFIG_DIR, GROUPS
from aetrain.utils.compat import omegaconf_resolvers


@contextmanager
def separate_hydra_state() -> Iterator[None]:
    """Let Hydra begin anew inside, and restore the state of the calling program afterwards, also after an error.

    The state is Hydra's instance, its config and its version base, the resolvers of OmegaConf and the ConfigStore.
    Nodes of the ConfigStore that have the name of a config of aetrain are hidden inside: Hydra would take them for its
    schema.
    """
    Plugins.instance()  # now, because plugins add their configs to the ConfigStore only once
    hydra, config, version = GlobalHydra.instance(), HydraConfig.instance(), VersionBase.instance()
    before = hydra.hydra, config.cfg, version.version_base
    resolvers = omegaconf_resolvers()
    resolvers_before = dict(resolvers)
    hydra.hydra, config.cfg = None, None
    hidden = {path: node for path in _own_paths() if (node := _nodes_beside(path).pop(path.name, None)) is not None}
    try:
        yield
    finally:
        GlobalHydra.set_instance(hydra)  # Hydra replaces it by a copy
        hydra.hydra, config.cfg, version.version_base = before
        resolvers.clear()
        resolvers.update(resolvers_before)
        for path, node in hidden.items():
            _nodes_beside(path)[path.name] = node
        _remove_own_nodes(ConfigStore.instance().repo)


def _own_paths() -> list[Path]:
    """Return the paths that aetrain's configs, and the options of a saved run, have in the ConfigStore."""
    files = [file.relative_to(CONFIG_DIR) for file in CONFIG_DIR.rglob("*.yaml")]
    return [*files, *(Path(group, f"{SAVED}.yaml") for group in GROUPS)]


def _nodes_beside(path: Path) -> dict[str, Any]:
    """Return the nodes of a group of the ConfigStore, which is made where there is none."""
    nodes = ConfigStore.instance().repo
    for group in path.parts[:-1]:
        nodes = nodes.setdefault(group, {})
    return nodes


def _remove_own_nodes(nodes: dict[str, Any]) -> None:
    """Remove the options that aetrain has stored, and the groups that it has made for them."""
    for name, node in [*nodes.items()]:
        if isinstance(node, dict):
            _remove_own_nodes(node)
        if node == {} or getattr(node, "provider", None) == PROVIDER:
            del nodes[name]
