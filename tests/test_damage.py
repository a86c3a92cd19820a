"""Files of a run that are cut off or lost: whichever file it is, the same command gives the same run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command
from conftest import TINY

from aetrain import api
from aetrain.selfcheck.fingerprint import differences, fingerprint

WITH_PICTURES = (*TINY, "model=linear", "views=default", "~views.code", "~views.reconstructions", "epochs=3")


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def run_command(arguments: list[str], folder: Path) -> str:
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of three epochs and the same run of four."""
    folder = tmp_path_factory.mktemp("damage")
    for epochs in (3, 4):
        run_command([*WITH_PICTURES, f"epochs={epochs}", f"hydra.run.dir=epochs{epochs}"], folder)
    return folder


# Every file of a run's directory except the previous checkpoint, which is not read.
FAST_FILES = (".hydra/config.yaml", "events*", "checkpoint/model.safetensors", "checkpoint/state.json")
SLOW_FILES = (
    *(".hydra/overrides.yaml", ".hydra/lock", "aetrain.log", "history.jsonl", "findings.json"),
    *("checkpoint/training.pt", "checkpoint/journal.jsonl", "checkpoint.pictures/0", "checkpoint.pictures/3"),
    "figures/decoder_units.png",
)
FILES = [*FAST_FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FILES)]


def damaged_copy(originals: Path, folder: Path, pattern: str, damage: Callable[[Path], None]) -> Path:
    """Copy the run of three epochs as if killed before it wrote its metrics, and damage one of its files."""
    run = Path(shutil.copytree(originals / "epochs3", folder / "run"))
    (run / "metrics.json").unlink()
    (file,) = run.glob(pattern)
    damage(file)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("pattern", FILES)
def test_run_with_a_lost_file_ends_exactly_as_without(pattern: str, originals: Path, tmp_path: Path) -> None:
    run = damaged_copy(originals, tmp_path, pattern, Path.unlink)
    run_command([*WITH_PICTURES, "hydra.run.dir=run"], tmp_path)
    assert not differences(fingerprint(originals / "epochs3"), fingerprint(run))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", FILES)
def test_run_with_a_file_that_is_cut_off_resumes_exactly(pattern: str, originals: Path, tmp_path: Path) -> None:
    run = damaged_copy(originals, tmp_path, pattern, cut_in_half)
    run_command(["resume=run", "epochs=4"], tmp_path)
    assert not differences(fingerprint(originals / "epochs4"), fingerprint(run))


@pytest.mark.slow
def test_config_that_is_cut_off_is_read_from_the_checkpoint(
    originals: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the rest of it is a valid config, in which the last settings would be missing."""
    run = Path(shutil.copytree(originals / "epochs4", tmp_path / "run"))
    file = run / ".hydra" / "config.yaml"
    text = file.read_text().replace("seed: 0", "seed: 7")
    for remainder in (text[: text.index("epochs:")], text[: text.index("noise:")], "model: [", ""):
        file.write_text(remainder)
        caplog.clear()
        run_command(["mode=eval", "run=run"], tmp_path)
        assert "using the copy in the checkpoint" in caplog.text
        assert api.load(run).config.seed == 0
    file.unlink()
    assert "nothing to do" in run_command(["resume=run"], tmp_path)


def test_config_that_was_edited_is_used(originals: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(originals / "epochs4", tmp_path / "run"))
    file = run / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("batch_size: 32", "batch_size: 64"))
    assert api.load(run).config.batch_size == 64
