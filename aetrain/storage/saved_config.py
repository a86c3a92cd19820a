"""The config that a run directory holds: `.hydra/config.yaml`, or its copy in the checkpoint."""

import copy
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aetrain.config.errors import ConfigError
from aetrain.config.renames import ADDED, upgrade_config
from aetrain.config.settings import root_settings
from aetrain.storage.checkpoint_state import STATE_FILE, latest_state
from aetrain.utils.compat import load_yaml

log = logging.getLogger("aetrain")

MAX_TEXTS = 64  # whose configs are kept


def saved_config(run: Path, setting: str = "run") -> dict[str, Any]:
    """Return the config of a run directory under current names, as plain data with its interpolations unresolved.

    Where the file is lost or cut off, the copy in the checkpoint is returned. Raise ConfigError where the directory is
    no run's; `setting` is the one that named it.
    """
    return read_saved_config(run, setting)[0]


def read_saved_config(run: Path, setting: str = "run") -> tuple[dict[str, Any], bytes]:
    """Return the config that `saved_config` returns and the text from which it was read."""
    file, state = run / ".hydra" / "config.yaml", latest_state(run)
    saved_copy = _parse(state.config, file) if state and state.config else None
    if not file.is_file() and saved_copy is None:
        problem = "is no directory"
        if run.is_dir():
            problem = "is not the directory of a run: it has no .hydra/config.yaml"
        raise ConfigError(f"{setting}={run} {problem}{_suggest_run(run, setting)}")
    try:
        text = file.read_bytes()
        config = _parse(text, file)
        if _is_cut_off(config, text) or (saved_copy is not None and _lacks(config, saved_copy)):
            raise ConfigError(f"{file} lacks settings of the run: it is cut off; repeat the run's own command")
    except (OSError, ConfigError) as error:
        if state is None or saved_copy is None:
            raise
        log.warning("%s: using the copy in the checkpoint", str(error).partition("\n")[0])
        config, text = saved_copy, state.config.encode(errors="replace")
    return upgrade_config(config), text


def resolve_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config with its references to other settings, such as `${batch_size}`, replaced by their values.

    Resolvers stay as they are: `${oc.env:HOME}` has another value in this process than in that of the run. A config
    with a broken reference is returned unchanged.
    """
    if not re.search(r"\$\{[^{}:]*\}", str(config)):
        return config
    texts = OmegaConf.create(_escape_resolvers(config))
    try:
        resolved = OmegaConf.to_container(texts, resolve=True)
    except (OmegaConfBaseException, RecursionError):
        return config
    return {str(key): value for key, value in cast(dict[Any, Any], resolved).items()}


def _escape_resolvers(node: Any) -> Any:
    """Return a node in which OmegaConf reads texts with resolvers as plain texts."""
    if isinstance(node, dict):
        return {key: _escape_resolvers(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_escape_resolvers(value) for value in node]
    if isinstance(node, str) and re.search(r"\$\{[^{}]*:", node):
        return node.replace("${", "\\${")
    return node


def _parse(text: str | bytes, file: Path) -> dict[str, Any]:
    """Parse a run's config. Raise ConfigError where it is none."""
    try:
        config = copy.deepcopy(_parse_text(text.decode() if isinstance(text, bytes) else text))
    except Exception as error:  # any that a YAML parser raises on a damaged file
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError(f"{file} is not the config of a run")
    return {str(key): value for key, value in config.items()}


@lru_cache(maxsize=MAX_TEXTS)
def _parse_text(text: str) -> Any:
    """Return what OmegaConf reads from a text; a run's config and its copy in the checkpoint are the same text."""
    parsed = load_yaml(text)
    return OmegaConf.to_container(OmegaConf.create(parsed)) if isinstance(parsed, dict) else parsed


def _is_cut_off(config: dict[str, Any], text: bytes) -> bool:
    """Return whether the end of the text is lost: each setting at the root is written, and each line ends."""
    return not text.endswith(b"\n") or not {*config, *ADDED} >= set(root_settings())


def _lacks(config: dict[Any, Any], copy: dict[Any, Any]) -> bool:
    """Return whether the copy has a setting that the config does not have."""
    for key, value in copy.items():
        if key not in config:
            return True
        if isinstance(value, dict) and (not isinstance(config[key], dict) or _lacks(config[key], value)):
            return True
    return False


def _suggest_run(path: Path, setting: str) -> str:
    """Return `; did you mean run=...?` for the run around a path, or for the latest one below it or below outputs/."""
    around = [folder for folder in path.parents if (folder / ".hydra" / "config.yaml").is_file()]
    top = path if path.is_dir() else Path("outputs")
    below = [file.parent.parent for file in top.glob(f"**/checkpoint/{STATE_FILE}")]
    runs = around[:1] or sorted(below, key=lambda run: (run / "checkpoint").stat().st_mtime)
    if not runs:
        return ": give a run directory, such as those below outputs/"
    return f"; did you mean {setting}={runs[-1]}?"
