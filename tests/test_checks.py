"""The self-checks: that they can fail."""

import pytest
import torch
from torch import Tensor

from aetrain.checks import answers
from aetrain.checks.expect import Skipped, Wrong


def test_devices_that_agree_pass() -> None:
    assert "known" in answers.agree("cpu", "cpu")


@pytest.mark.parametrize("slip", [1.01, -1.0])
def test_devices_that_do_not_agree_are_found(slip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    digits = answers.digits

    def otherwise(count: int, device: str = "cpu") -> Tensor:
        seen.append(digits(count, device))
        return seen[-1] if len(seen) == 1 else seen[-1] * slip

    monkeypatch.setattr(answers, "digits", otherwise)
    with pytest.raises(Wrong):
        answers.agree("cpu", "cpu")


@pytest.mark.parametrize("check", [answers.gpu_and_cpu_agree, answers.resume_is_exact_on_gpu])
def test_without_a_gpu_its_checks_are_skipped(
    check: answers.Check, tmp_path: answers.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skipped, match="no CUDA device"):
        check(answers.Place(tmp_path, "data"))
