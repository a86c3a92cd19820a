"""The README is true: its commands run, its tables list what there is, its Python works."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from conftest import ROOT, TINY

import aetrain
from aetrain.config.paths import groups
from aetrain.evaluation.metric_descriptions import DESCRIPTIONS

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


COMMANDS = [line.split("  # ")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]
# Real runs on few images: a test wants to know that the words are right, the figures have tests of their own.
QUICK = ("epochs=1", "dataset.subset=64", "views=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to be evaluated and loaded."""
    directory = tmp_path_factory.mktemp("readme") / "RUN"
    aetrain.run([*TINY, f"hydra.run.dir={directory}"])
    return directory


@pytest.fixture
def folder(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the run, images of their own, and the README's own model."""
    from PIL import Image

    shutil.copytree(trained, tmp_path / "RUN")
    (tmp_path / "my" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "my" / "images" / f"{index}.png")
    shutil.copyfile(tmp_path / "my" / "images" / "0.png", tmp_path / "my" / "image.png")
    np.savez(tmp_path / "my" / "images.npz", x_train=pixels[:8], x_test=pixels[8:])
    for block in [*blocks("python"), *blocks("yaml")]:
        if named := re.match(r"# (\S+\.(?:py|yaml))\n", block):
            (tmp_path / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / named[1]).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)  # what PYTHONPATH=. does
    return tmp_path


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 12
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("line", [c for c in COMMANDS if "aetrain " in c and "mode=board" not in c])
def test_aetrain_commands(line: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if "run=outputs" in line:
        shutil.copytree(folder / "RUN", folder / "outputs" / "RUN")
    words = line.removeprefix("PYTHONPATH=. ").split()
    assert words[0] == "aetrain"
    extra: tuple[str, ...] = ()
    if not any(word.startswith(("mode=eval", "mode=search", "mode=check", "mode=report", "resume=")) for word in words):
        extra = QUICK if "--config-dir" not in line else QUICK[:2]
        if not any(word.startswith("dataset=") for word in words) or "dataset=fashion" in words:
            extra = (*extra, f"data_dir={request.getfixturevalue('data_dir')}")
    if "measures=few_labels" in words:
        extra = (*extra, "measures.few_labels.labels=[20]")  # the run has seen no hundred images
    done = command([*words[1:], *extra], folder)
    assert done.code == 0, done.err


def test_make_demo_says_where_the_pictures_are_and_how_to_open_tensorboard() -> None:
    if not (ROOT / ".venv" / ".installed").is_file():
        pytest.skip("`make install` has not been run here")
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    pictures = re.search(r"pictures: (\S+)", done.stdout)
    assert pictures, done.stdout
    assert (ROOT / pictures[1] / "reconstructions.png").is_file()
    opens = re.search(r"compare:\s+(\S*tensorboard) --logdir (\S+)", done.stdout)
    assert opens, done.stdout
    assert (ROOT / opens[1]).is_file(), "a new user has no tensorboard on the path"
    assert (ROOT / opens[2]).is_dir()


def test_make_test_is_what_ci_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_tensorboard_command_serves_the_runs(folder: Path) -> None:
    (line,) = [c for c in COMMANDS if c.startswith("tensorboard")]
    (folder / "outputs").mkdir()
    shutil.move(folder / "RUN", folder / "outputs" / "RUN")
    with tensorboard(line.split()[1:], folder) as url:
        assert b"RUN" in urllib.request.urlopen(f"{url}/data/runs", timeout=30).read()


@contextmanager
def tensorboard(arguments: list[str], folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "tensorboard.main", *arguments, "--port", str(port), "--host", "127.0.0.1"]
    server = subprocess.Popen(call, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while b"RUN" not in _body(f"{url}/data/runs"):
            assert time.monotonic() < deadline, "TensorBoard does not answer"
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _body(url: str) -> bytes:
    try:
        return bytes(urllib.request.urlopen(url, timeout=10).read())
    except OSError:
        return b""


def test_python_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (example,) = [block for block in blocks("python") if "aetrain.load" in block]
    x = torch.rand(3, 1, 8, 8)
    names: dict[str, object] = {"x": x}
    exec(example, names)
    assert names["z"].shape == (3, 32)  # type: ignore[attr-defined]
    assert names["x_again"].shape == x.shape  # type: ignore[attr-defined]


def test_every_group_and_option_is_listed() -> None:
    for group, options in groups().items():
        row, *_ = re.findall(rf"^\| `{group}` \| (.*?) \|", README, re.M)
        assert row == " ".join(f"`{option}`" for option in options), f"the row of {group} is out of date"


def test_every_figure_is_explained() -> None:
    for name, meaning in DESCRIPTIONS.items():
        assert f"| `{name}` | {meaning} |" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
