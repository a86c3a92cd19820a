"""What tests share: composing a config, running an experiment in this process, and where the real data is."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from aetrain import experiment, library

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
        config, where, said = library.composed([f"hydra.run.dir='{directory}'", *overrides])
        experiment.run(config, where, said)
        return where

    return run


@pytest.fixture
def tiny(run: Callable[..., Path]) -> Callable[..., Path]:
    """Like `run`, on a few of the embedded digits for one epoch."""

    def tiny(*overrides: str, name: str = "run") -> Path:
        return run(*TINY, *overrides, name=name)

    return tiny


def archives() -> Path | None:
    """The folder of the real archives: AETRAIN_DATA, else ../shared/data, else none."""
    for folder in (os.environ.get("AETRAIN_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file():
            return Path(folder).resolve()
    return None


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real archives in it, as links; tests that need it are skipped where there are none."""
    found = archives()
    if found is None:
        pytest.skip("no MNIST archives in AETRAIN_DATA or ../shared/data")
    # One folder for all workers of a test run, so that the archives are unpacked once.
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "real-data"
    for file in found.glob("*/raw/*.gz"):
        link = folder / file.relative_to(found)
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(file)
    return folder
