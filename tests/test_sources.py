"""Sources of images: the published archives, scikit-learn's digits, files of the user."""

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.torch import load_file, save_file

from aetrain.data import published_dataset
from aetrain.data.dataset import Dataset
from aetrain.data.digits import Digits
from aetrain.data.folder import Folder
from aetrain.data.image_dataset import ImageDataset
from aetrain.data.mnist import SHAPES, Archives, FashionMnist, Mnist
from aetrain.data.npz import Npz
from aetrain.data.published_dataset import CACHE

ROOT = Path(__file__).parents[1]
FILES = [f"{name}.gz" for name in SHAPES]
NOWHERE = "http://127.0.0.1:9/"


# --- The archives -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def originals() -> Path:
    """Return the folder with the real archives of both data sets; tests never write to it."""
    folders = [Path(os.environ["AETRAIN_DATA"])] if os.environ.get("AETRAIN_DATA") else []
    for folder in [*folders, ROOT.parent / "shared" / "data"]:
        if all((folder / name / "raw" / file).is_file() for name in ("MNIST", "FashionMNIST") for file in FILES):
            return folder
    pytest.skip("the MNIST and Fashion-MNIST archives are neither in AETRAIN_DATA nor in ../shared/data")


def link_archives(originals: Path, data: Path, name: str = "MNIST") -> Path:
    """Link the real archives into a data folder; return its raw folder."""
    raw = data / name / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).symlink_to(originals / name / "raw" / file)
    return raw


def write_damaged_copy(original: Path, copy: Path, damage: str) -> None:
    """Replace a link to a file by a damaged copy of the file."""
    content = bytearray(original.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    copy.unlink(missing_ok=True)
    copy.write_bytes(content)


def leftovers(data: Path) -> list[str]:
    """Return the relative paths in a data folder that belong to no archive and no cache."""
    paths = [path.relative_to(data).as_posix() for path in data.rglob("*")]
    return [path for path in paths if not path.endswith((*SHAPES, *FILES, CACHE, "MNIST", "raw"))]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NOWHERE])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [NOWHERE])
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_mirrors(*mirrors: str) -> None:
        import torchvision.datasets

        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", list(mirrors))

    return set_mirrors


@contextmanager
def serving(folder: Path, alter: Callable[[bytes], bytes] = bytes) -> Iterator[tuple[str, list[str]]]:
    """Run a local web server; yield its address and the list of paths that were downloaded from it."""
    downloads: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            content = (folder / self.path.lstrip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))  # of the whole file, also where `alter` shortens it
            self.end_headers()
            if self.headers["Method"] != "HEAD":  # torchvision's request for redirections only
                downloads.append(self.path.lstrip("/"))
                self.wfile.write(alter(content))

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", downloads
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def read_archives(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder in which both data sets have been read once; tests must not change it."""
    data = tmp_path_factory.mktemp("read")
    for source in (Mnist, FashionMnist):
        link_archives(originals, data, source.name)
        source(path=str(data)).read()
    return data


@pytest.mark.data
@pytest.mark.parametrize(("source", "mean", "labels"), [(Mnist, 0.1307, [5, 0, 4]), (FashionMnist, 0.2860, [9, 0, 0])])
def test_archives_have_the_published_means_and_labels(
    read_archives: Path, source: type[Archives], mean: float, labels: list[int]
) -> None:
    dataset = source(path=str(read_archives))
    train, test = dataset.read()
    assert dataset.stored_shape == dataset.image_shape == (1, 28, 28)
    assert train.pixels.shape == (60000, 1, 28, 28)
    assert test.pixels.shape == (10000, 1, 28, 28)
    assert train.pixels.dtype == test.pixels.dtype == torch.uint8
    assert train.pixels.double().mean().item() / 255 == pytest.approx(mean, abs=5e-5)
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels[:3].tolist() == labels
    assert train.labels.dtype == torch.int64
    assert test.labels.bincount().tolist() == ([1000] * 10 if source is FashionMnist else MNIST_TEST_CLASSES)


MNIST_TEST_CLASSES = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # LeCun et al. 1998


@pytest.mark.data
def test_images_equal_those_of_torchvision(read_archives: Path, originals: Path, tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    link_archives(originals, tmp_path, "FashionMNIST")
    reference = FashionMNIST(str(tmp_path), train=False, download=True)  # unpacks the archives
    _, test = FashionMnist(path=str(read_archives)).read()
    assert test.labels is not None
    assert torch.equal(test.pixels[:, 0], reference.data)
    assert torch.equal(test.labels, reference.targets)


@pytest.mark.data
def test_unpacked_files_are_read(originals: Path, read_archives: Path, tmp_path: Path, offline: None) -> None:
    import gzip

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in SHAPES:
        (raw / name).write_bytes(gzip.decompress((originals / "MNIST" / "raw" / f"{name}.gz").read_bytes()))
    train, _ = Mnist(path=str(tmp_path)).read()
    assert torch.equal(train.pixels, Mnist(path=str(read_archives)).read()[0].pixels)

    labels = raw / "t10k-labels-idx1-ubyte"
    good = labels.read_bytes()
    for bad, complaint in ((good[:-1], "does not hold 10000 bytes"), (good[:-1] + b"\x0a", "labels above 9")):
        labels.write_bytes(bad)
        with pytest.raises(ValueError, match=f"t10k-labels-idx1-ubyte is damaged .*{complaint}.*delete it"):
            Mnist(path=str(tmp_path)).read()


@pytest.mark.data
def test_cached_archives_load_fast_and_without_heavy_imports(read_archives: Path) -> None:
    script = f"""
import sys
import aetrain.data.digits, aetrain.data.folder, aetrain.data.mnist, aetrain.data.npz
assert not {{"torchvision", "sklearn", "PIL"}} & set(sys.modules), "imported before it is needed"
for source in (aetrain.data.mnist.Mnist, aetrain.data.mnist.FashionMnist):
    assert len(source(path={str(read_archives)!r}).read()[0]) == 60000
assert not {{"torchvision", "sklearn", "PIL"}} & set(sys.modules), "imported although the cache is read"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)

    def seconds() -> float:
        start = time.perf_counter()
        Mnist(path=str(read_archives)).read()
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.2  # 0.02 on a quiet machine


