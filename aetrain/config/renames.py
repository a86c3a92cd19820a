"""Names of earlier versions: a saved config, a checkpoint or a command line of 0.1 keeps working.

The table is consulted wherever a saved config or checkpoint is read. An old setting on the command line or in a user's
YAML file works for one version, with a warning that names the new one.
"""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger("aetrain")

T = TypeVar("T")

# Modules that have moved; the names in them are the same unless they are listed below.
MODULES = {
    "aetrain.experiment": "aetrain.runs.train",
    "aetrain.checks.table": "aetrain.selfcheck.runner",
    "aetrain.data.archives": "aetrain.data.mnist",
    "aetrain.data.images": "aetrain.data.examples",
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

# Tags of TensorBoard's texts.
TAGS = {"doctor/": "diagnostics/"}

# Settings that came after 0.1.0, and the values that reproduce it.
ADDED: dict[str, Any] = {
    "augment": {"_target_": "aetrain.data.augment.NoAugmentation"},
    "penalty": {},
    "clip_grad_norm": None,
    "ema": None,
    "accumulate_grad_batches": 1,
    "threads": "auto",
    "verbose": False,
    "user": None,
    "stop": {"_target_": "aetrain.training.early_stopping.EarlyStopping", "patience": None, "min_delta": 0.0},
    "keep": "last",
    "objective": "validation/loss",
    "select_on_test": False,
    "start": None,
}

# Settings of sections that came later, and the values of runs that lack them.
ADDED_IN_SECTIONS: dict[str, Any] = {
    "dataset.missing": 0.0,
    "dataset.single_set": False,
    "sparsity.eval_k": None,
    "model.observed": False,
    "model.normalize": False,
    "measures.few_labels.keep": "last",
    "measures.few_labels.stop": None,
    "pretrain.penalties": "code",
    "pretrain.visible_bias": "zero",
    "pretrain.sparsity_target": 0.1,
    "pretrain.sparsity_cost": 0.0,
    "pretrain.sparsity_damping": 0.9,
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
    dataset = upgraded.get("dataset")
    if "verbose" in config or not isinstance(dataset, dict):  # `verbose` and `dataset.test_subset` are of one version
        return upgraded
    if "test_subset" not in dataset and dataset.get("subset") is not None:
        dataset["test_subset"] = dataset["subset"]  # before `test_subset`, `subset` cut the test images, too
    return upgraded


def _upgrade(node: Any, key: str, explicit: Collection[str] = ()) -> Any:
    """Return a node of a config, and all below it, under current names; `explicit` new names keep their values."""
    if isinstance(node, Mapping):
        children, renamed = {}, {}
        for name, child in node.items():
            path = f"{key}.{name}"
            value = (
                current_target(child)
                if name == "_target_" and isinstance(child, str)
                else _upgrade(child, path, explicit)
            )
            if path in SETTINGS and _is_own(node):
                if SETTINGS[path] not in explicit:
                    renamed[SETTINGS[path].rpartition(".")[2]] = value
            else:
                children[name] = value
        return children | renamed  # a user's old setting wins over the default of the new one
    if isinstance(node, list):
        return [_upgrade(item, key, explicit) for item in node]
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


def upgrade_composed(config: DictConfig, overrides: Sequence[str] = ()) -> bool:
    """Rename what a user's YAML files have under old names in a composed config, with a warning for each.

    A setting that the command line's `overrides` have under its new name keeps that value. Return whether there was
    any old name.
    """
    explicit = {text.partition("=")[0].lstrip("+") for text in overrides}
    before = cast(dict[str, Any], OmegaConf.to_container(config))
    changed = False
    for key, value in before.items():
        after = _upgrade(value, key, explicit)
        if after != value:
            changed = True
            _warn_of_differences(value, after, key)
            with open_dict(config):
                config[key] = after
    return changed


def _warn_of_differences(before: Any, after: Any, key: str) -> None:
    """Log a warning for each old name below a node."""
    if not isinstance(before, Mapping):
        if before != after:
            log.warning("%s=%s is the name of an earlier version: write %s=%s", key, before, key, after)
        return
    for name, child in before.items():
        path = f"{key}.{name}"
        if path in SETTINGS and _is_own(before):
            log.warning("%s is the name of an earlier version: write %s", path, SETTINGS[path])
        elif path not in SETTINGS.values():
            _warn_of_differences(child, after[name], path)


def upgrade_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the tensors of a checkpoint under current names."""
    return {TENSORS.get(name, name): tensor for name, tensor in tensors.items()}
