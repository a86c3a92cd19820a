"""Files of a run that are cut off or lost: the same command comes to the same, whichever file it is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command
from conftest import TINY

from aetrain import api
from aetrain.selfcheck.fingerprint import differences, fingerprint

DRAWN = (*TINY, "model=linear", "views=default", "~views.code", "~views.reconstructions", "epochs=3")


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def fine(arguments: list[str], folder: Path) -> str:
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, and the same of four."""
    place = tmp_path_factory.mktemp("damage")
    for epochs in (3, 4):
        fine([*DRAWN, f"epochs={epochs}", f"hydra.run.dir=of{epochs}"], place)
    return place


# Every file of a run's directory, but for what is written in turn with another: those of the older checkpoint, which
# is not looked at, and the weights of either, of which the tests of checkpoints tell more.
FILES = [
    *(".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/lock", "aetrain.log", "history.jsonl", "events*"),
    *("checkpoint/model.safetensors", "checkpoint/training.pt", "checkpoint/journal.jsonl", "checkpoint/state.json"),
    *("checkpoint.pictures/0", "checkpoint.pictures/3", "figures/decoder_units.png"),
]


def damaged(place: Path, folder: Path, pattern: str, harm: Callable[[Path], None]) -> Path:
    """A copy of the run of three epochs that was killed before it had written its figures, with harm done to a file."""
    run = Path(shutil.copytree(place / "of3", folder / "run"))
    (run / "metrics.json").unlink()
    (file,) = run.glob(pattern)
    harm(file)
    return run


@pytest.mark.parametrize("pattern", FILES)
def test_file_that_is_lost_at_the_end_costs_nothing(pattern: str, place: Path, tmp_path: Path) -> None:
    run = damaged(place, tmp_path, pattern, Path.unlink)
    fine([*DRAWN, "hydra.run.dir=run"], tmp_path)
    assert not differences(fingerprint(place / "of3"), fingerprint(run))


@pytest.mark.parametrize("pattern", FILES)
def test_file_that_is_cut_off_in_the_midst_costs_nothing(pattern: str, place: Path, tmp_path: Path) -> None:
    run = damaged(place, tmp_path, pattern, half)
    fine(["resume=run", "epochs=4"], tmp_path)
    assert not differences(fingerprint(place / "of4"), fingerprint(run))


def test_config_is_that_of_the_checkpoint_where_it_was_cut_off(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where what is left of it is a config: its last settings would be those that nobody said anything of."""
    run = Path(shutil.copytree(place / "of4", tmp_path / "run"))
    file = run / ".hydra" / "config.yaml"
    text = file.read_text().replace("seed: 0", "seed: 7")
    for cut in (text[: text.index("epochs:")], text[: text.index("noise:")], "model: [", ""):
        file.write_text(cut)
        caplog.clear()
        fine(["mode=eval", "run=run"], tmp_path)
        assert "going by the copy in the checkpoint" in caplog.text
        assert api.load(run).config.seed == 0
    file.unlink()
    assert "nothing to do" in fine(["resume=run"], tmp_path)


def test_config_that_was_edited_is_taken_as_it_is(place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(place / "of4", tmp_path / "run"))
    file = run / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("batch_size: 32", "batch_size: 64"))
    assert api.load(run).config.batch_size == 64
