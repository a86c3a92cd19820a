"""The self-checks: that they can fail."""

import pytest
import torch
from torch import Tensor

from aetrain.selfcheck import known_answers
from aetrain.selfcheck.expect import Skipped, Wrong


def test_devices_that_agree_pass() -> None:
    assert "known" in known_answers.agree("cpu", "cpu")


@pytest.mark.parametrize("slip", [1.01, -1.0])
def test_devices_that_do_not_agree_are_found(slip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    digits = known_answers.digits

    def otherwise(count: int, device: str = "cpu") -> Tensor:
        seen.append(digits(count, device))
        return seen[-1] if len(seen) == 1 else seen[-1] * slip

    monkeypatch.setattr(known_answers, "digits", otherwise)
    with pytest.raises(Wrong):
        known_answers.agree("cpu", "cpu")


@pytest.mark.parametrize("check", [known_answers.gpu_and_cpu_agree, known_answers.resume_is_exact_on_gpu])
def test_without_a_gpu_its_checks_are_skipped(
    check: known_answers.Check, tmp_path: known_answers.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skipped, match="no CUDA device"):
        check(known_answers.Place(tmp_path, "data"))
