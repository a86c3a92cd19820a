"""docs/training.md is correct: its commands run, and its pictures exist."""

import re
import shutil
from pathlib import Path

import pytest
from command import command
from conftest import ROOT, TINY
from test_course import shell_lines

import aetrain

DOCS = ROOT / "docs"
PAGE = (DOCS / "training.md").read_text()
COMMANDS = shell_lines(PAGE)
QUICK = ("dataset.subset=64", "dataset.test_subset=64", "views=none", "device=cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the run that commands continue, and return its directory."""
    directory = tmp_path_factory.mktemp("training") / "RUN"
    aetrain.run([*TINY, "model=vae", "dataset.validation=64", f"hydra.run.dir={directory}"])
    return directory


@pytest.mark.parametrize("line", COMMANDS)
def test_command_runs(line: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "RUN")
    program, *words = line.split()
    assert program == "aetrain"
    own = [] if any(word.startswith(("resume=", "start=")) for word in words) else QUICK
    outcome = command([*words, *own], tmp_path)
    assert outcome.code == 0, outcome.err


def test_pictures_and_links_exist() -> None:
    for target in re.findall(r"\]\(([^):]+)\)", PAGE):
        assert (DOCS / target).is_file(), target
