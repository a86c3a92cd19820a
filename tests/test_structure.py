"""The house rules: dependencies point one way, configs are known to four rooms only, help costs no torch."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "aetrain"

# Each room may import what stands before it.
ORDER = [
    "aetrain.model.records",
    "aetrain.model.layers",
    "aetrain.model.likelihoods",
    "aetrain.model.bottlenecks",
    "aetrain.model",
    "aetrain.data",
    "aetrain.objective",
    "aetrain.training",
    "aetrain.evaluation",
    "aetrain.views",
    "aetrain.config",
    "aetrain.runs.process",
    "aetrain.storage.run_directory",
    "aetrain.report",
    "aetrain.runs.build",
    "aetrain.runs.training_run",
    "aetrain.runs.train",
    "aetrain.api",
    "aetrain.modes",
    "aetrain.selfcheck",
    "aetrain.sweeps.launch",
    "aetrain.sweeps.packed.packed_training",
    "aetrain.cli",
    "aetrain.__main__",
]

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """What a file imports when it is imported; imports inside functions are somebody's choice of when."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module}
    return found


def rank(module: str) -> int:
    matches = [i for i, room in enumerate(ORDER) if module == room or module.startswith(room + ".")]
    return matches[0] if matches else -1


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_dependencies_point_one_way(file: Path) -> None:
    own = module_of(file)
    above = {name for name in imports(file) if name.startswith("aetrain") and rank(name) > rank(own)}
    assert not above, f"{own} imports {above}, which stand after it"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_only_some_rooms_know_hydra(file: Path) -> None:
    own = module_of(file)
    rooms = (
        "aetrain.config",
        "aetrain.runs.process",
        "aetrain.storage.run_directory",
        "aetrain.runs.build",
        "aetrain.runs.training_run",
        "aetrain.runs.train",
        "aetrain.api",
        "aetrain.modes",
        "aetrain.selfcheck",
        "aetrain.sweeps.launch",
        "aetrain.sweeps.packed.packed_training",
        "aetrain.cli",
    )
    if not own.startswith(rooms):
        assert not {name for name in imports(file) if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_files_stay_small_enough_to_hold_in_the_head(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350
