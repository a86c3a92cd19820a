"""Run directories written by 0.1.0 are evaluated, resumed, reported and loaded with the metrics that 0.1.0 reached."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command

import aetrain
from aetrain.report.page import write_report
from aetrain.runs.build import build
from aetrain.runs.entry import check
from aetrain.storage.old_metrics import NLL_CONSTANT
from aetrain.storage.run_directory import TIMING_METRICS, RunDirectory
from aetrain.storage.saved_config import saved_config

OLD_RUNS = Path(__file__).parent / "data" / "runs-0.1.0"
NAMES = ("deep", "vae", "vqvae", "aae", "conv", "conv_layers", "rbm", "sweep/seed=0", "sweep/seed=1")

# Metrics that are sums of many float32 products, in another order on another processor.
TOLERANCE = 1e-3


@pytest.fixture
def old_runs(tmp_path: Path) -> Path:
    """A copy of the old run directories."""
    return Path(shutil.copytree(OLD_RUNS, tmp_path / "runs"))


# 0.1.0 also had the angle to PCA for models that are not linear, for which it means nothing.
NOT_COMPARED = (*TIMING_METRICS, "test/pca_angle")


def metrics_of(run: Path) -> dict[str, Any]:
    metrics = RunDirectory(run).metrics()
    assert metrics.pop("status") == "finished"
    return {name: value for name, value in metrics.items() if name not in NOT_COMPARED}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_old_run_is_evaluated(name: str, old_runs: Path) -> None:
    before = metrics_of(old_runs / name)
    unevaluated = {"status": "finished", "epochs": 2, "weights": before["weights"]}
    (old_runs / name / "metrics.json").write_text(json.dumps(unevaluated))
    outcome = command(["mode=eval", f"run={name}"], old_runs)
    assert outcome.code == 0, outcome.err
    after = metrics_of(old_runs / name)
    assert after == pytest.approx(before, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sweep/seed=1"])
def test_old_run_is_resumed(name: str, old_runs: Path) -> None:
    outcome = command([f"resume={name}", "epochs=3"], old_runs)
    assert outcome.code == 0, outcome.err
    expected = json.loads((OLD_RUNS / "after_resume.json").read_text())[name]
    assert expected.pop("status") == "finished"
    expected = {name: value for name, value in expected.items() if name not in NOT_COMPARED} | {NLL_CONSTANT: 0.0}
    assert metrics_of(old_runs / name) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    assert [line["epoch"] for line in RunDirectory(old_runs / name).history()] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_old_run_is_loaded(name: str, old_runs: Path) -> None:
    run = aetrain.load(old_runs / name)
    data = build(check(run.config, [])).dataset
    x = data.prepare(data.load().test.pixels, torch.Generator().manual_seed(0))
    sse = (run.reconstruct(x) - x).square().flatten(1).sum(1).mean().item()
    assert sse == pytest.approx(run.metrics["test/sse"], rel=0.05 if data.prepare.random else TOLERANCE)


def test_old_runs_are_reported(old_runs: Path) -> None:
    page, count = write_report(old_runs, old_runs)
    assert count == len(NAMES)
    table = page.with_suffix(".csv").read_text()
    for name in NAMES:
        assert f"{name}," in table
        assert f"{metrics_of(old_runs / name)['test/sse']}" in table


@pytest.mark.slow
def test_old_sweep_continues(old_runs: Path) -> None:
    overrides = (OLD_RUNS / "sweep" / "seed=0" / ".hydra" / "overrides.yaml").read_text()
    words = [line.removeprefix("- ").strip("'") for line in overrides.splitlines()]
    words = [word for word in words if not word.startswith("seed=")]
    # In 0.1.0 `subset` cut the test images, too, and the network had other defaults: without these settings the command
    # is of another config.
    words += ["dataset.test_subset=128", "model.activation=relu", "model.init=default"]
    times = [(old_runs / "sweep" / f"seed={seed}" / "metrics.json").stat().st_mtime_ns for seed in (0, 1)]
    outcome = command(["-m", *words, "seed=0,1,2", "hydra.sweep.dir=sweep"], old_runs)
    assert outcome.code == 0, outcome.err
    assert times == [(old_runs / "sweep" / f"seed={seed}" / "metrics.json").stat().st_mtime_ns for seed in (0, 1)]
    assert metrics_of(old_runs / "sweep" / "seed=2")["epochs"] == 2


def test_change_of_a_saved_config_does_not_reach_the_next_reader() -> None:
    config = saved_config(OLD_RUNS / "deep")
    expected = copy.deepcopy(config)
    config["model"]["hidden"].append(7)
    del config["views"]
    assert saved_config(OLD_RUNS / "deep") == expected


def test_saved_config_has_current_names() -> None:
    config = saved_config(OLD_RUNS / "conv_layers")
    assert config["dataset"]["random_crop"] == 7
    assert "crop" not in config["dataset"]
    assert config["model"]["_target_"] == "aetrain.model.conv_layers.conv_layers"
    assert config["ema"] is None
    assert config["dataset"]["subset"] == config["dataset"]["test_subset"] == 128, "0.1.0 cut the test images, too"
    overrides = RunDirectory(OLD_RUNS / "conv_layers").overrides()
    assert "dataset.random_crop=7" in overrides
    assert saved_config(OLD_RUNS / "deep")["views"]["units"]["norm"] == "data_covariance"
