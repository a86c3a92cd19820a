"""A run that this user made needs no trust=true; one from elsewhere, or with a changed config, runs no code without."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from command import Outcome, command, process
from conftest import ROOT, TINY

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.runs import entry
from aetrain.runs.request import RunRequest
from aetrain.storage import trust
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.saved_config import saved_config

SIGNATURE = Path(".hydra", "signature")
CONFIG = Path(".hydra", "config.yaml")
CHEAP = (*TINY, "model=linear", "model.code_dim=3")

OWN = """\
class Inverted:
    def __call__(self, x, generator=None):
        return 1 - x
"""
# Its name differs in one letter. The import leaves a trace.
FOREIGN = "from pathlib import Path\nPath(__file__).with_name('trace').touch()\n" + OWN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with the user's module and option, in the current directory, and a key of its own."""
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "mine" / "noise" / "inverted.yaml").write_text("# Inverted.\n_target_: own_noise.Inverted\n")
    (tmp_path / "own_noise.py").write_text(OWN)
    (tmp_path / "pwn_noise.py").write_text(FOREIGN)
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(tmp_path / "data" / "key"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("own_noise", "pwn_noise"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Path:
    """Return the directory of a run with the user's noise."""
    train(folder)
    return folder / "run"


def train(folder: Path, *overrides: str, name: str = "run") -> None:
    done(["--config-dir", "mine", *CHEAP, "noise=inverted", f"hydra.run.dir={name}", *overrides], folder)


def done(arguments: Sequence[str], folder: Path) -> Outcome:
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(arguments: Sequence[str], folder: Path, *texts: str) -> None:
    """Check that a command is refused with these texts, and that no code of the foreign module was run."""
    outcome = command(arguments, folder)
    assert outcome.code == 1
    for text in texts:
        assert text in outcome.err
    assert "Traceback" not in outcome.err
    assert not (folder / "trace").exists()


def change(run: Path, old: str, new: str) -> None:
    text = (run / CONFIG).read_text()
    assert old in text
    (run / CONFIG).write_text(text.replace(old, new))


def change_copies(run: Path, config_yaml: str) -> None:
    """Put a config into a run and into its checkpoint, as anybody can who knows the format."""
    from aetrain.storage.checkpoint_state import CHECKPOINT, STATE_FILE, CheckpointState, read_state

    state = read_state(run / CHECKPOINT)
    changed = CheckpointState(state.epoch, state.sha256, config_yaml, state.overrides)
    (run / CHECKPOINT / STATE_FILE).write_bytes(changed.to_json())
    shutil.rmtree(run / "checkpoint.previous", ignore_errors=True)
    (run / CONFIG).write_text(config_yaml)


# --- Own runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_run_needs_no_trust_in_new_processes(folder: Path) -> None:
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    module = [sys.executable, "-m", "aetrain"]
    program = "import aetrain; print(aetrain.load('run').config.noise._target_)"
    for arguments, interpreter in (
        (["--config-dir", "mine", *CHEAP, "noise=inverted", "hydra.run.dir=run"], module),
        (["mode=eval", "run=run"], module),
        (["resume=run", "epochs=2"], module),
        (["mode=eval", "run=run", "noise=none,masking", "-m"], module),
        (["-c", program], [sys.executable]),
        (["mode=report", "run=run"], module),
    ):
        outcome = process(arguments, folder, program=interpreter, **paths)
        assert outcome.code == 0, outcome.err
        if arguments[0] == "-c":
            assert outcome.out.strip() == "own_noise.Inverted"


@pytest.mark.slow
def test_own_run_stays_trusted_after_resume_and_copy(folder: Path, run: Path) -> None:
    done(["resume=run", "epochs=2"], folder)
    done(["mode=eval", "run=run"], folder)
    shutil.copytree(run, folder / "elsewhere" / "copy")
    done(["mode=eval", "run=elsewhere/copy", "noise=none"], folder)
    done(["resume=elsewhere/copy", "epochs=3"], folder)
    assert aetrain.load(folder / "elsewhere" / "copy").metrics["epochs"] == 3
    assert aetrain.api.run(["mode=eval", "run=run"]).metrics["epochs"] == 2


def test_copy_in_the_checkpoint_is_trusted(folder: Path, run: Path) -> None:
    (run / CONFIG).unlink()
    done(["mode=eval", "run=run"], folder)
    assert not (run / CONFIG).exists()
    (run / CONFIG).write_text("model:")
    done(["mode=eval", "run=run"], folder)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=packed"]])
def test_runs_of_a_sweep_are_signed(launcher: Sequence[str], folder: Path) -> None:
    chosen = ["noise=inverted", "seed=0,1", "hydra.sweep.dir=sweep", *launcher]
    done(["--config-dir", "mine", "-m", *CHEAP, *chosen], folder)
    for seed in (0, 1):
        done(["mode=eval", f"run=sweep/seed={seed}"], folder)


@pytest.mark.slow
def test_permission_is_not_saved(folder: Path, run: Path) -> None:
    before = (run / CONFIG).read_text()
    done(["resume=run", "epochs=2", "trust=true"], folder)
    assert saved_config(run)["trust"] is False
    assert (run / CONFIG).read_text() == before.replace("epochs: 1", "epochs: 2")
    done(["resume=run", "epochs=3"], folder)
    assert (run / CONFIG).read_text() == before.replace("epochs: 1", "epochs: 3")


def test_user_can_withdraw_trust(folder: Path, run: Path) -> None:
    refused(["mode=eval", "run=run", "trust=false"], folder, "noise._target_=own_noise.Inverted", "trust=true")


@pytest.mark.slow
def test_run_from_elsewhere_is_signed_once_the_user_trusts_it(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(folder / "another"))
    done(["resume=run", "epochs=2", "trust=true"], folder)
    done(["resume=run", "epochs=3"], folder)


# --- Runs from elsewhere ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_changed_config_is_refused(folder: Path, run: Path) -> None:
    change(run, "own_noise.Inverted", "pwn_noise.Inverted")
    texts = ("noise._target_=pwn_noise.Inverted", "made elsewhere", "config was changed", "trust=true")
    refused(["mode=eval", "run=run"], folder, *texts)
    refused(["resume=run", "epochs=2"], folder, *texts)
    with pytest.raises(ConfigError, match="trust=true"):
        aetrain.load(run)
    refused(["mode=eval", "run=run", "-m", "seed=0,1"], folder)
    refused(["mode=eval", "run=run"], folder, *texts)  # the refused sweep has signed nothing
    assert command(["mode=eval", "run=run", "trust=true"], folder).code == 0
    assert (folder / "trace").exists()


def test_any_change_is_one_from_elsewhere(folder: Path, run: Path) -> None:
    change(run, "seed: 0", "seed: 1")
    refused(["mode=eval", "run=run"], folder, "noise._target_=own_noise.Inverted", "trust=true")


def test_changed_copy_in_the_checkpoint_is_refused(folder: Path, run: Path) -> None:
    text = (run / CONFIG).read_text()
    change_copies(run, text.replace("own_noise.Inverted", "pwn_noise.Inverted\n  extra: 1"))
    (run / CONFIG).write_text(text)  # it is signed, but lacks a setting of the copy, which is therefore used
    refused(["mode=eval", "run=run"], folder, "noise._target_=pwn_noise.Inverted", "trust=true")
    change_copies(run, text.replace("own_noise", "pwn_noise"))
    (run / CONFIG).unlink()
    refused(["mode=eval", "run=run"], folder, "noise._target_=pwn_noise.Inverted", "trust=true")


@pytest.mark.slow
def test_signature_of_another_key_is_refused(folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(folder / "another"))
    refused(["mode=eval", "run=run"], folder, "noise._target_=own_noise.Inverted", "trust=true")
    assert not (folder / "another").exists()  # reading makes no key
    train(folder, name="other")
    refused(["mode=eval", "run=run"], folder, "trust=true")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"0" * 64, b"\n" * 100_000])
