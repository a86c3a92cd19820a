"""What tests share: composing a config, running an experiment in this process, and where the real data is."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from aetrain import api
from aetrain.runs import train

ROOT = Path(__file__).resolve().parent.parent

# Small enough that a run takes a few hundredths of a second.
TINY = ("dataset=digits", "dataset.subset=64", "epochs=1", "batch_size=32", "views=none", "device=cpu")


@pytest.fixture(autouse=True)
def _one_thread_and_no_hydra_left() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Runs overrides in this process and returns the run's directory."""

    def run(*overrides: str, name: str = "run") -> Path:
        directory = tmp_path / name
        config, where, said = api.composed([f"hydra.run.dir='{directory}'", *overrides])
        train.run(config, where, said)
        return where

    return run


@pytest.fixture
def tiny(run: Callable[..., Path]) -> Callable[..., Path]:
    """Like `run`, on a few of the embedded digits for one epoch."""

    def tiny(*overrides: str, name: str = "run") -> Path:
        return run(*TINY, *overrides, name=name)

    return tiny


def linked_archives() -> Path | None:
    """A folder of this test run's own with links to the real archives; None where there are none.

    They are looked for in AETRAIN_DATA, then in ../shared/data. What tests read is cached beside the links, never
    where the archives are.
    """
    for place in (os.environ.get("AETRAIN_DATA"), ROOT.parent / "shared" / "data"):
        if not place or not (Path(place) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file():
            continue
        if (Path(place) / MINE).is_file():  # made by the process that has started this one
            return Path(place)
        folder = Path(tempfile.mkdtemp(prefix="aetrain-archives-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / MINE).touch()
        for file in Path(place).resolve().glob("*/raw/*.gz"):
            link = folder / file.relative_to(Path(place).resolve())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        return folder
    return None


MINE = "links-of-a-test-run"
if ARCHIVES := linked_archives():
    os.environ["AETRAIN_DATA"] = str(ARCHIVES)  # of every process that a test starts, too


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A data folder with the real archives in it; tests that need it are skipped where there are none."""
    if ARCHIVES is None:
        pytest.skip("no MNIST archives in AETRAIN_DATA or ../shared/data")
    return ARCHIVES
