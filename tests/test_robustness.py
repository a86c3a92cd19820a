"""The errors under each kind and level of noise, against the standard metric and against numpy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from test_ratings import write_ratings

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.digits import Digits
from aetrain.evaluation.measures.robustness import Robustness, noise_kinds
from aetrain.evaluation.metric_names import find_pattern, name_of
from aetrain.runs import entry
from aetrain.runs.build import build


@pytest.mark.slow
def test_the_error_at_a_level_is_the_standard_metric_under_that_noise(tiny: Callable[..., Path]) -> None:
    directory = tiny("noise=masking", "measures=robustness", "measures.robustness.levels=[0.2,0.6]")
    metrics = json.loads((directory / "metrics.json").read_text())
    noisy_errors = [name for name in metrics if name.startswith("test/noisy_sse_")]
    assert len(noisy_errors) == 2 * len(noise_kinds())
    assert find_pattern(name_of(noisy_errors[0]), Robustness.descriptions) == "noisy_sse_NOISE_LEVEL"
    for noise, level in (("masking", "noise.p=0.6"), ("gaussian", "noise.std=0.6"), ("salt_and_pepper", "noise.p=0.6")):
        api.run([f"run={directory}", "mode=eval", f"noise={noise}", level])
        expected = json.loads((directory / "eval" / f"noise={noise},{level}" / "metrics.json").read_text())
        assert metrics[f"test/noisy_sse_{noise}_0.6"] == pytest.approx(expected["test/noisy_sse"], rel=1e-6)


def test_more_noise_has_a_larger_error_and_masking_removes_its_pixels(tiny: Callable[..., Path]) -> None:
    overrides = ("measures=robustness", "measures.robustness.levels=[0,0.3,1]", "dataset.test_subset=null", "epochs=0")
    metrics = json.loads((tiny(*overrides) / "metrics.json").read_text())
    x = Digits().read()[1].pixels.numpy().astype(np.float64) / 255
    energy = float(np.square(x).sum() / len(x))
    for kind in noise_kinds():
        errors = [metrics[f"test/input_sse_{kind}_{level}"] for level in ("0", "0.3", "1")]
        assert errors[0] == 0
        assert errors == sorted(errors)
        assert metrics[f"test/noisy_sse_{kind}_0"] == pytest.approx(metrics["test/sse"], rel=1e-5)
    assert metrics["test/input_sse_masking_1"] == pytest.approx(energy, rel=1e-5)
    assert metrics["test/input_sse_masking_0.3"] == pytest.approx(0.3 * energy, rel=0.05)
    assert metrics["test/input_sse_salt_1"] == pytest.approx(float(np.square(1 - x).sum() / len(x)), rel=1e-5)


@pytest.mark.parametrize("data", ["counts", "hidden values"])
def test_without_noise_the_error_is_the_standard_metric_of_all_data(
    data: str, run: Callable[..., Path], tmp_path: Path
) -> None:
    options = {
        "counts": (
            *("dataset=ratings", f"dataset.path='{write_ratings(tmp_path)}'", "dataset.implicit=true"),
            *("dataset.threshold=2", "dataset.min_ratings=2", "dataset.test_fraction=0.3"),
        ),
        "hidden values": ("dataset=wine", "dataset.missing=0.3"),
    }
    small = ("model.hidden=[]", "model.code_dim=3", "epochs=0", "views=none", "device=cpu")
    directory = run(*options[data], *small, "measures=robustness", "measures.robustness.levels=[0]")
    metrics = json.loads((directory / "metrics.json").read_text())
    errors = {name: value for name, value in metrics.items() if name.startswith("test/noisy_sse_")}
    assert len(errors) > 1
    assert errors == pytest.approx(dict.fromkeys(errors, metrics["test/sse"]), rel=1e-5)


@pytest.mark.parametrize("setting", ["levels=[]", "levels=[2]", "count=0"])
def test_settings_that_measure_nothing_are_refused(setting: str) -> None:
    config, _, overrides = api.compose_config([*TINY, "measures=robustness", f"measures.robustness.{setting}"])
    with pytest.raises(ConfigError, match=r"measures\.robustness\." + setting.partition("=")[0]):
        build(entry.check(config, overrides))
