"""Where the project's configs lie, inside an installed wheel or beside the package in a checkout, and what is there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
CONFIG_DIR = next(d for d in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if (d / "config.yaml").is_file())


def groups() -> dict[str, list[str]]:
    """The project's own options by group, such as {"noise": ["gaussian", "masking", ...]}; Hydra's groups left out."""
    folders = sorted(d for d in CONFIG_DIR.iterdir() if d.is_dir() and d.name != "hydra")
    return {d.name: sorted(file.stem for file in d.glob("*.yaml")) for d in folders}


def group_settings() -> dict[str, list[str]]:
    """What can be set inside groups, and the options that have it: {"noise.p": ["noise=masking", ...], ...}."""
    from omegaconf import OmegaConf

    found: dict[str, list[str]] = {}
    for group, options in groups().items():
        if group == "experiment":  # it sets what other groups have
            continue
        for option in options:
            node = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{option}.yaml"))
            for name in _dotted(node, group):
                if name == f"{group}.defaults":  # of an option that is made of others
                    continue
                found.setdefault(name, []).append(f"{group}={option}")
    return found


def targets() -> set[str]:
    """Every `_target_` that the project's own configs name."""
    files = [CONFIG_DIR / group / f"{option}.yaml" for group, options in groups().items() for option in options]
    return {name for file in files for name in re.findall(r"_target_: *([\w.]+)", file.read_text(encoding="utf-8"))}


def _dotted(node: Any, key: str) -> Iterator[str]:
    for name, child in node.items() if isinstance(node, Mapping) else ():
        if not name.startswith("_"):
            yield f"{key}.{name}"
            yield from _dotted(child, f"{key}.{name}")
