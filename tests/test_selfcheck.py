"""The checks of the package by the package itself: a wrong result fails them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aetrain.selfcheck import known_answers
from aetrain.selfcheck.expect import CheckFailed, CheckSkipped


def test_equal_devices_pass() -> None:
    assert "known" in known_answers.compare_devices("cpu", "cpu")


@pytest.mark.parametrize("factor", [1.01, -1.0])
def test_different_devices_fail(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Tensor] = []
    digits = known_answers.digits

    def scale_second_batch(count: int, device: str = "cpu") -> Tensor:
        batches.append(digits(count, device))
        return batches[-1] if len(batches) == 1 else batches[-1] * factor

    monkeypatch.setattr(known_answers, "digits", scale_second_batch)
    with pytest.raises(CheckFailed):
        known_answers.compare_devices("cpu", "cpu")


@pytest.mark.parametrize("check", [known_answers.gpu_and_cpu_agree, known_answers.resume_is_exact_on_gpu])
def test_without_a_gpu_its_checks_are_skipped(
    check: known_answers.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CheckSkipped, match="no CUDA device"):
        check(known_answers.CheckContext(tmp_path, "data"))
