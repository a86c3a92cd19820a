"""Fixtures that tests share: run an experiment in this process, and the folder of the real data."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from aetrain import api
from aetrain.model.networks import Decoder, Encoder
from aetrain.runs import entry
from aetrain.utils.cores import usable_cores
from aetrain.views.page import Page
from aetrain.views.render import encode_png

ROOT = Path(__file__).resolve().parent.parent

# Small enough that a run takes a few hundredths of a second.
TINY = (
    *("dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "epochs=1", "batch_size=32"),
    *("views=none", "device=cpu"),
)

MAX_WORKERS = 8  # processes of pytest-xdist; each takes about 1 GB

# Files with tests of ten seconds and more, the longest first.
LONG_FILES = (
    *("test_real_data.py", "test_speed.py", "test_sklearn.py", "test_sweeps.py", "test_resume.py", "test_mutations.py"),
    *("test_plugin.py", "test_grid.py", "test_contracts.py", "test_readme.py", "test_fuzz.py", "test_sources.py"),
    *("test_trust.py", "test_grid_of_vectors.py", "test_distributed.py"),
)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `-n auto`: one for each core that may be used."""
    return min(usable_cores().number, MAX_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long files first: the last tests of parallel processes are short, so that these end together."""
    position = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: position.get(item.path.name, len(position)))


@pytest.fixture(autouse=True, scope="session")
def _key_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sign the runs of the tests with a key of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AETRAIN_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Leave out fsync, which takes half the time of a short run: no power fails in the tests of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _one_thread_and_no_hydra_instance() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs overrides in this process and returns the directory of the run."""

    def run(*overrides: str, name: str = "run") -> Path:
        run_dir = f"hydra.run.dir='{tmp_path / name}'"
        config, directory, full_overrides = api.compose_config([run_dir, *overrides])
        entry.run(config, directory, full_overrides)
        return directory

    return run


@pytest.fixture
def tiny(run: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function like `run`, on a few of the embedded digits for one epoch."""

    def tiny(*overrides: str, name: str = "run") -> Path:
        return run(*TINY, *overrides, name=name)

    return tiny


@pytest.fixture
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay figures out, but write their pictures alone as PNG files, which takes a tenth of the time."""

    def encode_picture(page: Page) -> bytes:
        pictures = [axes.images[0].get_array() for axes in page.figure.axes if axes.images]
        pixels = torch.as_tensor(np.asarray(pictures[0])).permute(2, 0, 1) if pictures else torch.ones(1, 1, 1)
        return encode_png(pixels)

    monkeypatch.setattr(Page, "encode_png", encode_picture)


def layers_of(half: Encoder | Decoder) -> list[Any]:
    """Return the layers with weights of an encoder or a decoder: linear, convolutional or recurrent ones."""
    return [*cast(Any, half).layers]


# A file in the folder of links: it tells a process that a test starts that the folder is already such a copy.
LINKS_MARKER = "links-of-a-test-run"


def linked_archives() -> Path | None:
    """Return a folder of this test run with links to the real archives; None where there are no archives.

    The archives are looked for in AETRAIN_DATA, then in ../shared/data. Tests write their caches beside the links,
    never into the folder of the archives.
    """
    for candidate in (os.environ.get("AETRAIN_DATA"), ROOT.parent / "shared" / "data"):
        if not candidate or not (Path(candidate) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file():
            continue
        if (Path(candidate) / LINKS_MARKER).is_file():
            return Path(candidate)
        return link_archives(Path(candidate).resolve())
    return None


def link_archives(source: Path) -> Path:
    """Return a new temporary folder with links to the archives below `source`; it is removed when Python exits."""
    folder = Path(tempfile.mkdtemp(prefix="aetrain-archives-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / LINKS_MARKER).touch()
    patterns = ("*/raw/*.gz", "ratings/*/*.gz", "text/*.gz", "tables/*.gz", "images/*.npz")
    for file in (file for pattern in patterns for file in source.glob(pattern)):
        link = folder / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return folder


if ARCHIVES := linked_archives():
    os.environ["AETRAIN_DATA"] = str(ARCHIVES)  # also for every process that a test starts


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return a data folder with the real archives; skip the test where there are none."""
    if ARCHIVES is None:
        pytest.skip("no MNIST archives in AETRAIN_DATA or ../shared/data")
    return ARCHIVES
