"""Start the command in a process that has imported libraries, but nothing of aetrain: a fork of a server.

Importing torch takes most of the time of a small run in a new process. Each fork imports aetrain anew, from the folders
of its own PYTHONPATH, and ends like a new process. The server forks one process at a time.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torch.utils.tensorboard", "hydra", "hydra.main", "matplotlib.figure", "safetensors.torch")


def run(
    program: Sequence[str], arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> tuple[int, str, str]:
    """Run `program arguments...` in a fork; return its exit code, or minus its signal, its stdout and its stderr.

    `program` is [sys.executable, "-m", module] or a Python script. Raise TimeoutError, and kill the process, if it
    takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as outputs:
        request = {
            "program": [*program],
            "arguments": [*arguments],
            "folder": str(folder),
            "environment": dict(environment),
            "outputs": outputs,
            "timeout": timeout,
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        out, err = (Path(outputs, name).read_text() for name in ("out", "err"))
    if code is None:
        raise TimeoutError(f"{program} {arguments} took more than {timeout} s: {err}")
    return code, out, err


@cache
def _server() -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_stop, server)
    return server


def _stop(server: "subprocess.Popen[str]") -> None:
    with server:  # closes the pipes, which ends the server
        pass


def serve() -> dict[str, Any] | None:
    """Fork a process for each request, and print its exit code. Return the request in the fork, None at the end."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        print(json.dumps(_wait(pid, request["timeout"])), flush=True)
    return None


def _wait(pid: int, timeout: float) -> int | None:
    """Return the exit code of a child, or minus the signal that killed it; None, and kill it, after `timeout` s."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(timeout, kill)
    timer.start()
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    timer.join()
    return None if late.is_set() else os.waitstatus_to_exitcode(status)


def become(request: Mapping[str, Any]) -> None:
    """Run the program of a request in this process, as Python runs it."""
    inputs = os.open(os.devnull, os.O_RDONLY)
    os.dup2(inputs, 0)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(request["outputs"], name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    program = request["program"]
    _, *options = program if program[0] == sys.executable else [sys.executable, *program]
    is_module = options[0] == "-m"
    first = request["folder"] if is_module else str(Path(options[0]).parent)
    sys.path[:] = [first, *paths, *(path for path in sys.path[1:] if path not in BEFORE)]
    sys.argv = [options[1] if is_module else options[0], *request["arguments"]]
    importlib.invalidate_caches()
    if is_module:
        runpy.run_module(options[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(options[0], run_name="__main__")


BEFORE = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    assert not [name for name in sys.modules if name.partition(".")[0] == "aetrain"]
    if (own_request := serve()) is not None:
        become(own_request)
