"""Runs on ratings: exact resume, packs, evaluation, codes, export, and the options of other groups."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_grid import sections, settings_of
from test_grid_of_vectors import IMAGE_MODELS
from test_packed import assert_same_run, make_requests, path, train_individually, train_packed
from test_ratings import write_ratings

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.selfcheck.fingerprint import differences, fingerprint

MODEL = ("model.hidden=[]", "model.code_dim=3", "views=none", "device=cpu", "batch_size=8")
IMPLICIT = ("dataset.implicit=true", "dataset.threshold=2", "dataset.min_ratings=2", "dataset.test_fraction=0.3")


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    """Return the overrides that choose a file with 400 ratings of 30 users and 40 items."""
    return "dataset=ratings", f"dataset.path='{write_ratings(tmp_path)}'"


@pytest.mark.parametrize("settings", [("dataset.rows=items", "dataset.validation=40"), IMPLICIT])
def test_resume_with_more_epochs_equals_a_run_of_as_many(
    settings: tuple[str, ...], data: tuple[str, str], run: Callable[..., Path]
) -> None:
    common = (*data, *settings, *MODEL, "noise=masking")
    whole = run(*common, "epochs=3", name="whole")
    extended = run(*common, "epochs=1", name="extended")
    entry.run(*api.compose_config([f"resume='{extended}'", "epochs=3"]))
    assert not differences(fingerprint(whole), fingerprint(extended))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("dataset.rows=items",), (*IMPLICIT, "likelihood=multinomial", "model=vae")])
def test_packed_runs_equal_individual_runs(settings: tuple[str, ...], data: tuple[str, str], tmp_path: Path) -> None:
    common = [*data, "dataset.subset=null", "dataset.test_subset=null", *settings, "model.hidden=[8]", "noise=masking"]
    each = ["seed=1", "optimizer.lr=1e-2 noise.p=0.5"]
    packed, individual = (make_requests(tmp_path / folder, common, each) for folder in ("packed", "individual"))
    assert train_packed(packed) == [0, 1]
    train_individually(individual)
    for one, other in zip(packed, individual, strict=True):
        assert_same_run(path(one), path(other))


@pytest.mark.slow
def test_a_run_is_evaluated_encoded_and_exported(data: tuple[str, str], run: Callable[..., Path]) -> None:
    directory = run(*data, *MODEL, "epochs=1")
    metrics = read_metrics(directory)
    (Path(data[1].partition("=")[2].strip("'"))).rename(directory / "moved.csv")
    trained = api.load(directory)  # needs no ratings
    assert trained.model.image_shape == (1, 1, 40)
    moved = f"dataset.path='{directory / 'moved.csv'}'"
    for mode in ("eval", "export", "encode"):
        entry.run(*api.compose_config([f"mode={mode}", f"run='{directory}'", moved, "device=cpu"]))
    assert read_metrics(directory) == metrics
    (file,) = directory.rglob("codes.npz")
    with np.load(file) as arrays:
        assert arrays["codes"].shape == (30, 3)
        assert arrays["files"].tolist() == [str(number) for number in range(30)]
    changed = ["mode=eval", f"run='{directory}'", moved, "dataset.split=last", "device=cpu"]
    entry.run(*api.compose_config(changed))
    (other,) = (directory / "eval").glob("*last*")
    assert read_metrics(other)["test/rmse"] != metrics["test/rmse"]


def read_metrics(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "metrics.json").read_text()))


def test_rmse_is_that_of_the_predicted_ratings(data: tuple[str, str], run: Callable[..., Path]) -> None:
    trained = api.load(run(*data, *MODEL, "epochs=1", "dataset.rows=items"))
    dataset = trained.dataset
    test = dataset.load().test
    predicted = trained.reconstruct(test.values.dense().numpy())  # type: ignore[union-attr]
    errors = (predicted - test.targets.dense().numpy()).reshape(-1)  # type: ignore[union-attr]
    errors = errors[~np.isnan(errors)]
    assert len(errors) == 40
    assert trained.metrics["test/rmse"] == pytest.approx(np.square(errors).mean() ** 0.5, rel=1e-5)
    assert trained.metrics["test/mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert trained.metrics["test/bias_rmse"] > 0
    assert trained.metrics["test/mean_rmse"] > 0


def test_implicit_ratings_have_the_likelihood_of_counts_unless_another_is_named(data: tuple[str, str]) -> None:
    def likelihood(*overrides: str) -> str:
        config, *_ = api.compose_config([*data, *overrides])
        return str(config.likelihood._target_.rpartition(".")[2])

    assert likelihood() == "Gaussian"
    assert likelihood("dataset.implicit=true") == "Multinomial"
    assert likelihood("dataset.implicit=true", "likelihood=gaussian") == "Gaussian"


REFUSED = {  # they are of images, or need another model
    *("noise=block", "noise=blur", "penalty=dip", "penalty=mmd", "penalty=tc"),
    *(f"model={model}" for model in IMAGE_MODELS),
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("dataset.rows=users",), IMPLICIT])
def test_options_of_other_groups_train_on_ratings(settings: tuple[str, ...], data: tuple[str, str]) -> None:
    """Every noise, sparsity, optimizer, penalty and dense model takes steps, or is refused with one message."""
    refused = REFUSED | ({"noise=poisson"} if settings != IMPLICIT else set())
    base = settings_of([*data, *settings, "dataset.subset=20"])
    for group in ("noise", "sparsity", "optimizer", "penalty", "model"):
        for option, section in sections(group).items():
            changes: dict[str, Any] = {group: section}
            own = replace(base, **changes)
            if f"{group}={option}" in refused:
                with pytest.raises(ConfigError):
                    build(own)
                continue
            components = build(own)
            x = components.dataset.prepare(components.dataset.load().train.values)
            losses = [loss.detach() for _ in range(2) for loss in components.optimizer_steps[0](x).values()]
            assert all(loss.isfinite() for loss in losses), (group, option)
