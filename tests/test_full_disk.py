"""Disks that are full and folders that can only be read, real ones: the run says so, and goes on later."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Outcome, aetrain, command
from conftest import TINY
from smalldisk import namespace, small_disk

from aetrain import api
from aetrain.selfcheck.fingerprint import differences, fingerprint

LINEAR = (*TINY, "model=linear", "epochs=3")


def one_message(outcome: dict[str, str | int] | Outcome) -> str:
    """The message of a command that failed because nothing more could be written."""
    said = outcome if isinstance(outcome, dict) else vars(outcome)
    err = str(said["err"])
    assert said["code"] == 1, said
    assert err.startswith("aetrain: ")
    assert "cannot be written to" in err
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err + str(said["out"])
    return err


@pytest.fixture(scope="module")
def words() -> list[str]:
    found = namespace()
    if not found:
        pytest.skip("no file system can be mounted here, not even in a namespace of the user's own")
    return found


@pytest.mark.slow
def test_disk_that_fills_up_costs_nothing(words: list[str], tmp_path: Path) -> None:
    """Wherever in the run it is: each time it stops with a message, and the same command comes to the same."""
    found = small_disk(words, tmp_path, "filled", *LINEAR)
    assert len(found) == 5
    for one in found:
        assert "No space left on device" in one_message(one["first"])
        assert not one["unfinished"]
        assert one["again"]["code"] == 0, one["again"]
        assert not one["differ"]


@pytest.mark.slow
def test_disk_that_can_only_be_read_costs_nothing(words: list[str], tmp_path: Path) -> None:
    (one,) = small_disk(words, tmp_path, "read_only", *LINEAR)
    assert "Read-only file system" in one_message(one["first"])
    assert one["again"]["code"] == 0, one["again"]
    assert not one["differ"]


# A noise that seals the run's directory in the third epoch.
MODULE = '''
from pathlib import Path
from aetrain.data.noise import NoNoise


class Sealing(Clean):
    """Nothing can be made in the run's directory any more."""

    calls = 0

    def __call__(self, x, generator=None):
        Sealing.calls += 1
        if Sealing.calls == 7 and not Path("mended").exists():
            Path("run").chmod(0o555)
        return x
'''


@pytest.mark.slow
def test_folder_that_is_sealed_while_training_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that are open stay so, and no new one can be made; root has to lay down the right to do so."""
    lowered = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if lowered and (not shutil.which("setpriv") or subprocess.run([*lowered, "true"], capture_output=True).returncode):
        pytest.skip("root may write anywhere, and setpriv cannot take that right away here")
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "sealing.py").write_text(MODULE)
    (tmp_path / "mine" / "noise" / "sealing.yaml").write_text("# Seals.\n_target_: sealing.Sealing\n")
    said = ["--config-dir", "mine", *LINEAR, "noise=sealing", "epochs=6"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    words = [*lowered, *aetrain(), *said, "hydra.run.dir=run"]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "Permission denied" in one_message(Outcome(ended.returncode, ended.stdout, ended.stderr))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert api.load(tmp_path / "run", trust=True).config.epochs == 6
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "mended").touch()
    for name in ("run", "whole"):
        assert command([*said, f"hydra.run.dir={name}"], tmp_path).code == 0
    assert not differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run"))


def test_parent_that_can_only_be_read_is_said(tmp_path: Path) -> None:
    """Somebody else's folder, or a mistyped one: before anything is trained."""
    outcome = command([*LINEAR, "hydra.run.dir=/proc/nowhere/run"], tmp_path)
    assert outcome.code == 1
    assert "/proc/nowhere" in outcome.err
    assert len(outcome.err.splitlines()) <= 2
