"""Short names of runs and of their test images: by what distinguishes them, in at most three settings."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from aetrain.config.paths import default_options, groups
from aetrain.evaluation.comparability import ranking_obstacles
from aetrain.report.runs import RunSummary

MAX_SETTINGS_IN_LABEL = 3
MAX_OPTIONS_IN_LABEL = 2  # of these, options of groups, such as `gaussian`

# Last parts of names that mean little without the part before them: `kl.weight`.
AMBIGUOUS_NAMES = ("weight", "p", "k", "std")

TRAINING_IMAGES = ("dataset.subset", "dataset.train_classes")  # stand in a label wherever they vary

SHOWN_APART = ("dataset", "model")  # they have columns and filters of their own

Differences = Mapping[str, str]  # the values of a run in the settings that vary between runs


def short_name(key: str) -> str:
    """Return the end of a setting's dotted name: `lr`, but `kl.weight`."""
    names = key.split(".")
    two = len(names) > 2 or names[-1] in AMBIGUOUS_NAMES
    return ".".join(names[-2:] if two else names[-1:])


def value_text(run: RunSummary, key: str) -> str:
    """Return a setting of a run as text: the option of a group, its config's value, or its override; else empty."""
    if key in run.options:
        return run.options[key]
    if key in run.settings:
        return as_text(run.settings[key])
    return _shorter_number(run.overrides.get(key, ""))


def as_text(value: Any) -> str:
    """Return a value as a user writes it: `null`, `true`, `[512,256]`, `0.001`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    return _shorter_number(str(value))


def _shorter_number(text: str) -> str:
    """Return a number in its shorter form: Hydra writes 1e9 as 1000000000.0.

    Other texts, and numbers with more digits than the shorter form keeps, are returned as they are.
    """
    try:
        shorter = f"{float(text):g}"
        is_equal = float(shorter) == float(text)
    except ValueError:
        return text
    return shorter if is_equal and len(shorter) < len(text) else text


def name_test_sets(runs: Sequence[RunSummary]) -> list[str]:
    """Return a name of each run's test images: the data set, with the settings in which its test images differ.

    Two runs have the same name where a metric of their reconstructions may be ranked.
    """
    by_dataset: dict[str, list[RunSummary]] = {}
    for run in runs:
        by_dataset.setdefault(_dataset_name(run), []).append(run)
    names = {}
    for dataset, members in by_dataset.items():
        keys = ranking_obstacles("test/sse", [run.settings for run in members if run.settings])
        for run in members:
            values = [f"{short_name(key)}={value_text(run, key)}" for key in keys if run.settings.get(key) is not None]
            names[run.path] = ", ".join([dataset, *values])
    return [names[run.path] for run in runs]


def _dataset_name(run: RunSummary) -> str:
    """Return the option of a run's data set, with the last part of its path if it is the user's own: `npz d38.npz`."""
    option = run.options.get("dataset") or "unknown data set"
    path = run.settings.get("dataset.path")
    return f"{option} {PurePath(path).name}" if isinstance(path, str) else option


def short_labels(runs: Sequence[RunSummary], differences: Sequence[Differences], test_sets: Sequence[str]) -> list[str]:
    """Return a label of each run that distinguishes it from those with the same test images: `vae, lr=0.01`.

    It has the model, if there are several, the settings of training images that vary, such as `subset=1000`, and those
    that distinguish the runs of one model. Where these are more than MAX_SETTINGS_IN_LABEL, the run's name follows.
    """
    several_models = len({run.options.get("model") for run in runs}) > 1
    members: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(runs):
        members.setdefault((test_sets[i], run.options.get("model", "")), []).append(i)
    labels = [""] * len(runs)
    for (test_set, model), indices in members.items():
        rows = [differences[i] for i in indices]
        beside = [row for row, name in zip(differences, test_sets, strict=True) if name == test_set]
        keys = _distinguishing_keys(rows, _varying_keys(beside, TRAINING_IMAGES))
        texts = [_setting_texts(row, keys, several_models) for row in rows]
        for i, own_texts in zip(indices, texts, strict=True):
            parts = [model, *own_texts] if several_models and model else own_texts
            if texts.count(own_texts) > 1 or not (parts or model):
                parts = [*parts, runs[i].name]
            labels[i] = ", ".join(parts) or (model if len(runs) > 1 else runs[i].name)
    return labels


def _varying_keys(rows: Sequence[Differences], keys: Sequence[str]) -> list[str]:
    """Return those of the settings whose values are not equal in all rows."""
    return [key for key in keys if key in rows[0] and len({row[key] for row in rows}) > 1]


def _distinguishing_keys(rows: Sequence[Differences], shown: Sequence[str]) -> list[str]:
    """Return the settings that are `shown` and few more by which the rows differ, options of groups first.

    Each step takes the setting that separates most rows, the first on the command line if there are several.
    """
    keys = [key for key in rows[0] if key not in SHOWN_APART]
    keys.sort(key=lambda key: (key != "experiment", key not in groups()))
    options = [key for key in keys if key in groups()]
    chosen = _separating_keys(rows, options, shown[:MAX_SETTINGS_IN_LABEL], MAX_OPTIONS_IN_LABEL)
    chosen = _separating_keys(rows, keys, chosen, MAX_SETTINGS_IN_LABEL)
    return [key for key in keys if key in chosen]


def _separating_keys(
    rows: Sequence[Differences], keys: Sequence[str], chosen: Sequence[str], max_number: int
) -> list[str]:
    """Return chosen keys and more, each of which separates rows that are equal without it, up to a number of keys."""
    chosen = list(chosen)
    while len(chosen) < max_number:
        counts = {key: _num_distinct(rows, [*chosen, key]) for key in keys}
        best = max(counts, key=lambda key: counts[key], default="")
        if not best or counts[best] == _num_distinct(rows, chosen):
            break
        chosen.append(best)
    return chosen


def _num_distinct(rows: Sequence[Differences], keys: Sequence[str]) -> int:
    return len({tuple(row[key] for key in keys) for row in rows})


def _setting_texts(row: Differences, keys: Sequence[str], has_model: bool) -> list[str]:
    """Return settings as they stand in a label: an option of a group by itself, but `noise=none`.

    A default option is left out where the label has another part: `vae, gaussian` is beside `vae`.
    """
    pairs = [(key, row[key]) for key in keys if row[key]]
    defaults = default_options(dict(pairs).get("dataset"))
    own = [pair for pair in pairs if defaults.get(pair[0]) != pair[1]]
    texts = []
    for key, value in own if own or has_model else pairs:
        texts.append(value if key in groups() and value != "none" else f"{short_name(key)}={value}")
    return texts
