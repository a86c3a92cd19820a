"""Names of earlier versions work on the command line, in a sweep and in a user's YAML, with one warning for each."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from command import Outcome, command, process
from conftest import TINY
from omegaconf import OmegaConf

from aetrain import api
from aetrain.config.paths import CONFIG_DIR, groups, option_config
from aetrain.config.renames import MODULES, SETTINGS, TARGETS, VALUES, current_target
from aetrain.config.validate import locate
from aetrain.runs import entry

WITHOUT_VIEWS = [override for override in TINY if not override.startswith("views=")]

# An old override, the one that the warning must name, and other overrides that it needs.
OLD_OVERRIDES = [
    ("dataset.crop=8", "dataset.random_crop=8", ["views=none"]),
    ("schedule.warmup=0.1", "schedule.warmup_fraction=0.1", ["views=none", "schedule=cosine"]),
    ("schedule.final=0.1", "schedule.final_factor=0.1", ["views=none", "schedule=linear"]),
    ("model.bottleneck.patience=50", "model.bottleneck.reset_after=50", ["views=none", "model=vqvae"]),
    (
        "pretrain.switch=1",
        "pretrain.momentum_switch_epoch=1",
        ["views=none", "pretrain=rbm", "model.activation=sigmoid"],
    ),
    ("pretrain.weight_cost=0", "pretrain.weight_decay=0", ["views=none", "pretrain=rbm", "model.activation=sigmoid"]),
    ("pretrain.std=0.02", "pretrain.init_std=0.02", ["views=none", "pretrain=rbm", "model.activation=sigmoid"]),
    ("views.units.norm=images", "views.units.norm=data_covariance", ["views=units"]),
    ("noise._target_=aetrain.data.noise.Clean", "noise._target_=aetrain.data.noise.NoNoise", ["views=none"]),
]

# A group, the YAML of a user's option with old names, overrides beside it, and the new settings with their values.
OLD_FILES: list[tuple[str, str, list[str], dict[str, Any]]] = [
    ("dataset", "defaults: [digits, _self_]\nsubset: 64\ncrop: 7\n", ["views=none"], {"dataset.random_crop": 7}),
    (
        "schedule",
        "defaults: [cosine, _self_]\nwarmup: 0.1\n",
        ["dataset=digits", "dataset.subset=64", "views=none"],
        {"schedule.warmup_fraction": 0.1},
    ),
    (
        "model",
        "defaults: [vqvae, _self_]\nbottleneck:\n  patience: 50\n",
        ["dataset=digits", "dataset.subset=64", "views=none"],
        {"model.bottleneck.reset_after": 50},
    ),
    (
        "pretrain",
        "defaults: [rbm, _self_]\nswitch: 1\n",
        ["dataset=digits", "dataset.subset=64", "views=none", "model.activation=sigmoid"],
        {"pretrain.momentum_switch_epoch": 1},
    ),
    (
        "views",
        "defaults: [units, _self_]\nunits:\n  norm: images\n",
        ["dataset=digits", "dataset.subset=64"],
        {"views.units.norm": "data_covariance"},
    ),
    (
        "noise",
        "_target_: aetrain.data.noise.Clean\n",
        ["dataset=digits", "dataset.subset=64", "views=none"],
        {"noise._target_": "aetrain.data.noise.NoNoise"},
    ),
    (
        "experiment",
        "# @package _global_\ndataset:\n  crop: 7\n",
        ["dataset=digits", "dataset.subset=64", "views=none"],
        {"dataset.random_crop": 7},
    ),
]
FAST = ["epochs=1", "batch_size=32", "device=cpu"]


def warnings_in(text: str) -> list[str]:
    """Return the lines about names of earlier versions."""
    return [line for line in text.splitlines() if "earlier version" in line]


def warnings_of(outcome: Outcome, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about earlier names: the logged ones, and those printed after Hydra has set up logging."""
    return [*warnings_in("\n".join(caplog.messages)), *warnings_in(outcome.out + outcome.err)]


def write_option(folder: Path, group: str, text: str) -> list[str]:
    """Write an option `old` of a group into the config folder `mine`; return the arguments that choose it."""
    file = folder / "mine" / group / "old.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return ["--config-dir", "mine", f"{group}=old"]


