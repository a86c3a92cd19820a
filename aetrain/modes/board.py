"""`mode=board`: TensorBoard on a folder of runs, with the flags that show all of them, and the link that compares."""

import logging
import socket
import subprocess
import sys
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.directory import TENSORBOARD_FLAGS, shown, tensorboard_link

log = logging.getLogger("aetrain")


def board(run: str | None, port: int = 6006, host: str = "localhost") -> None:
    """Serve `run` (outputs/ where it is null) until it is stopped; ConfigError where that cannot be begun."""
    place = Path(run or "outputs")
    if not place.is_dir():
        raise ConfigError(f"run={place} is no directory: give one with runs in it")
    if not 0 < port < 2**16:
        raise ConfigError(f"mode.port={port} is no port: use one from 1 to 65535, such as 6006")
    link = tensorboard_link(host, port)
    _refuse_taken(host, port, link)
    log.info("TensorBoard on %s, until Ctrl-C:\n\n  %s\n", shown(place), link)
    called = [sys.executable, "-m", "tensorboard.main", "--logdir", str(place), *TENSORBOARD_FLAGS]
    with subprocess.Popen([*called, "--host", host, "--port", str(port)]) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            raise
    if code:
        raise ConfigError(f"TensorBoard ended with exit code {code}, and has said why above")


def _refuse_taken(host: str, port: int, link: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(
            f"mode.port={port} cannot be listened to ({error.strerror}); if TensorBoard has it, open {link}, "
            "or else give another mode.port="
        ) from error
