"""The options that a saved run has, such as `model: vae`: from its overrides, its experiment, or its classes."""

from collections.abc import Iterable, Mapping

from aetrain.config.overrides import SAVED, parse_assignments
from aetrain.config.paths import (
    GROUPS_WITHOUT_SECTION,
    default_likelihood,
    default_options,
    experiment_options,
    groups,
    option_settings,
)
from aetrain.config.settings import FlatSettings


def chosen_options(settings: FlatSettings, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the option of each group, by group.

    The command line's option comes first, then that of the experiment, then the default. An option whose class is not
    that of the config is replaced by the most similar one, and by the name of the class where no option has it. Where
    the config is lost, the groups that neither the command line nor the experiment names are left out.
    """
    experiment = overrides.get("experiment", "")
    is_known = experiment in groups()["experiment"]
    of_experiment = experiment_options(experiment)
    defaults = default_options() if settings and (is_known or not experiment) else {}
    options: dict[str, str] = {}
    for group in groups():
        named = overrides.get(group, SAVED)
        if named == SAVED:
            named = of_experiment.get(group, "")
        if defaults and group == "likelihood":
            defaults["likelihood"] = default_likelihood(options.get("dataset", ""))
        option = named or defaults.get(group, "")
        if f"{group}._target_" in settings:
            option = _option_of_class(group, settings, option, is_named=bool(named))
        if option and group not in GROUPS_WITHOUT_SECTION:
            options[group] = option
    return options


def run_caption(settings: FlatSettings, overrides: Iterable[str], epoch: int, seed: int) -> str:
    """Return the experiment, the model and the data set of a run as a line: `vae · fashion · epoch 10 · seed 0`."""
    chosen = parse_assignments(list(overrides))
    options = chosen_options(settings, chosen)
    names = [chosen.get("experiment"), options.get("model"), options.get("dataset")]
    return " · ".join([*filter(None, names), f"epoch {epoch}", f"seed {seed}"])


def _option_of_class(group: str, settings: FlatSettings, option: str, is_named: bool) -> str:
    """Return an option of a group that is one component, or the most similar one where it has another class."""
    if option not in groups()[group]:
        return option or _most_similar(group, settings)
    candidate, target = option_settings(group, option), f"{group}._target_"
    fits = candidate.get(target) == settings[target] if is_named else _has_classes(candidate, settings)
    return option if fits else _most_similar(group, settings)


def _has_classes(option: FlatSettings, settings: FlatSettings) -> bool:
    """Return whether a run has all classes of an option."""
    return all(settings.get(key) == value for key, value in option.items() if key.endswith("._target_"))


def _most_similar(group: str, settings: FlatSettings) -> str:
    """Return the option with the run's class and most of its settings, or else the name of the class."""
    target = str(settings[f"{group}._target_"])
    candidates: dict[str, tuple[int, int]] = {}
    for name in groups()[group]:
        option = option_settings(group, name)
        if option.get(f"{group}._target_") == target:
            equal = [key for key, value in option.items() if settings.get(key) == value]
            num_classes = sum(key.endswith("._target_") for key in equal)
            candidates[name] = num_classes, 2 * len(equal) - len(option)
    return max(candidates, key=lambda name: candidates[name]) if candidates else target.rpartition(".")[2]