@pytest.mark.data
def test_images_do_not_depend_on_the_cache_file_once_read(originals: Path, tmp_path: Path) -> None:
    link_archives(originals, tmp_path)
    Mnist(path=str(tmp_path)).read()
    train, _ = Mnist(path=str(tmp_path)).read()
    before = train.pixels.sum()
    with open(tmp_path / "MNIST" / CACHE, "r+b") as cache:
        cache.truncate(100)
    assert train.pixels.sum() == before


@pytest.mark.data
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "shapes", "dtype", "labels", "names", "a folder"])
def test_broken_cache_is_rebuilt(read_archives: Path, originals: Path, tmp_path: Path, damage: str) -> None:
    link_archives(originals, tmp_path)
    stamps = json.dumps(Mnist(path=str(tmp_path)).file_stamps())
    good, cache = read_archives / "MNIST" / CACHE, tmp_path / "MNIST" / CACHE
    tensors = load_file(good)
    match damage:
        case "truncated":
            write_damaged_copy(good, cache, "truncated")
        case "empty":
            cache.touch()
        case "garbage":
            cache.write_bytes(b"garbage" * 100)
        case "shapes":
            tensors["t10k-images-idx3-ubyte"] = torch.zeros(10000, 27, 28, dtype=torch.uint8)
        case "dtype":
            tensors["t10k-labels-idx1-ubyte"] = torch.zeros(10000)
        case "labels":
            tensors["t10k-labels-idx1-ubyte"] = torch.full((10000,), 77, dtype=torch.uint8)
        case "names":
            tensors["pixels"] = tensors.pop("train-images-idx3-ubyte")
        case "a folder":
            cache.mkdir()
    if not cache.exists():
        save_file(tensors, cache, metadata={"read_from": stamps})
    _, test = Mnist(path=str(tmp_path)).read()
    assert test.labels is not None
    assert test.labels.bincount().tolist() == MNIST_TEST_CLASSES
    if damage != "a folder":
        assert Mnist(path=str(tmp_path)).read_cache() is not None
    assert leftovers(tmp_path) == []


@pytest.mark.data
@pytest.mark.parametrize("damage", ["truncated", "altered"])
@pytest.mark.parametrize("cached", [True, False])
def test_damaged_archive_is_detected_and_downloaded_again(
    originals: Path, read_archives: Path, tmp_path: Path, online: Callable[..., None], damage: str, cached: bool
) -> None:
    """It is detected also where there is a cache; without a network one message names the fix."""
    raw = link_archives(originals, tmp_path)
    if cached:
        shutil.copy(read_archives / "MNIST" / CACHE, raw.parent)
        assert Mnist(path=str(tmp_path)).read_cache() is not None  # the links lead to the same files
    file = "t10k-labels-idx1-ubyte.gz"
    write_damaged_copy(originals / "MNIST" / "raw" / file, raw / file, damage)

    online(NOWHERE)
    with pytest.raises(ValueError, match=r"is damaged \(its MD5 sum .*could not be downloaded .*delete it") as error:
        Mnist(path=str(tmp_path)).read()
    assert str(raw / file) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert leftovers(tmp_path) == []

    with serving(originals / "MNIST" / "raw") as (address, downloads):
        online(address)
        _, test = Mnist(path=str(tmp_path)).read()
    assert downloads == [file]
    assert test.labels is not None
    assert test.labels.bincount().tolist() == MNIST_TEST_CLASSES
    assert (raw / file).read_bytes() == (originals / "MNIST" / "raw" / file).read_bytes()


