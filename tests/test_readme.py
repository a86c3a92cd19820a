"""The README is correct: its commands run, its tables list every option, its Python code works."""

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
from PIL import Image

import aetrain
from aetrain.config.paths import groups
from aetrain.evaluation.metric_descriptions import metrics_page

README = (ROOT / "README.md").read_text()
MAX_LINES = 200


def blocks(language: str) -> list[str]:
    """Return the text of all code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    """Return the commands of all sh blocks without their comments."""
    lines = "".join(blocks("sh")).splitlines()
    return [line.split("  # ")[0].strip() for line in lines if line.strip()]


COMMANDS = commands()

# Real runs on few images: these tests check that the commands are accepted; other tests check the metrics.
READING_MODES = ("eval", "encode", "export", "search", "check", "report", "score")
OF_SAVED_RUNS = (*(f"mode={mode}" for mode in READING_MODES), "resume=")
QUICK = ("epochs=1", "dataset.subset=64", "dataset.test_subset=64", "views=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run that tests evaluate and load, and return its directory."""
    directory = tmp_path_factory.mktemp("readme") / "RUN"
    aetrain.run([*TINY, f"hydra.run.dir={directory}"])
    return directory


@pytest.fixture
def folder(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of a user: a run, images, and the files that the README shows."""
    for name in ("RUN", "OTHER"):
        shutil.copytree(trained, tmp_path / name)
    (tmp_path / "my" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "my" / "images" / f"{index}.png")
    shutil.copyfile(tmp_path / "my" / "images" / "0.png", tmp_path / "my" / "image.png")
    np.savez(tmp_path / "my" / "images.npz", x_train=pixels[:8], x_test=pixels[8:])
    rows = [f"{number},{number % 7},{'a' if number % 2 else 'b'}" for number in range(90)]
    (tmp_path / "my" / "table.csv").write_text("\n".join(["width,height,kind", *rows]))
    words = ["shuttle launch to orbit", "goalie saves the game", "orbit of the shuttle", "the game and the goalie"]
    documents = [f"{words[number % 4]},{'space' if number % 2 == 0 else 'hockey'}" for number in range(90)]
    (tmp_path / "my" / "documents.csv").write_text("\n".join(["text,label", *documents]))
    for block in [*blocks("python"), *blocks("yaml")]:
        if named := re.match(r"# (\S+\.(?:py|yaml))\n", block):
            (tmp_path / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / named[1]).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)  # as PYTHONPATH=. does
    return tmp_path


def aetrain_commands() -> list[object]:
    """Return the commands of aetrain that end by themselves; sweeps, checks and measures are slow."""
    lines = [line for line in COMMANDS if "aetrain " in line and "mode=board" not in line]
    return [pytest.param(line, marks=pytest.mark.slow if is_slow(line) else ()) for line in lines]


def is_slow(line: str) -> bool:
    return any(text in line for text in (" -m ", "mode=check", "measures="))


def test_readme_has_commands() -> None:
    assert len(COMMANDS) > 12
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.slow
@pytest.mark.parametrize("line", aetrain_commands())
def test_aetrain_commands(line: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if "run=outputs" in line:
        shutil.copytree(folder / "RUN", folder / "outputs" / "RUN")
    words = line.split()
    assert words[0] == "aetrain"
    extra: tuple[str, ...] = ()
    if not any(word.startswith(OF_SAVED_RUNS) for word in words):
        extra = QUICK
        if not any(word.startswith("dataset=") for word in words) or "dataset=fashion" in words:
            extra = (*extra, f"data_dir={request.getfixturevalue('data_dir')}")
    if "few_labels" in line:
        extra = (*extra, "measures.few_labels.labels=[20]")  # the run has fewer than 100 images
    outcome = command([*words[1:], *extra], folder)
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_make_demo_prints_the_path_of_the_pictures_and_how_to_open_tensorboard() -> None:
    if not (ROOT / ".venv" / ".installed").is_file():
        pytest.skip("`make install` has not been run here")
    completed = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stderr
    pictures = re.search(r"pictures: (\S+)", completed.stdout)
    assert pictures, completed.stdout
    assert (ROOT / pictures[1] / "reconstructions.png").is_file()
    opens = re.search(r"compare:\s+(\S*tensorboard) --logdir (\S+)", completed.stdout)
    assert opens, completed.stdout
    assert (ROOT / opens[1]).is_file(), "a new user has no tensorboard on the path"
    assert (ROOT / opens[2]).is_dir()


def test_ci_runs_make_test() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_tensorboard_command_serves_the_runs(folder: Path) -> None:
    (line,) = [c for c in COMMANDS if c.startswith("tensorboard")]
    (folder / "outputs").mkdir()
    shutil.move(folder / "RUN", folder / "outputs" / "RUN")
    with tensorboard(line.split()[1:], folder) as url:
        assert b"RUN" in urllib.request.urlopen(f"{url}/data/runs", timeout=30).read()


@contextmanager
def tensorboard(arguments: list[str], folder: Path) -> Iterator[str]:
    """Start TensorBoard on a free port and yield its address once it knows the run."""
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
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


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == metrics_page()


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_link_targets_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
