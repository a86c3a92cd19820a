"""Paths on the command line: `~`, letters of any script, spaces, quotes and commas mean what they mean to the shell."""

import json
import os
import pwd
from pathlib import Path

import numpy as np
import pytest
from command import command, everything_in
from conftest import TINY
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.overrides import INPUT_PATHS, OUTPUT_PATHS, PATHS, expand_config_dir, normalize, parse

NAMES = [
    "Bücher",
    "Bu\u0308cher",
    "книги",
    "図書",
    "📚",
    "a b",
    " a",
    "it's",
    'a"b',
    "a(1)",
    "a\\",
    "a\\'b",
    "[1]",
    "1",
]
NAMES += ["true", "null", "a$b", "a=b,c=d", "a,b", "#a", "a&b;c", "{a}", "a:b", "100%", "-a", "'a'", "~a~", "\ta"]

LINEAR = (*TINY[1:], "model=linear")


def path_read(override: str) -> object:
    """Return the value that Hydra reads from an override of the command line."""
    (parsed,) = parse(normalize([override]))
    assert not parsed.is_sweep_override()
    return parsed.value()


@pytest.mark.parametrize("key", PATHS)
def test_an_existing_path_is_read_as_it_is(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).mkdir(exist_ok=True)
        relative = f"./{name}" if name.startswith("~") else name
        assert path_read(f"{key}={relative}") == relative
        assert path_read(f"++{key}={tmp_path / name}") == str(tmp_path / name)


@pytest.mark.parametrize("key", OUTPUT_PATHS)
def test_a_new_path_is_read_as_it_is(key: str) -> None:
    for name in NAMES:
        if name not in ("null", "'a'", "~a~"):
            assert path_read(f"{key}={name}") == name
    assert path_read(f"{key}=null") is None
    assert path_read(f"{key}='a b,c'") == "a b,c"
    assert path_read(f"{key}=outputs/${{seed}}, ${{epochs}}") == "outputs/${seed}, ${epochs}"


letters = st.characters(codec="utf-8", exclude_characters="\0/")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(letters, min_size=1, max_size=40), key=st.sampled_from(PATHS))
def test_any_existing_path_is_read_as_it_is(name: str, key: str, tmp_path: Path) -> None:
    assume(name not in (".", "..") and "${" not in name)
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    assert path_read(f"{key}={folder}") == str(folder)


@pytest.mark.parametrize("key", PATHS)
def test_home_folders_are_expanded(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_read(f"{key}=~") == str(tmp_path)
    assert path_read(f"{key}=~/a b") == str(tmp_path / "a b")
    assert path_read(f"{key}='~/a,b'") == str(tmp_path / "a,b")
    user = pwd.getpwuid(os.getuid())
    assert path_read(f"{key}=~{user.pw_name}/x") == f"{user.pw_dir}/x"
    assert path_read(f"{key}=~no such user/x") == "~no such user/x"


def test_home_folder_of_configs_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_config_dir("--config-dir=~/mine") == "--config-dir=/home/me/mine"
    assert expand_config_dir("--package=~/mine") == "--package=~/mine"


def test_commas_sweep_over_paths_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "Bücher", "a b"):
        Path(name).mkdir()
    for key in INPUT_PATHS:
        (sweep,) = parse(normalize([f"{key}=a,~/Bücher,a b,gone"]))
        jobs = parse([f"{key}={value}" for value in sweep.sweep_string_iterator()])
        assert [job.value() for job in jobs] == ["a", str(tmp_path / "Bücher"), "a b", "gone"]
        assert path_read(f"{key}=gone,lost") == "gone,lost", "no path has this name: the message names it all"
        (sweep,) = parse(normalize([f"{key}=choice(gone,lost)"]))
        assert sweep.is_sweep_override()
    for key in OUTPUT_PATHS:
        assert path_read(f"{key}=a,Bücher") == "a,Bücher", "the directory of a run is no value to sweep over"
    Path("a,Bücher").mkdir()
    for key in PATHS:
        assert path_read(f"{key}=a,Bücher") == "a,Bücher", "a folder of this name"


def test_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset.path='B\\udcfccher' is not text in UTF-8"):
        normalize(["dataset.path=B\udcfccher"])


def write_images(file: Path) -> None:
    np.savez(file, images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))


@pytest.mark.slow
def test_run_in_a_directory_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train from such a file into such a directory, evaluate, report and load the run."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "Bücher, 📚.npz")
    name = "outputs/Lauf für é,lr=0.1 #1"
    data = ["dataset=npz", "dataset.path=~/Bücher, 📚.npz"]
    for arguments in (
        [*LINEAR, *data, f"hydra.run.dir={name}"],
        ["mode=eval", f"run=~/{name}"],
        [f"resume={name}", "epochs=2"],
        ["mode=report", f"run={name}", "mode.out=~/Seite é"],
    ):
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0, outcome.err
    run = tmp_path / name
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2
    assert api.load(run).config.dataset.path == str(tmp_path / "Bücher, 📚.npz")
    assert (tmp_path / "Seite é" / "report.html").is_file()
    assert not any(name.startswith("~") for name in everything_in(tmp_path))
