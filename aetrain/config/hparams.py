"""The hyper-parameters of a run under the names that a user writes: `model: vae`, not the class behind it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from aetrain.config.chosen_options import chosen_options
from aetrain.config.overrides import parse_assignments
from aetrain.config.settings import role_of

HParam = int | float | str  # bool is an int

DATASET_PATH = "dataset.path"
DIGEST_LENGTH = 12  # characters


def hparams(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, HParam]:
    """Return a run's hyper-parameters by name: the options of groups, then all settings that change its result.

    `settings` is the config by dotted name. The options are the experiment and the `chosen_options`, as in a report.
    Settings without a value and the path of published images are left out. A list is text.
    """
    chosen = parse_assignments(list(overrides))
    options = chosen_options(settings, chosen)
    if "experiment" in chosen:
        options = {"experiment": chosen["experiment"], **options}
    rest = {key: value for key, value in settings.items() if not key.rpartition(".")[2].startswith("_")}
    if rest.get(DATASET_PATH) == settings.get("data_dir"):
        rest.pop(DATASET_PATH, None)
    hparams: dict[str, HParam] = {}
    for key, value in {**options, **rest}.items():
        plain = str(value) if isinstance(value, list) else value
        if isinstance(plain, HParam) and role_of(key).hparam:
            hparams[key] = plain
    return hparams


def config_digest(settings: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return a digest of a config without its seed: runs of one digest differ in nothing else that changes the result.

    `settings` is the resolved config by dotted name, and `data` are the digests of the images, which stand for the path
    of the data. Other locations, views and measures are left out.
    """
    compared = {key: value for key, value in settings.items() if role_of(key).compared and key != DATASET_PATH}
    text = json.dumps([compared, data], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
