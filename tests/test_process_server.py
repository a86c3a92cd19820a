"""A fork of the server of tests is like a new process, but for the libraries that it has imported."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import process_server
import pytest
from command import Outcome, forked_process, process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")

PROGRAM = """
import os, sys
modules = sorted(name for name in sys.modules if name.partition(".")[0] in ("aetrain", "hydra_plugins"))
print(sys.argv, sys.path, os.getcwd(), sorted(os.environ.items()), __name__, sys.stdin.read(), modules)
print("a message", file=sys.stderr)
sys.exit("the end" if sys.argv[1] == "text" else int(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Outcome]:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "work").mkdir()

    def start(run: Callable[..., Outcome], argument: str, is_module: bool) -> Outcome:
        program = [sys.executable, "-m", "program"] if is_module else [sys.executable, str(tmp_path / "program.py")]
        paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        return run([argument, "b c"], tmp_path / "work", program=program, PYTHONPATH=paths, OWN_VARIABLE="1")

    return start


@pytest.mark.parametrize("is_module", [True, False])
@pytest.mark.parametrize("argument", ["0", "3", "text"])
def test_fork_is_like_a_new_process(argument: str, is_module: bool, start: Callable[..., Outcome]) -> None:
    new, fork = start(process, argument, is_module), start(forked_process, argument, is_module)
    assert fork == new
    assert new.code == {"0": 0, "3": 3, "text": 1}[argument]


def test_signal_and_time_limit(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    assert forked_process([], tmp_path, program=[str(tmp_path / "killed.py")]).code == -9
    with pytest.raises(TimeoutError, match=r"slow.py.* took more than 0.2 s"):
        process_server.run([str(tmp_path / "slow.py")], [], tmp_path, os.environ, 0.2)


def test_libraries_are_imported_before(tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text(f"import sys; print(set({process_server.LIBRARIES}) <= set(sys.modules))")
    assert forked_process([], tmp_path, program=[str(tmp_path / "names.py")]).out == "True\n"
