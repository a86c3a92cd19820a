"""Names of earlier versions: a saved config, a checkpoint or a command line of 0.1 keeps working.

The table is consulted wherever a saved config or checkpoint is read. An old setting on the command line or in a user's
YAML file works for one version, with a warning that names the new one.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger("aetrain")

T = TypeVar("T")

# Modules that have moved; the names in them are the same unless they are listed below.
MODULES = {
    "aetrain.experiment": "aetrain.runs.train",
    "aetrain.checks.table": "aetrain.selfcheck.runner",
    "aetrain.data.archives": "aetrain.data.mnist",
    "aetrain.model.convstack": "aetrain.model.conv_layers",
    "aetrain.evaluation.few_labels": "aetrain.evaluation.measures.few_labels",
    "aetrain.evaluation.frechet": "aetrain.evaluation.measures.frechet",
    "aetrain.evaluation.likelihood": "aetrain.evaluation.measures.likelihood",
    "aetrain.evaluation.probes": "aetrain.evaluation.measures.probes",
    "aetrain.evaluation.retrieval": "aetrain.evaluation.measures.retrieval",
    "aetrain.evaluation.robustness": "aetrain.evaluation.measures.robustness",
    "aetrain.training.pretrain": "aetrain.training.pretraining.pretrain",
    "aetrain.training.layerwise": "aetrain.training.pretraining.layerwise",
    "aetrain.training.rbm": "aetrain.training.pretraining.rbm",
    "aetrain.views.pictures": "aetrain.views.image_grids",
    "aetrain.views.retrieval": "aetrain.views.neighbours",
    "aetrain.views.errors": "aetrain.views.error_analysis",
    "aetrain.views.journeys": "aetrain.views.latent_paths",
}

TARGETS = {
    "aetrain.objective.penalties.GaussianKL": "aetrain.objective.penalties.KL",
    "aetrain.data.augment.Same": "aetrain.data.augment.NoAugmentation",
    "aetrain.data.noise.Clean": "aetrain.data.noise.NoNoise",
    "aetrain.model.bottlenecks.Matched": "aetrain.model.bottlenecks.DeterministicWithPrior",
    "aetrain.model.convstack.convstack": "aetrain.model.conv_layers.conv_layers",
    "aetrain.training.pretrain.Untouched": "aetrain.training.pretraining.pretrain.NoPretraining",
}

SETTINGS = {
    "dataset.crop": "dataset.random_crop",
    "model.bottleneck.patience": "model.bottleneck.reset_after",
    "schedule.warmup": "schedule.warmup_fraction",
    "schedule.final": "schedule.final_factor",
    "pretrain.switch": "pretrain.momentum_switch_epoch",
    "pretrain.weight_cost": "pretrain.weight_decay",
    "pretrain.std": "pretrain.init_std",
}

# Values of settings, by a pattern for the dotted key.
VALUES = {r"views\.\w+\.norm": {"images": "data_covariance"}}

# Tensors of a checkpoint, by their names in the model.
TENSORS = {"bottleneck.idle": "bottleneck.steps_unused", "bottleneck.book.weight": "bottleneck.codebook.weight"}

# Settings that came after 0.1.0, and the values that reproduce it.
ADDED: dict[str, Any] = {
    "augment": {"_target_": "aetrain.data.augment.NoAugmentation"},
    "penalty": {},
    "clip_grad_norm": None,
    "ema": None,
    "accumulate_grad_batches": 1,
}


def current_target(name: str) -> str:
    """Return the dotted path under which a class or function of an earlier version is found now."""
    if name in TARGETS:
        return TARGETS[name]
    module, _, attribute = name.rpartition(".")
    return f"{MODULES[module]}.{attribute}" if module in MODULES else name


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved config (plain data) under the names of this version."""
    upgraded = {**ADDED, **{key: _upgrade(value, key) for key, value in config.items()}}
    return upgraded


def _upgrade(node: Any, key: str) -> Any:
    """Return a node of a config, and all below it, under current names."""
    if isinstance(node, Mapping):
        children = {}
        for name, child in node.items():
            path = f"{key}.{name}"
            new = SETTINGS[path].rpartition(".")[2] if path in SETTINGS and _is_own(node) else name
            children[new] = current_target(child) if name == "_target_" else _upgrade(child, path)
        return children
    if isinstance(node, list):
        return [_upgrade(item, key) for item in node]
    return _current_value(key, node)


def _is_own(node: Mapping[str, Any]) -> bool:
    """Return whether the component of a node is this package's: a user's own class keeps its names."""
    return str(node.get("_target_", "")).startswith("aetrain.")


def _current_value(key: str, value: Any) -> Any:
    for pattern, values in VALUES.items():
        if isinstance(value, str) and value in values and re.fullmatch(pattern, key):
            return values[value]
    return value


def upgrade_overrides(overrides: Sequence[str], warn: bool = True) -> list[str]:
    """Return overrides such as `dataset.crop=12` under current names, with a warning for each old one."""
    return [_upgrade_override(text, warn) for text in overrides]


def _upgrade_override(text: str, warn: bool) -> str:
    name, equals, value = text.partition("=")
    key = name.lstrip("+~")
    new_key = SETTINGS.get(key, key)
    new_value = current_target(value) if key.endswith("._target_") else _current_value(key, value)
    new = f"{name[: len(name) - len(key)]}{new_key}{equals}{new_value}"
    if new != text and warn:
        log.warning("%s is the name of an earlier version: write %s", text, new)
    return new


def upgrade_composed(config: DictConfig) -> None:
    """Rename the old settings that a user's YAML files have brought into a composed config, with a warning for each."""
    for old, new in SETTINGS.items():
        parent_key, _, name = old.rpartition(".")
        parent = OmegaConf.select(config, parent_key)
        if isinstance(parent, DictConfig) and name in parent and _is_own({"_target_": parent.get("_target_")}):
            log.warning("%s is the name of an earlier version: write %s", old, new)
            with open_dict(config):
                parent[new.rpartition(".")[2]] = parent.pop(name)


def upgrade_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the tensors of a checkpoint under current names."""
    return {TENSORS.get(name, name): tensor for name, tensor in tensors.items()}
