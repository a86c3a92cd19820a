"""The settings in which runs must be equal for a metric to be ranked."""

import subprocess
import sys
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from aetrain import api
from aetrain.config.settings import flatten
from aetrain.evaluation.comparability import comparison_kind, ranking_obstacles

LIKELIHOOD = "likelihood"
RATINGS = ("dataset=movielens", "likelihood=gaussian")
MEASURES = "measures=[likelihood,probes,robustness,retrieval]"

# (metric, overrides of two runs, the settings that forbid to rank their values)
CASES = [
    # A Gaussian's nll has its constant, so its variance, its output and the range of pixels do not matter.
    ("test/nll", ("likelihood=gaussian",), ("likelihood=gaussian", "likelihood.variance=0.1"), []),
    ("test/neg_elbo", ("likelihood=gaussian",), ("likelihood=gaussian", "dataset.scale=[-1,1]"), []),
    ("test/is_nll_50", ("likelihood=gaussian",), ("likelihood=gaussian", "likelihood.output=sigmoid"), []),
    ("test/nll", ("likelihood=gaussian",), (), [LIKELIHOOD]),
    ("test/neg_elbo", ("likelihood=gaussian",), (), [LIKELIHOOD]),
    ("test/is_nll_5", ("likelihood=gaussian",), (), [LIKELIHOOD]),
    ("test/sse", ("likelihood=gaussian",), (), []),
    # Grey pixels are other images than black and white ones, for every metric.
    *((f"test/{name}", ("dataset.binarize=static",), (), ["dataset.binarize"]) for name in ("nll", "bce", "sse")),
    ("test/sse", ("dataset=toy",), (), ["dataset", "dataset.off_plane"]),
    ("test/sse", ("dataset.classes=[3,8]",), (), ["dataset.classes"]),
    ("test/sse", ("dataset.random_crop=6",), (), ["dataset.random_crop"]),
    ("test/sse", ("dataset.test_subset=100",), (), ["dataset.test_subset"]),
    # Held-out ratings are the same ones for rows of users and of items.
    ("test/rmse", (*RATINGS, "dataset.rows=items"), (*RATINGS, "dataset.center=none"), []),
    ("test/sse", (*RATINGS, "dataset.rows=items"), RATINGS, ["dataset.rows"]),
    ("test/rmse", (*RATINGS, "dataset.split=last"), RATINGS, ["dataset.split"]),
    # Settings of training alone change no test image.
    ("test/sse", ("dataset.subset=100",), (), []),
    ("test/nll", ("dataset.validation=100", "epochs=3", "optimizer.lr=1"), (), []),
    ("test/nll", ("dataset.subset=100",), (), []),
    ("validation/nll", ("dataset.validation=100",), (), ["dataset.validation"]),
    ("train/seconds_per_epoch", ("dataset=toy",), (), []),
    # The loss is a sum: its terms and their weights must be the same, and the noise of its images.
    ("test/loss", ("likelihood.reduction=mean",), (), ["likelihood.reduction"]),
    ("test/loss", ("model.penalties.kl.weight=4",), (), ["model.penalties.kl.weight"]),
    ("test/neg_elbo", ("model.penalties.kl.weight=4", "likelihood.reduction=mean"), (), []),
    ("test/loss", ("noise=gaussian",), ("noise=gaussian", "noise.std=0.1"), ["noise.std"]),
    ("test/noisy_sse", ("noise=gaussian",), ("noise=gaussian", "noise.std=0.1"), ["noise.std"]),
    ("test/sse", ("noise=gaussian",), ("noise=gaussian", "noise.std=0.1"), []),
    # A measure's own settings, except those that decide which metrics it computes.
    ("test/is_nll_5", ("measures.likelihood.count=10",), (), ["measures.likelihood.count"]),
    ("test/is_nll_5", ("measures.likelihood.samples=[1,5]",), (), []),
    ("test/probe_linear", ("measures.probes.images=10",), (), ["measures.probes.images"]),
    ("test/probe_linear", ("measures.probes.methods=[linear]", "measures.likelihood.count=10"), (), []),
    ("test/noisy_sse_gaussian_0.1", ("noise=gaussian", "measures.robustness.levels=[0.1]"), (), []),
    ("test/noisy_sse_gaussian_0.1", ("measures.robustness.count=10",), (), ["measures.robustness.count"]),
]


@cache
def settings_of(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a run by dotted name."""
    base = ("model=vae", "dataset=digits", MEASURES)
    return flatten(OmegaConf.to_container(api.compose_config([*base, *overrides])[0]))


@pytest.mark.parametrize(("tag", "one", "other", "obstacles"), CASES)
def test_settings_that_forbid_to_rank(
    tag: str, one: tuple[str, ...], other: tuple[str, ...], obstacles: list[str]
) -> None:
    runs = [settings_of(one), settings_of(other)]
    assert sorted(ranking_obstacles(tag, runs)) == sorted(obstacles)
    kinds = {comparison_kind(tag, run) for run in runs}
    assert len(kinds) == (2 if obstacles else 1), "both functions agree"
    assert ranking_obstacles(tag, runs[:1]) == [], "one run differs from none"


def test_a_setting_of_a_later_version_is_as_good_as_null() -> None:
    now = settings_of(())
    earlier = {key: value for key, value in now.items() if key != "dataset.test_subset"}
    assert comparison_kind("test/sse", earlier) == comparison_kind("test/sse", now)
    assert ranking_obstacles("test/sse", [earlier, now]) == []


def test_the_module_imports_no_torch() -> None:
    code = "import sys, aetrain.evaluation.comparability; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
