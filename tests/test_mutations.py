"""A few of the broken inputs of benchmarks/reliability.py: each works, or gets one clear message."""

from pathlib import Path

import pytest
from mutations import KINDS, materials, tried


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    materials(place)
    return place


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_is_answered_cleanly(kind: str, whole: Path, tmp_path: Path) -> None:
    assert not [problem for seed in range(12) if (problem := tried(kind, whole, tmp_path / "place", seed))]
