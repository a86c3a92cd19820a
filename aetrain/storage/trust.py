"""Trust in run directories: the runs that this user made on this machine are known by a signature.

`.hydra/signature` holds message authentication codes of the run's config: HMAC-SHA256 (RFC 2104) in hexadecimal, one a
line, newest first. The key is in the user's own data folder and never in a run. A directory that was made elsewhere has
no code of this key, and a changed config has another code.
"""

import hmac
import logging
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from aetrain.storage import atomic

log = logging.getLogger("aetrain")

SIGNATURE = Path(".hydra") / "signature"
KEY_FILE_VARIABLE = "AETRAIN_KEY_FILE"  # the environment variable that names another key file
KEY_BYTES = 32

# Codes that a run keeps. A run that is resumed with other settings has a code for each of its configs: a kill may leave
# the earlier text in config.yaml, and the checkpoint has a copy of it.
MAX_CODES = 8
MAX_SIGNATURE_BYTES = 4096


def sign(run: Path, config_yaml: bytes) -> None:
    """Sign the text of a run's config. Without a key, and where none can be made, nothing is written.

    The signature is written ahead of the text, so that a kill between them leaves a signed config.
    """
    key = _read_key() or _create_key()
    if key is None:
        return
    codes = dict.fromkeys([_code(key, config_yaml), *_read_codes(run)])
    atomic.replace(run / SIGNATURE, b"".join(code + b"\n" for code in list(codes)[:MAX_CODES]))


def is_signed(run: Path, config_yaml: bytes) -> bool:
    """Return whether this user has signed this text as the config of a run. No key is made."""
    key = _read_key()
    if key is None:
        return False
    code = _code(key, config_yaml)
    return any(hmac.compare_digest(code, other) for other in _read_codes(run))


def key_file() -> Path:
    """Return the path of the key: AETRAIN_KEY_FILE, or `aetrain/key` in the user's data folder of this system.

    Raise RuntimeError where the user has no home folder.
    """
    if path := os.environ.get(KEY_FILE_VARIABLE):
        return Path(path)
    return _data_folder() / "aetrain" / "key"


def _data_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    windows = sys.platform == "win32"
    folder = Path(os.environ.get("LOCALAPPDATA" if windows else "XDG_DATA_HOME", ""))
    if folder.is_absolute():  # the XDG specification says to ignore a relative path
        return folder
    return Path.home() / "AppData" / "Local" if windows else Path.home() / ".local" / "share"


def _code(key: bytes, config_yaml: bytes) -> bytes:
    return hmac.new(key, config_yaml, "sha256").hexdigest().encode()


def _read_codes(run: Path) -> list[bytes]:
    try:
        with (run / SIGNATURE).open("rb") as file:
            return file.read(MAX_SIGNATURE_BYTES).splitlines()
    except OSError:
        return []


def _read_key() -> bytes | None:
    """Return the key; None where there is none that can be read."""
    try:
        key = key_file().read_bytes()
    except (OSError, RuntimeError):
        return None
    return key if len(key) == KEY_BYTES else None


def _create_key() -> bytes | None:
    """Make the key unless another process has made it, and return it; None where the folder cannot be written to."""
    try:
        path = key_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path, secrets.token_bytes(KEY_BYTES))
    except (OSError, RuntimeError) as error:
        log.debug("runs are not signed, as there is no key: %s", error)
        return None
    return _read_key()


def _write_once(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read. A file that exists stays; no reader sees half a file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # mode 0600
    os.close(descriptor)
    try:
        atomic.write(Path(name), content)
        with suppress(FileExistsError):
            os.link(name, path)  # os.replace would remove the key of another process
    finally:
        os.unlink(name)