@pytest.mark.data
def test_deleted_archives_leave_the_cache_valid(read_archives: Path, tmp_path: Path, offline: None) -> None:
    (tmp_path / "MNIST").mkdir()
    shutil.copy(read_archives / "MNIST" / CACHE, tmp_path / "MNIST")
    assert len(Mnist(path=str(tmp_path)).read()[0]) == 60000


@pytest.mark.data
def test_only_the_missing_archive_is_named_and_downloaded(
    originals: Path, tmp_path: Path, online: Callable[..., None]
) -> None:
    raw = link_archives(originals, tmp_path)
    (raw / FILES[2]).unlink()
    online(NOWHERE)
    with pytest.raises(ValueError, match="MNIST is not in") as error:
        Mnist(path=str(tmp_path)).read()
    assert [file in str(error.value) for file in FILES] == [False, False, True, False]

    with serving(originals / "MNIST" / "raw") as (address, downloads):
        online(address)
        Mnist(path=str(tmp_path)).read()
    assert downloads == [FILES[2]]


def test_missing_archives_without_a_network_give_one_message(tmp_path: Path, offline: None) -> None:
    data = tmp_path / "a" / "b"
    for source in (Mnist, FashionMnist):
        with pytest.raises(
            ValueError, match=f"path='{data}': {source.name} is not in {data}/{source.name}/raw"
        ) as error:
            source(path=str(data)).read()
        for needed in (*FILES, "dataset=digits", "data_dir", "AETRAIN_DATA", "refused"):
            assert needed in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert not any(tmp_path.iterdir()), "files were left behind"


