"""The example of a package that extends aetrain: install it, and use its option without --config-dir."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command import Outcome, process
from conftest import ROOT, TINY

pytest.importorskip("hatchling")

PLUGIN = ROOT / "examples" / "plugin"
CHEAP = (*TINY, "model=linear", "model.code_dim=3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
    subprocess.run([*pip, *offline, "--target", str(site), str(PLUGIN)], check=True, capture_output=True)
    return site


@pytest.fixture
def aetrain(site: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs the command where the package is installed."""

    def aetrain(*arguments: str) -> Outcome:
        paths = os.pathsep.join([str(site), str(ROOT)])
        program = [sys.executable, "-m", "aetrain"]
        key = str(tmp_path / "data" / "key")
        return process(arguments, tmp_path, program=program, PYTHONPATH=paths, AETRAIN_KEY_FILE=key)

    return aetrain


def test_package_holds_the_class_the_option_and_the_search_path(site: Path) -> None:
    files = {str(file.relative_to(site)) for file in site.rglob("*") if ".dist-info" not in str(file)}
    assert {name for name in files if Path(name).suffix} == {
        "aetrain_example/__init__.py",
        "aetrain_example/configs/noise/rows.yaml",
        "aetrain_example/noise.py",
        "hydra_plugins/aetrain_example_searchpath.py",
    }


@pytest.mark.slow
def test_tests_of_the_package_pass_where_it_is_installed(site: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN / "tests")]
    outcome = subprocess.run(pytest_command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "1 passed" in outcome.stdout, outcome.stdout


def test_option_is_listed_in_help(aetrain: Callable[..., Outcome]) -> None:
    (line,) = [line for line in aetrain("--help").out.splitlines() if line.startswith("noise: ")]
    assert {"rows", "gaussian"} <= set(line.removeprefix("noise: ").split(", "))


@pytest.mark.slow
def test_run_with_the_option_is_trained_evaluated_and_resumed(aetrain: Callable[..., Outcome], tmp_path: Path) -> None:
    for arguments in (
        [*CHEAP, "noise=rows", "noise.p=0.4", "hydra.run.dir=run"],
        ["mode=eval", "run=run"],
        ["mode=eval", "run=run", "noise=gaussian"],
        ["resume=run", "epochs=2"],
        ["-m", *CHEAP, "noise=rows,none", "seed=0,1", "hydra/launcher=packed", "hydra.sweep.dir=sweep"],
    ):
        outcome = aetrain(*arguments)
        assert outcome.code == 0, outcome.err
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "noise:\n  _target_: aetrain_example.noise.Rows\n  p: 0.4\n" in config
    assert len(list((tmp_path / "sweep").glob("*/checkpoint"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (["noise=rows", "noise.p=2"], ["noise.p=2", "a number from 0 to 1"]),
        (["noise=rows", "noise.p=much"], ["noise.p=much is not a number"]),
        (["noise=rows", "noise.q=1"], ["no setting 'noise.q'", "noise has p"]),
        (["noise=rws"], ["no noise named 'rws'; did you mean 'rows'?", "gaussian"]),
    ],
)
def test_mistake_gets_the_usual_message(
    overrides: Sequence[str], texts: Sequence[str], aetrain: Callable[..., Outcome]
) -> None:
    outcome = aetrain(*CHEAP, *overrides)
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: ")
    assert "Traceback" not in outcome.err
    for text in texts:
        assert text in outcome.err
