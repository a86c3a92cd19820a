"""A run's directory: who may write there, what it holds, and that nothing in it is ever half a file."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError

log = logging.getLogger("aetrain")

# Settings that may differ when a run is continued: where and how, not what.
FREE = ("mode", "run", "query", "resume", "retry", "trust", "device", "data_dir", "epochs", "views", "dataset.path")

# Figures that a clock gives, and so differ between two runs that are the same in all else.
TIMINGS = ("seconds", "train/seconds_per_epoch")

MANY = 5  # settings that are told to differ


class Taken(ConfigError):
    """Somebody else is writing to the directory, so nothing may be written there, not even that."""


class RunDirectory:
    """The files of one run, in the names that users and scripts rely on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claimed = False  # whether this process has begun to write there
        self._lock = FileLock(path / ".hydra" / "lock", timeout=0)  # which the kernel opens when its holder dies

    def __str__(self) -> str:
        return shown(self.path)

    @property
    def status(self) -> str:
        """`finished`, `failed`, `interrupted`, `running`, or `new` where no run has begun."""
        if not (self.path / ".hydra" / "config.yaml").is_file():
            return "new"
        return str(self.metrics().get("status", "running"))

    def metrics(self) -> dict[str, Any]:
        """What metrics.json says; empty where there is none."""
        try:
            metrics = json.loads((self.path / "metrics.json").read_text())
        except (OSError, ValueError):
            return {}
        return metrics if isinstance(metrics, dict) else {}

    @property
    def alive(self) -> bool:
        """Whether a process is writing there."""
        if not (self.path / ".hydra" / "lock").is_file():
            return False
        try:
            with FileLock(self._lock.lock_file, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a directory that cannot be written to
            return False

    def overrides(self) -> list[str]:
        """What the command line said when the run began."""
        try:
            said = OmegaConf.to_container(OmegaConf.load(self.path / ".hydra" / "overrides.yaml"))
        except Exception:  # whatever a YAML parser may raise on a damaged file
            return []
        return [str(text) for text in said] if isinstance(said, list) else []

    def refuse_another(self, config: DictConfig) -> None:
        """A ConfigError that names what differs, where the directory holds a run of another config.

        A run that never got as far as a checkpoint is none: there is nothing to lose.
        """
        if self.status != "finished" and not any(self.path.glob("checkpoint*/state.json")):
            return
        ours, theirs = flat(OmegaConf.to_container(config)), flat(saved_config(self.path))
        differ = [
            f"{key}: {theirs.get(key, 'absent')} there, {ours.get(key, 'absent')} here"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key) and not f"{key}.".startswith(tuple(f"{free}." for free in FREE))
        ]
        if differ:
            more = ["..."] if len(differ) > MANY else []
            raise ConfigError(
                f"{self.path} holds a run of another config: give hydra.run.dir= another directory\n  "
                + "\n  ".join(differ[:MANY] + more)
            )

    def claim(self, config: DictConfig, overrides: Sequence[str]) -> None:
        """Keep others out, and write the config that the run is made from, as Hydra lays it out.

        Taken where another process is writing there; `release` lets others in again.
        """
        folder = self.path / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise Taken(f"{self} is being written to by another process: wait for it, or give another directory") from (
                None
            )
        try:
            self.refuse_another(config)  # which may have been written since this process has looked
        except ConfigError:
            self.release()
            raise
        self.claimed = True
        for unfinished in (*self.path.glob("*.new"), *folder.glob("*.new"), *self.path.glob("figures/*.new")):
            if unfinished.is_file():  # what a killed process has left
                unfinished.unlink()
        self.write_metrics({"status": "running"})
        write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
        write(folder / "config.yaml", OmegaConf.to_yaml(config))

    def release(self) -> None:
        """Let others write there."""
        self._lock.release()

    def record_failure(
        self, config: DictConfig, overrides: Sequence[str], status: str, cause: str, error: Exception | None = None
    ) -> None:
        """Leave the cause of a run's end in its log and metrics.json, as far as anything can be written there."""
        with suppress(OSError):
            if not self.claimed:
                self.claim(config, overrides)
            with self.logging():
                log.error("%s", cause if status == "interrupted" else f"{status}: {cause}", exc_info=error)
            self.write_metrics({"status": status, "cause": cause})

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace metrics.json: flat, name to number, and `status`."""
        write(self.path / "metrics.json", json.dumps(metrics, indent=1) + "\n")

    def count_anew(self) -> None:
        """Mark a record of the past as one of this command's, too."""
        with suppress(OSError):
            os.utime(self.path / "metrics.json")

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Add an epoch to history.jsonl."""
        with (self.path / "history.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The epochs so far; a last line that was cut off is left out."""
        lines = []
        try:
            text = (self.path / "history.jsonl").read_text()
        except FileNotFoundError:
            return []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def write_history(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Replace history.jsonl, as where a run is continued, or begun anew, from before its end."""
        write(self.path / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Everything that is logged inside goes into aetrain.log, too."""
        handler = logging.FileHandler(self.path / "aetrain.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()


def write(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new, never half of it.

    A file that says so already is not touched.
    """
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:  # such as a full disk: what was there before stays
        with suppress(OSError):
            new.unlink()
        raise


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: {"optimizer.lr": 0.001, ...}."""
    if not isinstance(node, Mapping):
        return {key: node}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{key}.{name}" if key else str(name)).items()}


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it is below the working directory."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def tensorboard_command(logdir: Path) -> str:
    """What opens TensorBoard on a folder, to be typed where this process was started.

    TensorBoard keeps 10 pictures of a tag by default, drawn by lot: more are asked for, so that none is missing.
    """
    beside = Path(sys.executable).with_name("tensorboard")
    found = shutil.which("tensorboard")
    on_path = found is not None and Path(found) == beside
    program = "tensorboard" if on_path or not beside.is_file() else shown(beside)
    return f"{program} --logdir {shown(logdir)} --samples_per_plugin images=500,scalars=50000"