def test_damaged_signature_is_none(content: bytes, folder: Path, run: Path) -> None:
    (run / SIGNATURE).write_bytes(content)
    refused(["mode=eval", "run=run"], folder, "trust=true")


def test_resumed_run_from_elsewhere_is_not_signed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done([*CHEAP, "hydra.run.dir=run"], folder)
    (folder / "run" / SIGNATURE).unlink()
    done(["resume=run", "epochs=2"], folder)  # it names no code but aetrain's
    assert not (folder / "run" / SIGNATURE).exists()


@pytest.mark.slow
def test_refused_run_of_a_sweep_is_not_signed(folder: Path, run: Path) -> None:
    change(run, "own_noise.Inverted", "pwn_noise.Inverted")
    command(["-m", "mode=eval", "run=run", "seed=1,2"], folder)
    assert list((run / "eval").glob("*/.hydra/config.yaml"))
    assert not list((run / "eval").glob("*/.hydra/signature"))


def test_failure_before_the_check_is_not_signed(folder: Path, run: Path) -> None:
    config, _, overrides = aetrain.api.compose_config(["mode=eval", "run=run", "trust=false"])
    run_dir = RunDirectory(folder / "new")
    with pytest.raises(ConfigError, match="trust=true"):
        entry.run_request(RunRequest(config, run_dir, overrides, single=False))
    assert (folder / "new" / CONFIG).exists()
    assert not (folder / "new" / SIGNATURE).exists()