def test_download_from_a_silent_server_times_out(
    tmp_path: Path, online: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_dataset, "NETWORK_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never answers
        online(f"http://127.0.0.1:{server.getsockname()[1]}/")
        start = time.perf_counter()
        with pytest.raises(ValueError, match=r"could not be downloaded .*timed out"):
            Mnist(path=str(tmp_path)).read()
        assert time.perf_counter() - start < 3
    assert socket.getdefaulttimeout() is None
    assert not any(tmp_path.iterdir())


@pytest.mark.data
def test_bad_mirrors_are_skipped(originals: Path, tmp_path: Path, online: Callable[..., None]) -> None:
    """A login page and a broken connection: no file of either is kept."""
    raw = originals / "MNIST" / "raw"
    with (
        serving(raw, lambda _: b"<html>") as (login_page, _),
        serving(raw, lambda content: content[:-9]) as (broken, _),
    ):
        online(login_page, broken)
        with pytest.raises(ValueError, match="could not be downloaded"):
            Mnist(path=str(tmp_path)).read()
        assert not any(tmp_path.iterdir())
        with serving(raw) as (good, downloads):
            online(login_page, broken, good)
            assert len(Mnist(path=str(tmp_path)).read()[0]) == 60000
    assert downloads == FILES
    assert sorted(file.name for file in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(FILES)
    assert leftovers(tmp_path) == []


@pytest.mark.data
def test_files_of_a_killed_process_are_removed(originals: Path, tmp_path: Path) -> None:
    raw = link_archives(originals, tmp_path)
    (raw.parent / ".building").mkdir()
    (raw.parent / ".building" / FILES[0]).write_bytes(b"half")
    (raw.parent / ".building.lock").touch()
    Mnist(path=str(tmp_path)).read()
    assert leftovers(tmp_path) == []


READ_IN_EIGHT_PROCESSES = """
import os, sys, traceback, warnings
import torchvision.datasets
import filelock, safetensors.torch
from aetrain.data.mnist import Mnist
torchvision.datasets.MNIST.mirrors = [sys.argv[1]]
children = []
for _ in range(8):
    if (child := os.fork()) == 0:
        try:
            train, test = Mnist(path=sys.argv[2]).read()
            os._exit(0 if (len(train), len(test), train.labels[0]) == (60000, 10000, 5) else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.data
@pytest.mark.slow
def test_eight_processes_at_once_download_each_archive_once(originals: Path, tmp_path: Path) -> None:
    """One process downloads; all get the images."""
    with serving(originals / "MNIST" / "raw") as (address, downloads):
        subprocess.run(
            [sys.executable, "-c", READ_IN_EIGHT_PROCESSES, address, str(tmp_path / "data")],
            cwd=ROOT,
            env={**os.environ, "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=60,
        )
    assert sorted(downloads) == sorted(FILES)
    assert leftovers(tmp_path / "data") == []
    assert Mnist(path=str(tmp_path / "data")).read_cache() is not None


@contextmanager
def as_unprivileged_user() -> Iterator[None]:
    """Drop the rights of root inside: root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.data
def test_read_only_folder_is_read_without_a_cache(originals: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import filelock  # noqa: F401 - the unprivileged user may not read root's packages
    import torchvision.datasets  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        raw = data / "MNIST" / "raw"
        shutil.copytree(originals / "MNIST" / "raw", raw)
        folders = [data, raw.parent, raw]
        try:
            for path in folders:
                path.chmod(0o555)
            with as_unprivileged_user():
                train, _ = Mnist(path=folder).read()
                assert len(train) == 60000
                with pytest.raises(ValueError, match=r"FashionMNIST cannot be written to \(Permission denied\): put"):
                    FashionMnist(path=folder).read()
            assert sorted(path.name for path in data.rglob("*")) == sorted(["MNIST", "raw", *FILES])
        finally:
            for path in folders:
                path.chmod(0o755)
    assert capfd.readouterr() == ("", "")


@pytest.mark.data
def test_on_a_full_disk_only_the_cache_is_missing(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    link_archives(originals, tmp_path)
    monkeypatch.setattr(os, "fsync", raise_disk_full)
    assert len(Mnist(path=str(tmp_path)).read()[0]) == 60000
    assert not (tmp_path / "MNIST" / CACHE).exists()
    assert leftovers(tmp_path) == []


@pytest.mark.data
def test_tilde_is_the_home_folder(read_archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(read_archives.parent))
    assert len(Mnist(path=f"~/{read_archives.name}").read()[0]) == 60000


@pytest.mark.parametrize("blocked", ["data", "data/MNIST", "data/MNIST/raw"])
def test_file_in_place_of_a_folder_is_named_in_the_message(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).touch()
    with pytest.raises(ValueError, match=f"path='{tmp_path}/data': {tmp_path}/{blocked} is a file"):
        Mnist(path=str(tmp_path / "data")).read()


# --- scikit-learn's digits --------------------------------------------------------------------------------------------


def test_digits_equal_those_of_sklearn() -> None:
    from sklearn.datasets import load_digits

    reference = load_digits()
    dataset = Digits()
    train, test = dataset.read()
    assert dataset.stored_shape == (1, 8, 8)
    assert train.pixels.shape == (1438, 1, 8, 8)
    assert test.pixels.shape == (359, 1, 8, 8)
    assert train.pixels.dtype == torch.uint8
    assert train.labels is not None
    assert test.labels is not None
    assert max(test.labels.bincount()) - min(test.labels.bincount()) <= 2, "not stratified"
    # All images are there, and the values 0..16 are recovered by rounding.
    pixels = torch.cat([train.pixels, test.pixels]).flatten(1).double().mul(16 / 255).round()
    rows = np.column_stack([pixels.numpy(), torch.cat([train.labels, test.labels]).numpy()])
    expected = np.column_stack([reference.data, reference.target])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert torch.equal(Digits().read()[1].pixels, test.pixels)


# --- A folder of images -----------------------------------------------------------------------------------------------


def write_image(path: Path, value: int = 100, mode: str = "L", size: tuple[int, int] = (28, 28)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value, value)).save(path)
    return path


def folder_of_two(folder: Path, image: Image.Image, name: str = "x.png", **options: Any) -> str:
    """Write an image into a training and a test folder; return the path of the data set."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        image.save(folder / split / name, **options)
    return str(folder)


def test_folder_splits_by_fraction(tmp_path: Path) -> None:
    for index in range(20):
        write_image(tmp_path / f"{index}.png", index)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = Folder(path=str(tmp_path), test_fraction=0.25)
    assert dataset.stored_shape == (1, 28, 28)
    train, test = dataset.read()
    assert (len(train), len(test)) == (15, 5)
    assert train.labels is None
    assert sorted(train.pixels[:, 0, 0, 0].tolist() + test.pixels[:, 0, 0, 0].tolist()) == list(range(20))
    repeated, _ = Folder(path=f"{tmp_path}/", test_fraction=0.25).read()
    assert torch.equal(train.pixels, repeated.pixels)
    # A new image does not change the order of the others.
    write_image(tmp_path / "new.png", 200)
    order = [*test.pixels[:, 0, 0, 0].tolist(), *train.pixels[:, 0, 0, 0].tolist()]
    train, test = dataset.read()
    new_order = [*test.pixels[:, 0, 0, 0].tolist(), *train.pixels[:, 0, 0, 0].tolist()]
    assert [value for value in new_order if value != 200] == order


@pytest.mark.parametrize(("count", "fraction", "expected"), [(2, 0.1, 1), (2, 0.9, 1), (3, 0.01, 1), (10, 0.99, 9)])
def test_folder_always_has_a_training_and_a_test_image(
    tmp_path: Path, count: int, fraction: float, expected: int
) -> None:
    for index in range(count):
        write_image(tmp_path / f"{index}.png")
    train, test = Folder(path=str(tmp_path), test_fraction=fraction).read()
    assert (len(train), len(test)) == (count - expected, expected)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    values = {"ant": 10, "bee": 20, "cat": 30}
    for name, value in values.items():
        for index in range(12):
            write_image(tmp_path / name / "deeper" / f"{index}.PNG", value)
    write_image(tmp_path / ".thumbnails" / "0.png", 77)
    write_image(tmp_path / "__MACOSX" / "ant" / "0.png", 77)
    (tmp_path / "ant" / "._0.png").write_bytes(b"a metadata file of macOS")
    train, test = Folder(path=str(tmp_path), test_fraction=0.25).read()
    assert (len(train), len(test)) == (27, 9)
    for images in (train, test):
        assert images.labels is not None
        assert images.labels.dtype == torch.int64
        assert torch.equal(images.pixels[:, 0, 0, 0].long(), 10 * (images.labels + 1))
    # Files are not in the order of their classes: a few of them have all classes.
    small = Folder(path=str(tmp_path), subset=9).load().train
    assert small.labels is not None
    assert set(small.labels.tolist()) == {0, 1, 2}


def test_folders_train_and_test_are_splits(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "b" / "1.png", 1)
    write_image(tmp_path / "train" / "c" / "2.png", 2)
    write_image(tmp_path / "test" / "a" / "3.png", 3)  # a class that is not in train has a number too
    write_image(tmp_path / "elsewhere" / "4.png", 4)
    train, test = Folder(path=str(tmp_path)).read()
    assert train.labels is not None
    assert test.labels is not None
    assert dict(zip(train.pixels[:, 0, 0, 0].tolist(), train.labels.tolist(), strict=True)) == {1: 1, 2: 2}
    assert (test.pixels[:, 0, 0, 0].tolist(), test.labels.tolist()) == ([3], [0])


@pytest.mark.parametrize("names", [("a/1.png", "2.png"), ("a/1.png", "a/2.png")])
def test_folder_without_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_image(tmp_path / name)
    assert Folder(path=str(tmp_path)).read()[0].labels is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_folder_reads_every_format(tmp_path: Path, suffix: str, channels: int) -> None:
    path = folder_of_two(tmp_path, Image.new("RGB", (50, 40), (200, 200, 200)), f"x.{suffix}")
    train, _ = Folder(path=path, size=16, channels=channels).read()
    assert train.pixels.shape == (1, channels, 16, 16)
    assert (train.pixels.int() - 200).abs().max() <= 3  # JPEG and WebP are not exact


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.uint8, st.sampled_from([(6, 6), (6, 6, 3)])), st.sampled_from(["png", "bmp", "tif"]))
def test_folder_returns_the_saved_pixels(pixels: np.ndarray, suffix: str) -> None:
    """An image of the requested size is not resampled."""
    channels = 1 if pixels.ndim == 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        path = folder_of_two(Path(folder), Image.fromarray(pixels), f"x.{suffix}")
        train, _ = Folder(path=path, size=6, channels=channels).read()
    assert np.array_equal(train.pixels[0].permute(1, 2, 0).numpy(), pixels.reshape(6, 6, channels))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 20))
@example(1, 3000, 2)
def test_folder_resizes_images_of_any_size(width: int, height: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = folder_of_two(Path(folder), Image.new("L", (width, height), 50))
        train, _ = Folder(path=path, size=size).read()
    assert train.pixels.shape == (1, 1, size, size)
    assert (train.pixels == 50).all()


def test_folder_crops_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), dtype=np.uint8)
    wide[:, 20:40] = 200
    assert (Folder(path=folder_of_two(tmp_path / "a", Image.fromarray(wide)), size=20).read()[0].pixels == 200).all()
    assert (Folder(path=folder_of_two(tmp_path / "b", Image.fromarray(wide.T)), size=20).read()[0].pixels == 200).all()


def test_folder_applies_the_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[:14] = 255  # the camera was rotated: the top of the stored image is the right side
    exif = Image.Exif()
    exif[0x0112] = 6
    train, _ = Folder(path=folder_of_two(tmp_path, Image.fromarray(pixels), exif=exif)).read()
    assert (train.pixels[0, 0, :, 14:] == 255).all()
    assert (train.pixels[0, 0, :, :14] == 0).all()


def test_folder_scales_16_bits_to_8(tmp_path: Path) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for index, suffix in enumerate(["png", "tif"]):
        train, _ = Folder(
            path=folder_of_two(tmp_path / str(index), Image.fromarray(deep), f"x.{suffix}"), size=16
        ).read()
        assert train.pixels.flatten().tolist() == list(range(256))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    options: dict[str, Any] = {}
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.paste(0, (0, 0, 4, 8))
        options["transparency"] = bytes([255, 0])  # PIL warns about these unless it converts to RGBA
    train, _ = Folder(path=folder_of_two(tmp_path, image.convert(mode), **options), size=8).read()
    assert (train.pixels[0, 0, :, :4] == 0).all()
    assert (train.pixels[0, 0, :, 4:] == 255).all()


def test_folder_reads_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (40, 80, 120)]
    train, _ = Folder(
        path=folder_of_two(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:]), size=8
    ).read()
    assert (train.pixels == 40).all()


def test_folder_follows_links_without_cycles(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "real" / name / "1.png")
        (tmp_path / "linked").mkdir(exist_ok=True)
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "linked" / "a" / "cycle").symlink_to(tmp_path / "linked")
    train, test = Folder(path=str(tmp_path / "linked")).read()
    assert len(train) + len(test) == 2
    assert train.labels is not None


def test_folder_that_cannot_be_listed_is_named_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def deny_b(folder: str) -> object:
        if folder.endswith("/b"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    for name in ("a/1.png", "a/2.png", "b/3.png"):
        write_image(tmp_path / name)
    monkeypatch.setattr(os, "scandir", deny_b)
    with pytest.raises(ValueError, match=rf"{tmp_path}/b cannot be read \(Permission denied\)"):
        Folder(path=str(tmp_path)).read()


def test_bad_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"good{index}.png")
    content = write_image(tmp_path / "b.png", size=(300, 300)).read_bytes()
    (tmp_path / "b.png").write_bytes(content[:-40])
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    (tmp_path / "c.gif").touch()
    with pytest.raises(ValueError, match=rf"path='{tmp_path}': 3 of 7 images cannot be read: remove them") as error:
        Folder(path=str(tmp_path)).read()
    assert f"the first is {tmp_path}/a.jpg (" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("limit", [300, 600])
def test_folder_refuses_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """28 x 28 pixels are above both limits; PIL warns about one and raises at the other."""
    write_image(tmp_path / "a.png", size=(4, 4))
    write_image(tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read: remove it; .*b.png \(Image size .*bomb"):
        Folder(path=str(tmp_path)).read()


def test_folder_refuses_images_of_other_than_8_or_16_bits(tmp_path: Path) -> None:
    for image in (Image.new("F", (8, 8), 0.5), Image.new("I", (8, 8), 70000)):
        with pytest.raises(ValueError, match=r"2 of 2 images cannot be read: .*neither 8 nor 16 bits"):
            Folder(path=folder_of_two(tmp_path, image, "x.tif")).read()


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"path='missing' does not exist \(looked for {os.getcwd()}/missing\)"):
        Folder(path="missing").read()
    with pytest.raises(ValueError, match=f"path='{tmp_path}': no images there.*png"):
        Folder(path=str(tmp_path)).read()
    single = write_image(tmp_path / "only.png")
    with pytest.raises(ValueError, match="is a file: use a folder of images"):
        Folder(path=str(single)).read()
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="has a folder 'test' only: use both"):
        Folder(path=str(tmp_path)).read()
    write_image(tmp_path / "train" / "a.png")
    with pytest.raises(ValueError, match=f"no images in {tmp_path}/test"):
        Folder(path=str(tmp_path)).read()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"channels": 2}, "channels=2 .*1 for grey or 3 for RGB"),
        ({"size": 1}, "size=1 .*at least 2"),
        ({"test_fraction": 0.0}, "test_fraction=0.0 .*between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
        ({"test_fraction": float("nan")}, "test_fraction=nan"),
        ({"white": 0.0}, "white=0.0 .*positive"),
        ({"white": float("nan")}, "white=nan"),
        ({"subset": 0}, "subset=0"),  # a setting of every data set
        ({"test_subset": 0}, "test_subset=0 .*at least 1"),
    ],
)
def test_bad_settings_of_a_folder_are_refused(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Folder(path="x", **setting)


# --- Arrays -----------------------------------------------------------------------------------------------------------


def save_npz(folder: Path, **content: Any) -> str:
    """Save arrays in a file; return its path."""
    path = folder / "own.npz"
    np.savez(path, **content)
    return str(path)


def grey_images(count: int = 4, height: int = 6, width: int = 5) -> np.ndarray:
    return np.arange(count * height * width).reshape(count, height, width).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_npz_returns_the_saved_pixels(data: st.DataObject) -> None:
    """uint8 arrays are read back exactly in every layout, under every name and in every memory order."""
    count, height, width = (data.draw(st.integers(1, 7), label=label) for label in ("count", "height", "width"))
    channels = data.draw(st.sampled_from([1, 3]))
    names = data.draw(st.sampled_from([("x_train", "x_test"), ("train", "test")]))
    originals = [
        data.draw(arrays.arrays(np.uint8, (n, channels, height, width)), label=name)
        for n, name in zip((count, 2), names, strict=True)
    ]
    layouts = ["first"]
    if height not in (1, 3):  # else the height would be read as the channels
        layouts.append("last")
    if channels == 1:
        layouts.append("none")
    stored = []
    for original in originals:
        match data.draw(st.sampled_from(layouts), label="layout"):
            case "first":
                array = original
            case "last":
                array = np.moveaxis(original, 1, 3)
            case _:
                array = original[:, 0]
        stored.append(np.asfortranarray(array) if data.draw(st.booleans(), label="fortran") else array)
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    with tempfile.TemporaryDirectory() as folder:
        content: dict[str, Any] = dict(zip(names, stored, strict=True))
        save(f"{folder}/own.npz", **content)
        dataset = Npz(path=f"{folder}/own.npz")
        assert dataset.stored_shape == (channels, height, width)
        for images, original in zip(dataset.read(), originals, strict=True):
            assert images.labels is None
            assert images.pixels.dtype == torch.uint8
            assert np.array_equal(images.pixels.numpy(), original)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays.arrays(np.uint8, (3, 4, 5)), st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8"]))
def test_npz_floats_are_rounded_to_8_bits(tmp_path: Path, pixels: np.ndarray, dtype: str) -> None:
    path = save_npz(tmp_path, train=(pixels / 255).astype(dtype), test=pixels)
    assert np.array_equal(Npz(path=path).read()[0].pixels[:, 0].numpy(), pixels)


def test_npz_bool_becomes_black_and_white(tmp_path: Path) -> None:
    path = save_npz(tmp_path, x_train=grey_images() > 50, x_test=grey_images() > 50)
    assert np.array_equal(Npz(path=path).read()[0].pixels[:, 0].numpy(), (grey_images() > 50) * 255)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 3, 8, 3), (3, 8, 3)),  # both could be the channels: the first is
        ((9, 1, 8, 8), (1, 8, 8)),
        ((9, 8, 8, 1), (1, 8, 8)),
        ((9, 8, 9, 3), (3, 8, 9)),
        ((9, 3, 3), (1, 3, 3)),
    ],
)
def test_npz_layouts_are_recognised(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    path = save_npz(tmp_path, images=np.zeros(shape, dtype=np.uint8))
    assert Npz(path=path).stored_shape == expected
    assert Npz(path=path).read()[0].pixels.shape[1:] == expected


def test_npz_shape_is_known_without_reading_the_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_npz(tmp_path, x_train=grey_images(), x_test=grey_images(2))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert Npz(path=path).stored_shape == (1, 6, 5)


def test_npz_with_the_names_of_keras(tmp_path: Path) -> None:
    path = save_npz(
        tmp_path,
        x_train=grey_images(),
        x_test=grey_images(2),
        y_train=np.array([3, 1, 2, 0], dtype=np.uint8),
        y_test=np.array([[1], [0]]),  # as in Keras' CIFAR-10
    )
    train, test = Npz(path=path).read()
    assert train.labels is not None
    assert test.labels is not None
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 1, 2, 0], [1, 0])
    assert train.labels.dtype == test.labels.dtype == torch.int64


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y")])
def test_npz_splits_by_fraction(tmp_path: Path, images: str, labels: str) -> None:
    pixels = np.arange(50, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    path = save_npz(tmp_path, **{images: pixels, labels: np.arange(50)})
    train, test = Npz(path=path, test_fraction=0.2).read()
    assert (len(train), len(test)) == (40, 10)
    for part in (train, test):
        assert part.labels is not None
        assert part.pixels[:, 0, 0, 0].tolist() == part.labels.tolist() == sorted(part.labels.tolist())
    assert train.labels is not None
    assert test.labels is not None
    assert sorted(train.labels.tolist() + test.labels.tolist()) == list(range(50))
    assert torch.equal(Npz(path=path, test_fraction=0.2).read()[1].pixels, test.pixels)
    assert len(Npz(path=path, test_fraction=0.001).read()[1]) == 1


VALID = {"x_train": grey_images(), "x_test": grey_images(2)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({}, "holds no arrays, but should hold x_train and x_test or train and test or images or x$"),
        (
            {"x_test": grey_images(), "other": grey_images()},
            "holds x_test, other, but should hold x_train and x_test",
        ),
        (
            {**VALID, "x_test": grey_images(2, 5, 6)},
            r"x_train is uint8 \[4, 6, 5\], x_test is uint8 \[2, 5, 6\]: .*one shape",
        ),
        ({**VALID, "x_test": grey_images(0)}, r"x_test is empty \(uint8 \[0, 6, 5\]\)"),
        ({"x": grey_images()[0]}, r"x is uint8 \[6, 5\]: use \[N, H, W\]"),
        ({"x": grey_images()[None, None]}, r"x is uint8 \[1, 1, 4, 6, 5\]: use \[N, H, W\]"),
        ({"x": np.zeros((5, 4, 4, 4), np.uint8)}, r"x is uint8 \[5, 4, 4, 4\]: .*with 1 or 3 channels"),
        ({"x": np.uint8(3)}, r"x is uint8 \[\]: use"),
        ({"x": grey_images().astype(np.int64)}, "x is int64 .*: use uint8 from 0 to 255, floats from 0 to 1, or bool"),
        ({"x": grey_images().astype(complex)}, "x is complex128"),
        ({"x": grey_images().astype(str)}, "x is <U"),
        ({"x": np.array([{}, None])}, "x is object"),
        ({"x": grey_images().astype(np.float32)}, "x has values from 0 to 119: use floats from 0 to 1, or uint8"),
        ({"x": np.full((4, 6, 5), -0.1)}, "x has values from -0.1 to -0.1"),
        ({"x": np.where(grey_images() == 7, np.nan, 0.5)}, "x has values from nan to nan"),
        ({"x": np.where(grey_images() == 7, np.inf, 0.5)}, "x has values from 0.5 to inf"),
        ({**VALID, "y_train": np.arange(3), "y_test": np.arange(2)}, r"y_train is int64 \[3\]: .*each of the 4 images"),
        ({**VALID, "y_train": np.arange(4), "y_test": np.zeros((2, 10), int)}, r"y_test is int64 \[2, 10\]: use one"),
        ({**VALID, "y_train": np.arange(4)}, "has labels for one split, but no y_test"),
        ({"x": grey_images(), "y": np.arange(4) / 2}, "y: label 0.5 is no whole number: use integers or texts"),
        ({"x": grey_images(), "y": np.array([0, 1, np.nan, 2])}, "y: label nan is no whole number"),
        ({"x": grey_images(), "y": np.array([None] * 4)}, "y is object .*: use one integer or text"),
        ({"x": grey_images(), "y": np.arange(4) * 1j}, "y is complex128 .*: use one integer or text"),
    ],
)
def test_unusable_npz_is_refused(tmp_path: Path, content: dict[str, Any], complaint: str) -> None:
    path = save_npz(tmp_path, **content)
    with pytest.raises(ValueError, match=f"^path='{path}': {complaint}") as error:
        Npz(path=path).read()
    assert len(str(error.value).splitlines()) == 1


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    class CreatesFolder:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "created"),)

    malicious = np.empty(4, dtype=object)
    malicious[:] = [CreatesFolder() for _ in range(4)]
    for content in ({"x": malicious}, {"x": grey_images(), "y": malicious}, {"x": grey_images(), "other": malicious}):
        path = save_npz(tmp_path, **content)
        if "other" in content:
            Npz(path=path).read()  # an unused array is not read
        else:
            with pytest.raises(ValueError, match=r"is object \[4\]"):
                Npz(path=path).read()
    assert not (tmp_path / "created").exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_npz_gives_its_images_or_one_message(data: st.DataObject) -> None:
    """A file that is cut off or altered anywhere never gives wrong pixels."""
    original = grey_images(8, 16, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(save_npz(Path(folder), x_train=original, x_test=original))
        content = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans(), label="cut"):
            del content[position:]
        else:
            content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            train, test = Npz(path=str(path)).read()
        except ValueError as error:
            assert str(error).startswith(f"path='{path}': ")  # noqa: PT017
        else:
            assert np.array_equal(train.pixels[:, 0].numpy(), original)
            assert np.array_equal(test.pixels[:, 0].numpy(), original)


def test_npz_with_a_huge_header_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as file, file.open("x.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 2000, 2000)}
        )
    with pytest.raises(ValueError, match=r"x\.npy has not the size that it states"):
        Npz(path=str(tmp_path / "own.npz")).read()


def test_path_that_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"path='{tmp_path}': holds no arrays, but should hold x_train and x_test"):
        _ = Npz(path=str(tmp_path)).stored_shape
    with pytest.raises(ValueError, match=r"path='missing.npz' does not exist \(looked for /"):
        _ = Npz(path="missing.npz").stored_shape
    np.save(tmp_path / "x.npy", grey_images())
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"cannot be read as an .npz file \(File is not a zip file\): save it again"):
        _ = Npz(path=str(tmp_path / "x.npz")).stored_shape
    with pytest.raises(ValueError, match=r"test_fraction=2"):
        Npz(path="x", test_fraction=2)


def test_npz_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_npz(tmp_path, x=grey_images())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Npz(path="~/own.npz").stored_shape == (1, 6, 5)


# --- All sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "own_settings"),
    [
        (Mnist, {"path": inspect.Parameter.empty}),
        (FashionMnist, {"path": inspect.Parameter.empty}),
        (Digits, {}),
        (
            Folder,
            {
                "path": inspect.Parameter.empty,
                "size": 28,
                "channels": 1,
                "test_fraction": 0.1,
                "white": None,
                "data_dir": None,
            },
        ),
        (Npz, {"path": inspect.Parameter.empty, "test_fraction": 0.1, "white": None}),
    ],
)
def test_signature_has_all_settings_annotated(source: type[Dataset], own_settings: dict[str, object]) -> None:
    shared = inspect.signature(ImageDataset).parameters
    parameters = inspect.signature(source).parameters
    assert {name: parameter.default for name, parameter in parameters.items() if name not in shared} == own_settings
    assert all(name in parameters for name in shared)
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())


def test_folder_marked_read_only_is_not_written_to_by_root(originals: Path, tmp_path: Path) -> None:
    folder = link_archives(originals, tmp_path).parent
    folder.chmod(0o555)
    try:
        assert len(Mnist(path=str(tmp_path)).load().test) == 10_000
        assert [path.name for path in folder.iterdir()] == ["raw"]
    finally:
        folder.chmod(0o755)
