"""The wheel: build it from the checkout, install it in one folder, use it from another."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command import Outcome, process
from conftest import ROOT

from aetrain.config.paths import groups

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the wheel is installed."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(site), str(wheel)]
    subprocess.run(install, cwd=wheels, check=True, capture_output=True)
    return site


@pytest.fixture
def installed(site: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs Python with the installed copy and the dependencies, without the checkout.

    The flag -S skips the .pth file of the checkout.
    """
    paths = os.pathsep.join([str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])

    def installed(*arguments: str) -> Outcome:
        outcome = process(arguments, tmp_path, program=[sys.executable, "-S"], PYTHONPATH=paths)
        assert outcome.code == 0, outcome.err
        assert str(ROOT / "aetrain") not in outcome.out + outcome.err
        return outcome

    return installed


def test_package_and_configs_are_those_of_the_wheel(site: Path, installed: Callable[..., Outcome]) -> None:
    program = "import aetrain; from aetrain.config.paths import CONFIG_DIR; print(aetrain.__file__); print(CONFIG_DIR)"
    package, configs = installed("-c", program).out.split()
    assert Path(package) == site / "aetrain" / "__init__.py"
    assert Path(configs) == site / "aetrain" / "configs"


def test_wheel_has_every_config_and_no_other_files(site: Path) -> None:
    def yaml_files(folder: Path) -> Sequence[str]:
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.yaml"))

    assert yaml_files(site / "aetrain" / "configs") == yaml_files(ROOT / "configs")
    packages = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert packages == {"aetrain", "bin", "hydra_plugins"}
    plugins = sorted(path.name for path in (ROOT / "hydra_plugins").glob("*.py"))
    assert sorted(path.name for path in (site / "hydra_plugins").iterdir()) == plugins


def test_console_script_prints_its_help(site: Path, installed: Callable[..., Outcome]) -> None:
    text = installed(str(site / "bin" / "aetrain"), "--help").out
    assert f"model: {', '.join(groups()['model'])}" in text


@pytest.mark.slow
def test_module_trains_with_configs_of_the_user(tmp_path: Path, installed: Callable[..., Outcome]) -> None:
    wide = tmp_path / "mine" / "model" / "wide.yaml"
    wide.parent.mkdir(parents=True)
    wide.write_text("# Wide.\ndefaults: [deep, _self_]\nhidden: [96]\n")
    tiny = ["dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "epochs=1", "views=none"]
    installed("-m", "aetrain", "--config-dir", "mine", "model=wide", *tiny, "hydra.run.dir=run")
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "hidden:\n  - 96\n" in (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
