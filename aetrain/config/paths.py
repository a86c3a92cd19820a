"""Paths of the project's configs, and the groups, options and settings that they define.

The configs are in `configs/` beside the package in a checkout, and inside the package in an installed wheel.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aetrain.config.settings import flatten

_PACKAGE = Path(__file__).resolve().parent.parent
CONFIG_DIR = next(d for d in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if (d / "config.yaml").is_file())


def _list_options() -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for folder in sorted(CONFIG_DIR.iterdir()):
        if folder.is_dir() and folder.name != "hydra":
            options[folder.name] = sorted(file.stem for file in folder.glob("*.yaml"))
    return options


# The project's own options by group: {"noise": ["gaussian", "masking", ...], ...}. Hydra's groups are left out. A base,
# from which options inherit settings, is a file outside of the groups' folders.
GROUPS = _list_options()

# Groups that set the settings of other groups, or of a search, and have no section of their own in a config.
GROUPS_WITHOUT_SECTION = ("experiment", "search")

# The default likelihood of the data sets that inherit from a base, and of others, such as those of a user.
LIKELIHOOD_OF_BASES = {
    "/base_images@_here_": "bernoulli",
    "/base_vectors@_here_": "gaussian",
    "/base_counts@_here_": "multinomial",
    "/base_ratings@_here_": "gaussian",
}
LIKELIHOOD_OF_OTHERS = "bernoulli"


def groups() -> dict[str, list[str]]:
    """Return `GROUPS`."""
    return GROUPS


@cache
def option_config(group: str, option: str) -> dict[str, Any]:
    """Return the config of an option as plain data, with the settings that it inherits through its `defaults`.

    The order of merging is Hydra's. Hydra's own composition is not used: it takes longer than `--help` may.
    An experiment's `override` entries choose options of other groups and are left out.
    """
    from omegaconf import DictConfig, OmegaConf

    own = OmegaConf.load(CONFIG_DIR / group / f"{option}.yaml")
    assert isinstance(own, DictConfig)
    defaults = own.pop("defaults", [])
    parents = [name for name in defaults if isinstance(name, str)]
    if "_self_" not in parents:
        parents.append("_self_")
    merged = OmegaConf.merge(*(own if name == "_self_" else _parent_config(group, name) for name in parents))
    return _as_dict(OmegaConf.to_container(merged))


def _parent_config(group: str, name: str) -> dict[str, Any]:
    """Return the config that an entry of a `defaults` list refers to, below the package that it names.

    Entries are such as `default`, `/base_dense@_here_`, or `/base_penalty@penalties.kl`.
    """
    path, _, package = name.partition("@")
    config = option_config("", path[1:]) if path.startswith("/") else option_config(group, path)
    for key in reversed([] if package in ("", "_here_") else package.split(".")):
        config = {key: config}
    return config


@cache
def option_settings(group: str, option: str) -> dict[str, Any]:
    """Return the settings of an option by dotted name, the classes (`_target_`) among them: {"model.code_dim": 32}."""
    return flatten(option_config(group, option), group)


def default_options(dataset: str | None = None) -> dict[str, str]:
    """Return the option that each group has by default, such as {"model": "deep", ...}, as a new dict.

    The default of `likelihood` is that of the option `dataset`; None for the default data set.
    """
    options = dict(_default_options())
    return {**options, "likelihood": default_likelihood(dataset or options["dataset"])}


@cache
def default_likelihood(dataset: str, folders: tuple[Path, ...] = ()) -> str:
    """Return the likelihood that an option of the group `dataset` has by default: `${default_likelihood:OPTION}`.

    It follows from the base that the option's `defaults` name, or from that of the option from which it inherits.
    `folders` are other folders of configs than the project's, such as `--config-dir mine`.
    """
    from omegaconf import DictConfig, OmegaConf

    files = (folder / "dataset" / f"{dataset}.yaml" for folder in (CONFIG_DIR, *folders))
    file = next((file for file in files if file.is_file()), None)
    config = OmegaConf.load(file) if file else None
    if not isinstance(config, DictConfig):
        return LIKELIHOOD_OF_OTHERS
    for entry in config.get("defaults", []):
        if entry in LIKELIHOOD_OF_BASES:
            return LIKELIHOOD_OF_BASES[entry]
        if isinstance(entry, str) and entry not in ("_self_", dataset) and not entry.startswith("/"):
            return default_likelihood(entry, folders)
    return LIKELIHOOD_OF_OTHERS


@cache
def _default_options() -> dict[str, str]:
    from omegaconf import OmegaConf

    defaults = _as_dict(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "config.yaml")))["defaults"]
    chosen: dict[str, str] = {}
    for entry in defaults:
        if isinstance(entry, dict):
            chosen |= entry
    return {group: option for group, option in chosen.items() if option in groups().get(group, ())}


@cache
def experiment_options(experiment: str) -> dict[str, str]:
    """Return the options of other groups that one of the project's experiments chooses; none for other experiments."""
    from omegaconf import OmegaConf

    if experiment not in groups()["experiment"]:
        return {}
    defaults = _as_dict(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml")))
    options: dict[str, str] = {}
    for entry in defaults.get("defaults", []):
        if isinstance(entry, str):  # another experiment, from which this one inherits, or _self_
            options |= experiment_options(entry)
        else:
            options |= {key.rpartition("/")[2]: option for key, option in entry.items() if isinstance(option, str)}
    return options


@cache
def group_settings() -> dict[str, list[str]]:
    """Return the settings inside groups and the options that have them: {"noise.p": ["noise=masking", ...], ...}."""
    settings: dict[str, list[str]] = {}
    for group, options in groups().items():
        if group in GROUPS_WITHOUT_SECTION:
            continue
        for option in options:
            for key in _dotted_keys(option_config(group, option), group):
                settings.setdefault(key, []).append(f"{group}={option}")
    return settings


@cache
def targets() -> set[str]:
    """Return every `_target_` in the project's own options."""
    return {
        name
        for group, options in groups().items()
        for option in options
        for name in _targets_in(option_config(group, option))
    }


def _dotted_keys(node: Any, prefix: str) -> Iterator[str]:
    """Yield the dotted keys of all settings below a node; `_target_` and `_partial_` are not settings."""
    if not isinstance(node, Mapping):
        return
    for name, child in node.items():
        if not name.startswith("_"):
            yield f"{prefix}.{name}"
            yield from _dotted_keys(child, f"{prefix}.{name}")


def _targets_in(node: Any) -> Iterator[str]:
    """Yield the `_target_` of a node and of all nodes below it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for child in node.values():
            yield from _targets_in(child)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for child in node:
            yield from _targets_in(child)


def _as_dict(container: Any) -> dict[str, Any]:
    """Return a container of OmegaConf, whose type is known to be a dict, as one."""
    assert isinstance(container, dict)
    return container
