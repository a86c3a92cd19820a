"""The settings in which two runs must be equal for the values of a metric to be ranked. Imports no torch."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from aetrain.config.renames import ADDED_IN_SECTIONS
from aetrain.config.settings import FlatSettings
from aetrain.evaluation.metric_names import find_pattern, name_of

# FlatSettings of a data set that change neither the test images nor their pixels in [0, 1].
TRAINING_SETTINGS = ("dataset.subset", "dataset.validation", "dataset.train_classes", "dataset.scale")

# Negative log-likelihoods are densities of pixels in [0, 1] (Gaussian, Laplace) or probabilities, such as of black and
# white pixels (Bernoulli) or of counts, which have no common unit. Other variances, outputs and scales of pixels do not
# change the unit.
LIKELIHOOD_METRICS = ("nll", "neg_elbo", "bits_per_dim", "is_nll_K")
NOISE_METRICS = ("noisy_sse", "noisy_bce", "noisy_psnr", "input_sse")
TIME_METRICS = ("seconds_per_epoch",)

# Areas under curves for the classes that training leaves out, which are others where the training classes are.
ANOMALY_METRICS = (*("roc_auc", "roc_auc_NAME", "average_precision", "average_precision_NAME"),)

# Errors of predicted ratings are of the same held-out ratings, whatever the rows of examples and the centre are.
RATING_METRICS = ("rmse", "mae")
RATING_SETTINGS = ("dataset.rows", "dataset.center", "dataset.center_shrinkage")

# The options of `measures` that compute a metric, and their settings that decide which metrics there are, not their
# values.
MEASURES = {
    "is_nll_K": ("likelihood",),
    "probe_NAME": ("probes",),
    "precision_NAME": ("retrieval",),
    "finetuned_NAME": ("few_labels", "fine_tuning"),
    "frechet_NAME": ("frechet",),
    "recall_NAME": ("recommendation",),
    "ndcg_NAME": ("recommendation",),
    "noisy_sse_NOISE_LEVEL": ("robustness",),
    "input_sse_NOISE_LEVEL": ("robustness",),
}
NAMES_OF_METRICS = ("samples", "methods", "at", "labels", "levels", "kinds", "path", "recall_at", "ndcg_at")

SettingTest = Callable[[str], bool]  # whether the setting of a dotted name is decisive


def comparison_kind(tag: str, settings: FlatSettings) -> str:
    """Return a text that is equal for two runs where the values of a metric, such as `test/nll`, may be ranked.

    All metrics need the same test images with the same pixels (`dataset.*`, binarisation among them), those of a
    likelihood the same kind of likelihood, `loss` the same terms, weights and noise as well, those of noisy images the
    same noise, and those of measures the measure's settings. The time per epoch needs nothing.
    """
    return json.dumps(_decisive_settings(tag, settings), sort_keys=True, default=str)


def ranking_obstacles(tag: str, runs: Iterable[FlatSettings]) -> list[str]:
    """Return the settings whose differences between runs forbid to rank a metric; empty if it may be ranked.

    A component stands for its class: `likelihood` for `likelihood._target_`.
    """
    decisive = [_decisive_settings(tag, settings) for settings in runs]
    names = dict.fromkeys(name for settings in decisive for name in settings)

    def differs(name: str) -> bool:
        return len({json.dumps(settings.get(name), sort_keys=True, default=str) for settings in decisive}) > 1

    return list(dict.fromkeys(name.removesuffix("._target_") for name in names if differs(name)))


def _decisive_settings(tag: str, settings: FlatSettings) -> dict[str, Any]:
    """Return the settings in which runs must be equal, by dotted name."""
    name = name_of(tag)
    if name in TIME_METRICS:
        return {}
    tests: list[SettingTest] = [_changes_test_images if tag.startswith("test/") else _is_of_data_set]
    if name == "loss":
        tests += [_is_term_of_loss, _is_noise]
    if find_pattern(name, LIKELIHOOD_METRICS):
        tests.append(_is_kind_of_likelihood)
    if find_pattern(name, ANOMALY_METRICS):
        tests.append(_is_of_anomalies)
    if name in NOISE_METRICS:
        tests.append(_is_noise)
    elif pattern := find_pattern(name, MEASURES):
        tests.append(_is_setting_of(*MEASURES[pattern]))
    # A setting that an earlier version did not have is as good as null, or has the value that it had there.
    free = RATING_SETTINGS if name in RATING_METRICS else ()
    complete = ADDED_IN_SECTIONS | dict(settings)
    known = {key: value for key, value in complete.items() if value is not None and key not in free}
    return {key: value for key, value in known.items() if any(test(key) for test in tests)}


def _changes_test_images(key: str) -> bool:
    return key.startswith("dataset.") and key not in TRAINING_SETTINGS


def _is_of_data_set(key: str) -> bool:
    return key.startswith("dataset.") and key != "dataset.scale"


def _is_of_anomalies(key: str) -> bool:
    return key in ("dataset.train_classes", "measures.anomaly.normal")


def _is_kind_of_likelihood(key: str) -> bool:
    return key == "likelihood._target_"


def _is_term_of_loss(key: str) -> bool:
    is_term = key.startswith(("model.penalties.", "penalty.", "sparsity."))
    return is_term or key in ("likelihood._target_", "likelihood.reduction")


def _is_noise(key: str) -> bool:
    return key.startswith("noise.")


def _is_setting_of(*measures: str) -> SettingTest:
    """Return a test for the settings of measures that change their metrics."""
    prefixes = tuple(f"measures.{measure}." for measure in measures)
    return lambda key: key.startswith(prefixes) and key.split(".", 2)[2] not in NAMES_OF_METRICS
