"""The link to the page that compares runs, and the mode that starts TensorBoard."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from command import aetrain, command
from conftest import TINY

from aetrain.views.tensorboard_link import MAIN_TAGS, tensorboard_link


def colour_of(run: str) -> tuple[str | None, ...]:
    """Return the groups of the link's regular expression: TensorBoard gives runs with equal groups one colour."""
    (rule,) = parse_qs(urlsplit(tensorboard_link()).query)["runColorGroup"]
    match = re.search(rule.removeprefix("regex:"), run)
    assert match, run
    return match.groups()


def test_the_link_has_the_parameters_of_tensorboard() -> None:
    link = urlsplit(tensorboard_link(port=7007))
    assert (link.scheme, link.netloc, link.fragment) == ("http", "localhost:7007", "timeseries")
    assert set(parse_qs(link.query)) == {"smoothing", "tagFilter", "runColorGroup"}
    assert not re.search(r"[\s|^()\\\"'<>]", tensorboard_link()), "a terminal ends the link at these characters"


def test_seeds_share_a_colour_and_settings_do_not() -> None:
    assert colour_of("model=vae,seed=0") == colour_of("model=vae,seed=12")
    assert colour_of("seed=0,model=vae") == colour_of("seed=1,model=vae")
    assert colour_of("model=vae,seed=0,noise=none") == colour_of("model=vae,seed=1,noise=none")
    assert colour_of("model=vae,seed=0,noise=none") != colour_of("model=vae,seed=0,noise=gaussian")
    assert colour_of("model=vae,seed=0") != colour_of("model=deep,seed=0")
    first, second = (f"model=vae/2026112{day}-101010-000001" for day in (0, 1))
    assert colour_of(first) == colour_of(second) != colour_of("model=deep/20261120-101010-000001")
    assert colour_of("sweeps/20261120-101010-000001/model=vae") != colour_of("sweeps/20261120-101010-000001/model=deep")


@pytest.mark.parametrize("tag", ["train/loss", "test/neg_elbo", "test/sse", "views/reconstructions"])
def test_main_tags_pass_the_filter(tag: str) -> None:
    assert re.search(MAIN_TAGS, tag)
    assert not re.search(MAIN_TAGS, "test/noisy_sse")


@pytest.mark.slow
def test_board_serves_the_runs_until_sigterm(tiny: Callable[..., Path], tmp_path: Path) -> None:
    tiny("model=linear", name="runs/one")
    with socket.create_server(("localhost", 0)) as server_socket:
        port = server_socket.getsockname()[1]
        refused = command(["mode=board", "run=runs", f"mode.port={port}"], tmp_path)
        assert refused.code == 1
        assert f"mode.port={port}" in refused.err
    arguments = [*aetrain(), "mode=board", "run=runs", f"mode.port={port}"]
    server = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        deadline = time.monotonic() + 90
        while served_runs(port) != ["one"]:
            assert time.monotonic() < deadline, "TensorBoard does not answer"
            time.sleep(0.3)
    finally:
        server.send_signal(signal.SIGTERM)
    out, _ = server.communicate(timeout=60)
    assert server.returncode == 143
    assert tensorboard_link(port=port) in out
    assert served_runs(port) is None, "TensorBoard ends with the command"
    assert not (tmp_path / "outputs").exists()


def served_runs(port: int) -> object:
    """Return the names of the runs that TensorBoard serves; None where it does not answer."""
    try:
        return json.loads(urllib.request.urlopen(f"http://localhost:{port}/data/runs", timeout=5).read())
    except OSError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run=nowhere"], ["run=nowhere is no directory"]),
        (["run=.", "mode.port=70000"], ["mode.port=70000"]),
        (["run=.", "mode.port=x"], ["mode.port=x is not a whole number"]),
        (["run=.", "epochs=2"], ["drop epochs="]),
    ],
)
def test_mistakes_are_explained(arguments: list[str], expected: list[str], tmp_path: Path) -> None:
    outcome = command(["mode=board", *arguments], tmp_path)
    assert outcome.code == 1
    assert all(text in outcome.err for text in expected), outcome.err
    assert os.listdir(tmp_path) == []


def test_a_run_prints_the_link(tmp_path: Path) -> None:
    outcome = command([*TINY, "model=linear"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert tensorboard_link() in outcome.out
