"""Some of the broken inputs of benchmarks/reliability.py: each works, or gives one clear message."""

from pathlib import Path

import pytest
from mutations import KINDS, materials, tried


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    materials(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_works_or_gives_one_message(kind: str, originals: Path, tmp_path: Path) -> None:
    assert not [problem for seed in range(12) if (problem := tried(kind, originals, tmp_path / "broken", seed))]
