"""Every option composes with every other and trains; the options are read from the folders under configs/."""

import inspect
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from generated_data import DATA_OF_LIKELIHOOD, Counts, overrides_of
from omegaconf import OmegaConf

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import CONFIG_DIR, groups, option_config
from aetrain.config.search_space import read_space
from aetrain.config.settings import Settings
from aetrain.config.validate import locate, parameter_names
from aetrain.evaluation.model_selection import objective_metrics
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.sweeps.search.study import draw_text

GROUPS = groups()

# Data sets that need files of the user or archives; once loaded, they do not differ from the others.
ARCHIVES = {"mnist", "fashion", "kmnist", "qmnist", "emnist", "usps", "cifar10", "cifar100", "svhn", "stl10"}
OWN_FILES = {"folder", "npz", "table", "array", "image_array", "text", "newsgroups", "ratings", "movielens", "patches"}
NEED_FILES = {"dataset": ARCHIVES | OWN_FILES}

AXES = {
    name: [option for option in options if option not in NEED_FILES.get(name, ())]
    for name, options in GROUPS.items()
    if name not in ("mode", "experiment", "search", "views", "measures")
}


# Options that work with one kind of model only, and the overrides that they need.
NEEDS = {
    "schedule=plateau": ("dataset.validation=20",),
    "pretrain=pca": ("model=linear", "likelihood=gaussian"),
    "penalty=dip": ("model=vae",),
    "penalty=mmd": ("model=vae",),
    "penalty=tc": ("model=vae",),
    "pretrain=rbm": ("model.activation=sigmoid",),
}


def take_two_steps(overrides: Sequence[str]) -> None:
    """Build the components of overrides and check that the losses are finite before and after an optimizer step."""
    take_two_steps_of(settings_of(overrides))


def settings_of(overrides: Sequence[str]) -> Settings:
    """Return the checked settings of overrides."""
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return entry.check(config, full_overrides)


def image_likelihoods() -> list[Mapping[str, Any]]:
    """Return the sections of the likelihoods that are distributions of images."""
    nodes = [option_config("likelihood", option) for option in AXES["likelihood"]]
    return [node for node in nodes if "image" in getattr(locate(node["_target_"]), "kinds")]  # noqa: B009, of a class


@cache
def sections(group: str) -> dict[str, Mapping[str, Any]]:
    """Return the section of each option of a group by its name: composing it once saves minutes."""
    return {option: settings_of([f"{group}={option}"]).select(group) for option in AXES[group]}


def take_two_steps_of(settings: Settings) -> None:
    """Do `take_two_steps` with settings."""
    components = build(settings)
    x = torch.rand(4, *components.model.image_shape, generator=torch.Generator().manual_seed(0))
    optimizer_step = components.optimizer_steps[0]
    components.model.train()
    before = {name: value.item() for name, value in optimizer_step(x).items()}
    after = {name: value.item() for name, value in optimizer_step(x).items()}
    assert all(math.isfinite(value) for value in [*before.values(), *after.values()]), (before, after)


def options_of(groups: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return all pairs of a group and one of its options."""
    return [(group, option) for group, options in groups.items() for option in options]


def has_code_activation(model: str) -> bool:
    """Return whether the function of a model takes the activation that sparsity=kl needs."""
    config, *_ = api.compose_config([*TINY, f"model={model}"])
    return "code_activation" in inspect.signature(locate(config.model._target_)).parameters


@pytest.mark.slow
@pytest.mark.parametrize("model", AXES["model"])
def test_model_with_every_noise_sparsity_and_likelihood(model: str) -> None:
    sparsities = [sparsity for sparsity in AXES["sparsity"] if sparsity != "kl" or has_code_activation(model)]
    for sparsity in sparsities:
        settings = settings_of([f"model={model}", f"sparsity={sparsity}"])
        for likelihood, noise in itertools.product(image_likelihoods(), sections("noise").values()):
            take_two_steps_of(replace(settings, likelihood=likelihood, noise=noise))


@pytest.mark.slow
@pytest.mark.parametrize("model", AXES["model"])
def test_model_with_every_optimizer_and_schedule(model: str) -> None:
    settings = settings_of([f"model={model}"])
    for optimizer, schedule in itertools.product(sections("optimizer").values(), sections("schedule").values()):
        take_two_steps_of(replace(settings, optimizer=optimizer, schedule=schedule))


@pytest.mark.parametrize(("group", "option"), options_of(AXES))
def test_option_trains_to_the_end(group: str, option: str, tiny: Callable[..., Path]) -> None:
    data = DATA_OF_LIKELIHOOD.get(option, []) if group == "likelihood" else []
    directory = tiny(f"{group}={option}", *NEEDS.get(f"{group}={option}", ()), *data)
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert math.isfinite(metrics["test/sse"])


@pytest.mark.parametrize(("group", "option"), options_of(GROUPS))
def test_yaml_names_every_setting_of_its_target(group: str, option: str) -> None:
    """A setting that is absent from the YAML could only be set with `+`, which users do not expect."""
    file = CONFIG_DIR / group / f"{option}.yaml"
    assert file.read_text().startswith("# "), "the first line describes the option"
    node = option_config(group, option)
    if "_target_" not in node or group == "mode":
        return
    target = locate(node["_target_"])
    if target.__module__.startswith("torch."):
        return  # not every setting of torch's optimizers is offered
    set_by_the_builder = {"image_shape", "likelihood", "sparsifier", "scale", "params"} - set(node)
    settings = set(parameter_names(target)[0]) - set_by_the_builder
    assert settings <= set(node), f"{file.name} lacks {settings - set(node)}"


@pytest.mark.parametrize("search", GROUPS["search"])
def test_runs_from_everywhere_in_a_space_of_a_search_take_two_steps(search: str) -> None:
    params = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "search" / f"{search}.yaml"))
    assert isinstance(params, dict)
    params.pop("defaults")
    space, fixed = read_space({str(key): value for key, value in params.items()}, [])
    quantiles = [dict.fromkeys(space, u) for u in (0.0, 1 - 1e-9)]  # both ends of each distribution, then random ones
    generator = random.Random(0)
    quantiles += [{key: generator.random() for key in space} for _ in range(4)]
    model = search if search in GROUPS["model"] else "deep"
    for place in quantiles:
        values = [f"{key}={draw_text(space[key], u)}" for key, u in place.items()]
        settings = settings_of([f"model={model}", *fixed.values(), *values])
        take_two_steps_of(settings)
        objective_metrics(settings.objective)


def test_combination_without_meaning_names_both_settings() -> None:
    for overrides, names in [
        (["sparsity=topk", "sparsity.k=33"], ("sparsity.k=33", "model.code_dim=32")),
        (["sparsity=kl", "model.code_activation=relu"], ("model.code_activation=relu", "sparsity")),
        (["likelihood=bernoulli", "dataset.scale=[-1,1]"], ("likelihood=bernoulli", "dataset.scale")),
        (["likelihood=multinomial"], ("likelihood=multinomial", "images", "likelihood=bernoulli or gaussian")),
        (["likelihood=discretized_logistic", *overrides_of(Counts)], ("likelihood=discretized_logistic", "counts")),
        (["model=conv", "model.up=unpool"], ("model.up=unpool", "model.down=stride")),
        (
            ["+model.penalties.kl={_target_: aetrain.objective.penalties.KL}"],
            ("model.penalties.kl", "RandomCode"),
        ),
    ]:
        with pytest.raises(ConfigError) as refused:
            take_two_steps(overrides)
        assert all(name in str(refused.value) for name in names), str(refused.value)
