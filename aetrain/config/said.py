"""What was chosen, in the words in which a person chooses: `model: vae`, not the class behind it."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from aetrain.config.paths import CONFIG_DIR, group_settings, groups
from aetrain.config.settings import WHERE_AND_HOW

Plain = int | float | str  # and so also bool

# No hyper-parameters: rows of a table are averaged over some, and no table is about the others.
NO_HPARAM = (*WHERE_AND_HOW, "views", "measures", "seed", "epochs", "hydra")


def said(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides by their key; what was dropped is left out."""
    pairs = (text.partition("=") for text in overrides if "=" in text and not text.startswith("~"))
    return {key.lstrip("+"): value for key, _, value in pairs}


def default_options() -> dict[str, str]:
    """The option of each group where nothing is said."""
    config = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "config.yaml"))
    defaults = config["defaults"] if isinstance(config, dict) else []
    pairs = [pair for item in defaults if isinstance(item, dict) for pair in item.items()]
    return {str(group): str(option) for group, option in pairs if option is not None and group in groups()}


def hparams(flat: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Plain]:
    """A run's hyper-parameters by name, those that were said first, then the options of the groups, then the rest.

    `flat` is the config by dotted name. The options that an experiment chooses are its own affair, and left out.
    """
    chosen = said(overrides)
    options = {} if "experiment" in chosen else default_options()
    options |= {group: chosen[group] for group in groups() if group in chosen}
    first: dict[str, Any] = {key: options.get(key, flat.get(key)) for key in chosen}
    rest = {key: value for key, value in flat.items() if not key.rpartition(".")[2].startswith("_")}
    known = {**first, **options, **rest}
    plain = {key: str(value) if isinstance(value, list) else value for key, value in known.items()}
    return {k: v for k, v in plain.items() if isinstance(v, Plain) and k.split(".")[0] not in NO_HPARAM}


def hparam_columns(overrides: Iterable[str], alone: bool) -> dict[str, bool]:
    """The columns of a table of runs by name, and whether each was said, and so belongs before the others.

    TensorBoard reads the columns from one of the runs that it compares. Those of a sweep all say the same words, which
    are enough; a run that is `alone` also names what others may have said.
    """
    first = {key: True for key in said(overrides) if key.split(".")[0] not in NO_HPARAM}
    if first and not alone:
        return first
    plain = (name for name in group_settings() if name.count(".") == 1 or name.endswith(".weight"))
    others = [name for name in (*groups(), "batch_size", *plain) if name.split(".")[0] not in NO_HPARAM]
    return dict.fromkeys(others, False) | first
