"""`mode=board`: start TensorBoard on a folder of runs, with the flags that show all of them."""

import logging
import socket
import subprocess
import sys
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.storage.run_directory import display_path
from aetrain.views.tensorboard_link import TENSORBOARD_FLAGS, tensorboard_link

log = logging.getLogger("aetrain")


def board(run: str | None, port: int = 6006, host: str = "localhost") -> None:
    """Serve `run` (outputs/ where it is null) until Ctrl-C. Raise ConfigError where that is not possible."""
    folder = Path(run or "outputs")
    if not folder.is_dir():
        raise ConfigError(f"run={folder} is no directory: use one that holds runs")
    if not 0 < port < 2**16:
        raise ConfigError(f"mode.port={port} is no port: use one from 1 to 65535, such as 6006")
    link = tensorboard_link(host, port)
    _check_port(host, port, link)
    log.info("TensorBoard on %s, until Ctrl-C:\n\n  %s\n", display_path(folder), link)
    command = [sys.executable, "-m", "aetrain.views.tensorboard_server", "--logdir", str(folder), *TENSORBOARD_FLAGS]
    with subprocess.Popen([*command, "--host", host, "--port", str(port)]) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            raise
    if code:
        raise ConfigError(f"TensorBoard ended with exit code {code}: its message is above")


def _check_port(host: str, port: int, link: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(
            f"mode.port={port} is not available ({error.strerror}): if TensorBoard uses it, open {link}, otherwise use "
            "another mode.port="
        ) from error
