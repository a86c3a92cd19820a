"""Real disks that are full and folders that are read-only: the run reports it and can be resumed."""

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
    """Return the message of a command that failed because a file could not be written."""
    values = outcome if isinstance(outcome, dict) else vars(outcome)
    err = str(values["err"])
    assert values["code"] == 1, values
    assert err.startswith("aetrain: ")
    assert "cannot be written to" in err
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err + str(values["out"])
    return err


@pytest.fixture(scope="module")
def unshare() -> list[str]:
    """Return the beginning of a command that runs in its own mount namespace; skip the test where there is none."""
    words = namespace()
    if not words:
        pytest.skip("no file system can be mounted, not even in a user namespace")
    return words


@pytest.mark.slow
def test_run_on_a_full_disk_stops_with_a_message_and_resumes_exactly(unshare: list[str], tmp_path: Path) -> None:
    """Five amounts of free space; the same command later gives the same run as without a full disk."""
    outcomes = small_disk(unshare, tmp_path, "filled", *LINEAR)
    assert len(outcomes) == 5
    for outcome in outcomes:
        assert "No space left on device" in one_message(outcome["first"])
        assert not outcome["unfinished"]
        assert outcome["repeated"]["code"] == 0, outcome["repeated"]
        assert not outcome["differences"]


@pytest.mark.slow
def test_run_on_a_read_only_disk_stops_with_a_message_and_resumes_exactly(unshare: list[str], tmp_path: Path) -> None:
    (outcome,) = small_disk(unshare, tmp_path, "read_only", *LINEAR)
    assert "Read-only file system" in one_message(outcome["first"])
    assert outcome["repeated"]["code"] == 0, outcome["repeated"]
    assert not outcome["differences"]


# A noise that makes the run's directory read-only during training.
MODULE = '''
from pathlib import Path
from aetrain.data.noise import NoNoise


class Sealing(NoNoise):
    """Make the run's directory read-only after some calls."""

    calls = 0

    def __call__(self, x, generator=None):
        Sealing.calls += 1
        if Sealing.calls == 7 and not Path("repaired").exists():
            Path("run").chmod(0o555)
        return x
'''


@pytest.mark.slow
def test_run_in_a_folder_that_becomes_read_only_stops_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open files stay open, and no new file can be created; root first has to drop its rights."""
    drop_rights = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop_rights and (
        not shutil.which("setpriv") or subprocess.run([*drop_rights, "true"], capture_output=True).returncode
    ):
        pytest.skip("root may write anywhere, and setpriv cannot drop that right")
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "sealing.py").write_text(MODULE)
    (tmp_path / "mine" / "noise" / "sealing.yaml").write_text(
        "# Makes the directory read-only.\n_target_: sealing.Sealing\n"
    )
    overrides = ["--config-dir", "mine", *LINEAR, "noise=sealing", "epochs=6"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    program = [*drop_rights, *aetrain(), *overrides, "hydra.run.dir=run"]
    completed = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "Permission denied" in one_message(Outcome(completed.returncode, completed.stdout, completed.stderr))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert api.load(tmp_path / "run", trust=True).config.epochs == 6
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "repaired").touch()
    for name in ("run", "uninterrupted"):
        assert command([*overrides, f"hydra.run.dir={name}"], tmp_path).code == 0
    assert not differences(fingerprint(tmp_path / "uninterrupted"), fingerprint(tmp_path / "run"))


def test_parent_folder_that_cannot_be_created_is_named_before_training(tmp_path: Path) -> None:
    """A folder of another user, or a mistyped one."""
    outcome = command([*LINEAR, "hydra.run.dir=/proc/nowhere/run"], tmp_path)
    assert outcome.code == 1
    assert "/proc/nowhere" in outcome.err
    assert len(outcome.err.splitlines()) <= 2
