"""Errors per entry: the perplexity of counted items under reconstructions that are no probabilities."""

import math

import pytest
import torch
from torch import Tensor

from aetrain.evaluation.entry_errors import EntryErrors
from aetrain.model.codes import Code
from aetrain.model.records import Forward


def perplexity(counts: list[list[float]], expected: list[list[float]]) -> float:
    """Return the perplexity of counts [B, D] under expected counts [B, D]."""
    x, reconstructed = (torch.tensor(values)[:, None, None] for values in (counts, expected))
    errors = EntryErrors("counts")
    errors.update(reconstructed, Forward(x=x, x_in=x, hidden=(), code=Code(z=Tensor()), decoded=reconstructed))
    return errors.metrics()["token_perplexity"]


def test_expected_counts_below_zero_are_zero() -> None:
    """Their sum may be near 0 or below, which would make other probabilities larger than 1."""
    assert perplexity([[3.0, 0.0, 0.0]], [[2.0, -1.9, 0.0]]) == pytest.approx(1.0)
    assert perplexity([[1.0, 1.0, 0.0]], [[3.0, 1.0, -8.0]]) == pytest.approx(math.exp(-math.log(3 / 16) / 2))


def test_a_reconstruction_of_zeros_tells_nothing_about_the_items() -> None:
    assert perplexity([[2.0, 0.0, 1.0, 1.0]], [[0.0, -1.0, 0.0, -2.0]]) == pytest.approx(4.0)
    with_empty = perplexity([[1.0, 1.0], [0.0, 0.0]], [[1.0, 3.0], [0.0, 0.0]])
    assert with_empty == pytest.approx(perplexity([[1.0, 1.0]], [[1.0, 3.0]])), "no item, no share"


def test_a_reconstruction_that_is_not_finite_has_no_perplexity() -> None:
    assert math.isnan(perplexity([[1.0, 1.0]], [[torch.nan, 1.0]]))