# --- The command line -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "others"), OLD_OVERRIDES, ids=[case[0] for case in OLD_OVERRIDES])
def test_old_override_gives_the_config_of_the_new_one(
    old: str, new: str, others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config, _, overrides = api.compose_config([*WITHOUT_VIEWS, *others, old])
    assert caplog.messages == [f"{old} is the name of an earlier version: write {new}"]
    caplog.clear()
    new_config, _, new_overrides = api.compose_config([*WITHOUT_VIEWS, *others, new])
    assert not caplog.messages
    assert config == new_config
    assert overrides == new_overrides
    entry.check(config, overrides)


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "others"), OLD_OVERRIDES, ids=[case[0] for case in OLD_OVERRIDES])
def test_command_with_an_old_override_trains_after_one_warning(
    old: str, new: str, others: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = command([*WITHOUT_VIEWS, *others, old, "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 0, outcome.err
    (warning,) = warnings_of(outcome, caplog)
    assert new in warning
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_warning_is_one_line_on_the_terminal(tmp_path: Path) -> None:
    """The command prints it before the logging of the run begins."""
    outcome = process([*TINY, "model=linear", "dataset.crop=8", "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 0
    assert outcome.err == "dataset.crop=8 is the name of an earlier version: write dataset.random_crop=8\n"


@pytest.mark.slow
def test_old_override_in_a_sweep_gives_one_warning(tmp_path: Path) -> None:
    """The runs, which are other processes, do not repeat it."""
    outcome = process(["-m", *TINY, "model=linear", "dataset.crop=7,8", "hydra.sweep.dir=sweep"], tmp_path)
    assert outcome.code == 0, outcome.err
    (warning,) = warnings_in(outcome.out + outcome.err)
    assert "dataset.random_crop=7,8" in warning
    finished = {path.parent.name for path in tmp_path.glob("sweep/*/metrics.json")}
    assert finished == {"dataset.random_crop=7", "dataset.random_crop=8"}


def test_old_override_works_with_configs_of_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An old setting of aetrain's component is renamed with --config-dir, too."""
    (tmp_path / "mine").mkdir()
    arguments = ["--config-dir", "mine", *TINY, "model=linear", "dataset.crop=7", "hydra.run.dir=run"]
    outcome = command(arguments, tmp_path)
    assert outcome.code == 0, outcome.err
    (warning,) = warnings_of(outcome, caplog)
    assert "dataset.random_crop" in warning


# --- YAML of the user -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("group", "text", "others", "new"), OLD_FILES, ids=[case[0] for case in OLD_FILES])
def test_old_name_in_a_yaml_of_the_user(
    group: str, text: str, others: list[str], new: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*write_option(tmp_path, group, text), *FAST, *others, "hydra.run.dir=run"]
    outcome = command(arguments, tmp_path)
    assert outcome.code == 0, outcome.err
    (warning,) = warnings_of(outcome, caplog)
    ((key, value),) = new.items()
    assert (str(value) if key.endswith(("norm", "_target_")) else key) in warning
    saved = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert OmegaConf.select(saved, key) == value


@pytest.mark.parametrize("override", ["dataset.random_crop=8", "dataset.crop=8"])
def test_command_line_wins_over_an_old_name_in_a_yaml(override: str, tmp_path: Path) -> None:
    option = write_option(tmp_path, "dataset", "defaults: [digits, _self_]\nsubset: 64\ncrop: 7\n")
    outcome = command([*option, *FAST, "views=none", override, "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 0, outcome.err
    saved = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert OmegaConf.select(saved, "dataset.random_crop") == 8


SETTING_OF_THE_USER = '''
from aetrain.data.digits import Digits


class Cropped(Digits):
    """A data set of the user whose setting has a name that aetrain has given up."""

    def __init__(self, crop: int, **settings) -> None:
        super().__init__(**settings)
        assert crop == 5
'''


def test_component_of_the_user_keeps_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Names are changed for aetrain's own components only."""
    (tmp_path / "cropped_digits.py").write_text(SETTING_OF_THE_USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "defaults: [digits, _self_]\n_target_: cropped_digits.Cropped\nsubset: 64\ncrop: 5\n"
    arguments = [*write_option(tmp_path, "dataset", text), *FAST, "views=none", "hydra.run.dir=run"]
    outcome = command(arguments, tmp_path)
    assert outcome.code == 0, outcome.err
    assert not warnings_of(outcome, caplog)


# --- The table of renames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", TARGETS)
def test_renamed_target_exists(old: str) -> None:
    assert callable(locate(current_target(old)))
    with pytest.raises((ImportError, AttributeError)):
        locate(old)


@pytest.mark.parametrize("old", MODULES)
def test_renamed_module_exists_under_its_new_name_only(old: str) -> None:
    importlib.import_module(MODULES[old])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(old)


@pytest.mark.parametrize("old", SETTINGS)
def test_renamed_setting_exists_under_its_new_name_only(old: str) -> None:
    assert options_with(SETTINGS[old])
    assert not options_with(old)


def options_with(dotted_key: str) -> list[str]:
    """Return the options that have a setting."""
    group, _, path = dotted_key.partition(".")
    return [option for option in groups()[group] if has_setting(option_config(group, option), path)]


def has_setting(node: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def test_new_names_of_values_are_in_the_configs() -> None:
    texts = [file.read_text() for file in CONFIG_DIR.rglob("*.yaml")]
    for values in VALUES.values():
        for old, new in values.items():
            assert any(f"norm: {new}" in text for text in texts)
            assert not any(f"norm: {old}" in text for text in texts)
