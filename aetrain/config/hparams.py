"""The hyper-parameters of a run under the names that a user writes: `model: vae`, not the class behind it."""

from collections.abc import Iterable, Mapping
from typing import Any

from aetrain.config.overrides import parse_assignments
from aetrain.config.paths import default_options, experiment_options, group_settings, groups
from aetrain.config.settings import role_of

HParam = int | float | str  # bool is an int


def hparams(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, HParam]:
    """Return a run's hyper-parameters by name: those of the command line, then the options of groups, then the rest.

    `settings` is the config by dotted name. The options that an experiment chooses are part of it and left out.
    """
    chosen = parse_assignments(list(overrides))
    options = {} if "experiment" in chosen else default_options()
    options |= {group: chosen[group] for group in groups() if group in chosen}
    first: dict[str, Any] = {key: options.get(key, settings.get(key)) for key in chosen}
    rest = {key: value for key, value in settings.items() if not key.rpartition(".")[2].startswith("_")}
    hparams: dict[str, HParam] = {}
    for key, value in {**first, **options, **rest}.items():
        plain = str(value) if isinstance(value, list) else value
        if isinstance(plain, HParam) and role_of(key).hparam:
            hparams[key] = plain
    return hparams


def run_caption(overrides: Iterable[str], epoch: int, seed: int) -> str:
    """Return a line such as `vae · fashion · epoch 10 · seed 0`.

    The model and the data set are the options of the command line, else of the experiment, else the defaults. An
    experiment comes first.
    """
    chosen = parse_assignments(list(overrides))
    options = {**default_options(), **experiment_options(chosen.get("experiment", "")), **chosen}
    names = [options[group] for group in ("experiment", "model", "dataset") if options.get(group)]
    return " · ".join([*names, f"epoch {epoch}", f"seed {seed}"])


def hparam_columns(overrides: Iterable[str], single: bool) -> dict[str, bool]:
    """Return the columns of the HParams table by name, and whether each was set on the command line and comes first.

    TensorBoard reads the columns from one of the runs that it compares. The runs of a sweep set the same keys, which
    are enough; a `single` run also names the settings that other runs may have set.
    """
    first = {key: True for key in parse_assignments(list(overrides)) if role_of(key).hparam}
    if first and not single:
        return first
    nested = [name for name in group_settings() if name.count(".") == 1 or name.endswith(".weight")]
    others = [name for name in (*groups(), "batch_size", *nested) if role_of(name).hparam]
    return dict.fromkeys(others, False) | first
