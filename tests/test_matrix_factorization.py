"""Matrix factorisation of ratings, a second way, and its measure."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_ratings import write_ratings

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.evaluation.matrix_factorization import Entries, MatrixFactorization
from aetrain.runs import entry

SMALL = ("model.hidden=[]", "model.code_dim=3", "epochs=1", "views=none", "device=cpu", "batch_size=8")


def low_rank(count: int, rows: int = 30, columns: int = 40, k: int = 2) -> Entries:
    """Return entries of a matrix of rank k, without noise."""
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(size, k, generator=generator, dtype=torch.float64) for size in (rows, columns))
    places = torch.randperm(rows * columns, generator=generator)[:count]
    row, column = places // columns, places % columns
    return Entries(row, column, (u @ v.t())[row, column])


def test_factors_are_a_minimum_of_the_objective() -> None:
    entries, l2 = low_rank(500), 0.1
    fitted = MatrixFactorization.fit(entries, (30, 40), 2, l2)
    rows, columns = fitted.rows.clone().requires_grad_(), fitted.columns.clone().requires_grad_()
    errors = (rows[entries.rows] * columns[entries.columns]).sum(1) - entries.values
    penalty = rows[entries.rows].square().sum() + columns[entries.columns].square().sum()
    objective = errors.square().sum() + l2 * penalty
    by_rows, by_columns = torch.autograd.grad(objective, (rows, columns))
    assert by_columns.abs().max() < 1e-8, "columns are solved last"
    assert by_rows.abs().max() < 0.05 * objective


def test_entries_that_were_left_out_of_a_low_rank_matrix_are_predicted() -> None:
    entries = low_rank(900)
    fitted = MatrixFactorization.fit(entries[torch.arange(700)], (30, 40), 2, 1e-4)
    held_out = entries[torch.arange(700, 900)]
    assert fitted.rmse(held_out) < 0.05 * float(held_out.values.square().mean().sqrt())


def test_rows_without_entries_predict_zero() -> None:
    fitted = MatrixFactorization.fit(low_rank(100), (31, 41), 2, 0.1)
    assert float(fitted.rows[30].abs().max()) == float(fitted.columns[40].abs().max()) == 0.0


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    """Return the overrides that choose a file with 400 ratings of 30 users and 40 items."""
    return "dataset=ratings", f"dataset.path='{write_ratings(tmp_path)}'"


@pytest.mark.parametrize("rows", ["users", "items"])
def test_measure_is_that_of_the_held_out_ratings(rows: str, data: tuple[str, str], run: Callable[..., Path]) -> None:
    """With a penalty so large that all factors are 0, the error is that of the offsets."""
    measure = ("measures=factorization", "measures.factorization.factors=[2]", "measures.factorization.l2=[1e9]")
    metrics = json.loads((run(*data, f"dataset.rows={rows}", *SMALL, *measure) / "metrics.json").read_text())
    assert metrics["test/rmse_factorization"] == pytest.approx(metrics["test/bias_rmse"], rel=1e-5)
    assert (metrics["test/factorization_factors"], metrics["test/factorization_l2"]) == (2, 1e9)


def test_measure_is_refused_for_other_examples() -> None:
    with pytest.raises(ConfigError, match="this measure needs ratings"):
        entry.run(*api.compose_config(["dataset=digits", "measures=factorization", *SMALL[2:]]))
