"""Images that are not those of the run's config: the modes that read all of a run's images take all of theirs."""

import logging
from dataclasses import replace
from typing import Any

from aetrain.config.errors import error_context
from aetrain.config.overrides import SAVED, key_of
from aetrain.data.examples import Examples
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.runs.train import log_conversions

log = logging.getLogger("aetrain")

# Settings that select images of a data set or hide values, with the values that keep all of them.
SELECTIONS: dict[str, Any] = {
    "classes": None,
    "train_classes": None,
    "subset": None,
    "test_subset": None,
    "validation": 0,
    "missing": 0.0,
}


def chooses_data(request: RunRequest) -> bool:
    """Return whether the command line chooses a data set, or another place of the run's own."""
    return not {"dataset", "dataset.path"}.isdisjoint(own_keys(request))


def load_all(request: RunRequest, components: Components) -> Examples:
    """Return all images of the data set on the device, in the order of their rows; only the command line selects."""
    keys = own_keys(request)
    unset = {name: value for name, value in SELECTIONS.items() if f"dataset.{name}" not in keys}
    with error_context("dataset"):
        dataset = replace(components.dataset, **unset)
        if state := components.dataset.fitted_state():
            dataset.restore(state)
        images = dataset.load_all()
    noun, shape = dataset.noun, "x".join(map(str, images.values.shape[1:]))
    log.info("data: %s %ss of %s", f"{len(images):,}", noun, shape)
    log_conversions(dataset)
    return images.to(components.device)


def own_keys(request: RunRequest) -> set[str]:
    """Return the keys of the overrides of the command line, without those that choose a section of the saved run."""
    return {key_of(text) for text in request.overrides if not text.endswith(f"={SAVED}")}