SHELL = {"_target_": "torch.utils.collect_env.run", "command": "touch trace"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "root"),
    [
        (SHELL, {"++trust": True}),
        (SHELL, {"trust": True}),
        ({}, {f"+hydra.callbacks.evil.{key}": value for key, value in SHELL.items()}),
        (SHELL | {"defaults": [{"/noise@_global_.hydra.callbacks.evil": "saved"}, "_self_"]}, {}),
    ],
)
def test_config_of_a_run_sets_nothing_beyond_the_run(
    section: dict[str, object], root: dict[str, object], folder: Path
) -> None:
    done([*CHEAP, "hydra.run.dir=run"], folder)
    config = yaml.safe_load((folder / "run" / CONFIG).read_text())
    change_copies(folder / "run", yaml.safe_dump(config | root | {"noise": section or config["noise"]}))
    for arguments in (["mode=eval", "run=run"], ["resume=run", "epochs=2"], ["mode=check", "run=run"]):
        refused(arguments, folder)


# --- The key ----------------------------------------------------------------------------------------------------------


def test_key_is_readable_by_its_owner_alone(folder: Path, run: Path) -> None:
    key = folder / "data" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in key.parent.iterdir()] == ["key"]
    assert len(key.read_bytes()) == trust.KEY_BYTES


def test_run_holds_nothing_of_the_key(folder: Path, run: Path) -> None:
    key = (folder / "data" / "key").read_bytes()
    for file in run.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert key not in content
            assert key.hex().encode() not in content
    assert len((run / SIGNATURE).read_bytes()) == 65


def test_without_a_key_runs_are_trained_and_not_signed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a_file").touch()
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(folder / "a_file" / "key"))
    train(folder)
    assert not (folder / "run" / SIGNATURE).exists()
    refused(["mode=eval", "run=run"], folder, "trust=true")
    done(["mode=eval", "run=run", "trust=true"], folder)


def test_missing_key_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(tmp_path / "a_file" / "key"))
    with caplog.at_level("DEBUG", "aetrain"):
        trust.sign(tmp_path, b"text")
    (record,) = caplog.records
    assert "not signed" in record.getMessage()
    assert str(tmp_path / "a_file") in record.getMessage()


def test_damaged_key_signs_nothing(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "key").write_bytes(b"short")
    train(folder)
    assert not (folder / "run" / SIGNATURE).exists()
    assert (folder / "data" / "key").read_bytes() == b"short"


SIGN_EACH_LINE = """
import os, sys
from pathlib import Path
from aetrain.storage import trust
for line in sys.stdin:
    os.environ["AETRAIN_KEY_FILE"], run = line.split()
    trust.sign(Path(run, sys.argv[1]), b"text")
"""


def test_processes_that_make_the_key_at_once_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [str(number) for number in range(4)]
    command_line = [sys.executable, "-c", SIGN_EACH_LINE]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    signers = [subprocess.Popen([*command_line, number], stdin=subprocess.PIPE, env=environment) for number in numbers]
    attempts = [(tmp_path / f"data{attempt}" / "key", tmp_path / f"run{attempt}") for attempt in range(30)]
    for key, run in attempts:
        for signer in signers:
            assert signer.stdin is not None
            signer.stdin.write(f"{key} {run}\n".encode())
            signer.stdin.flush()
    for signer in signers:
        signer.communicate()
        assert signer.returncode == 0
    for key, run in attempts:
        monkeypatch.setenv("AETRAIN_KEY_FILE", str(key))
        assert all(trust.is_signed(run / number, b"text") for number in numbers)


def test_earlier_texts_stay_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may leave the earlier text in config.yaml, and the checkpoint has a copy of it."""
    monkeypatch.setenv("AETRAIN_KEY_FILE", str(tmp_path / "key"))
    texts = [f"epochs: {number}".encode() for number in range(20)]
    for text in [*texts, texts[-2], texts[-1]]:
        trust.sign(tmp_path, text)
    assert [trust.is_signed(tmp_path, text) for text in texts[-trust.MAX_CODES :]] == [True] * trust.MAX_CODES
    assert not trust.is_signed(tmp_path, texts[0])
    assert not trust.is_signed(tmp_path, b"another")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.local/share/aetrain/key"),
        ("linux", {"XDG_DATA_HOME": "{}/xdg"}, "xdg/aetrain/key"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "home/.local/share/aetrain/key"),
        ("linux", {"AETRAIN_KEY_FILE": "{}/chosen"}, "chosen"),
        ("darwin", {}, "home/Library/Application Support/aetrain/key"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local/aetrain/key"),
        ("win32", {}, "home/AppData/Local/aetrain/key"),
    ],
)
def test_key_is_in_the_data_folder_of_the_user(
    platform: str, variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AETRAIN_KEY_FILE", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert trust.key_file() == tmp_path / expected
