"""Every option composes with every other and trains; the axes are read from the folders under configs/."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups
from aetrain.runs import train
from aetrain.runs.build import build

GROUPS = groups()

# Data sets that need files of the user's own or archives; they are the others' equal once loaded.
ELSEWHERE = {"dataset": {"mnist", "fashion", "folder", "npz"}}

AXES = {
    name: [option for option in options if option not in ELSEWHERE.get(name, ())]
    for name, options in GROUPS.items()
    if name not in ("mode", "experiment", "views", "measures")
}


# Options that are the solution of one kind of model only, and what they need beside them.
NEEDS = {
    "pretrain=pca": ("model=linear", "likelihood=gaussian"),
    "pretrain=rbm": ("model.activation=sigmoid",),
}


def step(overrides: Sequence[str]) -> dict[str, float]:
    """Build what the overrides say and take one step; the terms before it, by name."""
    config, _, said = api.composed([*TINY, *overrides])
    plain = train.checked(config, said)
    parts = build(plain)
    x = torch.rand(8, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
    update = parts.updates[0]
    parts.model.train()
    terms = {name: value.item() for name, value in update.step(x).items()}
    after = {name: value.item() for name, value in update.step(x).items()}
    assert all(math.isfinite(value) for value in [*terms.values(), *after.values()]), (terms, after)
    return terms


@pytest.mark.parametrize("model", AXES["model"])
def test_model_with_every_noise_sparsity_and_likelihood(model: str) -> None:
    for noise, sparsity, likelihood in itertools.product(AXES["noise"], AXES["sparsity"], AXES["likelihood"]):
        step([f"model={model}", f"noise={noise}", f"sparsity={sparsity}", f"likelihood={likelihood}"])


@pytest.mark.parametrize("model", AXES["model"])
def test_model_with_every_optimizer_and_schedule(model: str) -> None:
    for optimizer, schedule in itertools.product(AXES["optimizer"], AXES["schedule"]):
        step([f"model={model}", f"optimizer={optimizer}", f"schedule={schedule}"])


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in AXES.items() for o in options])
def test_option_trains_to_the_end(group: str, option: str, tiny: Callable[..., Path]) -> None:
    directory = tiny(f"{group}={option}", *NEEDS.get(f"{group}={option}", ()))
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert math.isfinite(metrics["test/sse"])


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in GROUPS.items() for o in options])
def test_yaml_names_every_setting_of_its_target(group: str, option: str) -> None:
    """A setting that a YAML leaves out could only be given with `+`, which nobody guesses."""
    import inspect

    from omegaconf import OmegaConf

    from aetrain.config.paths import CONFIG_DIR
    from aetrain.config.validate import locate

    file = CONFIG_DIR / group / f"{option}.yaml"
    assert file.read_text().startswith("# "), "the first line says what the option is"
    node = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(node, dict)
    if "_target_" not in node or group == "mode":
        return
    target = locate(node["_target_"])
    if target.__module__.startswith("torch."):
        return  # torch's optimizers have settings that nobody here needs
    given_by_the_experiment = {"image_shape", "likelihood", "sparsifier", "scale", "params"} - set(node)
    settings = set(inspect.signature(target).parameters) - given_by_the_experiment
    assert settings <= set(node), f"{file.name} leaves out {settings - set(node)}"


def test_combination_without_meaning_names_both_settings() -> None:
    for overrides, names in [
        (["sparsity=topk", "sparsity.k=33"], ("sparsity.k=33", "model.code_dim=32")),
        (["sparsity=kl", "model.code_activation=relu"], ("model.code_activation=relu", "sparsity")),
        (["likelihood=bernoulli", "dataset.scale=[-1,1]"], ("likelihood=bernoulli", "dataset.scale")),
        (["model=conv", "model.up=unpool"], ("model.up=unpool", "model.down=stride")),
        (
            ["+model.penalties.kl={_target_: aetrain.objective.penalties.GaussianKL}"],
            ("model.penalties.kl", "Gaussian"),
        ),
    ]:
        with pytest.raises(ConfigError) as refused:
            step(overrides)
        assert all(name in str(refused.value) for name in names), str(refused.value)
