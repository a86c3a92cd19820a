"""A run's directory: its files, under the names that users rely on, and the lock that keeps other processes out."""

import errno
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from aetrain.config.errors import ConfigError
from aetrain.config.overrides import SAVED
from aetrain.config.renames import ADDED_IN_SECTIONS, upgrade_overrides
from aetrain.config.settings import flatten, role_of
from aetrain.storage import atomic, locks, trust
from aetrain.storage.checkpoint_state import latest_state
from aetrain.storage.old_metrics import upgrade_lines
from aetrain.storage.saved_config import saved_config
from aetrain.utils.processes import command_prefix

log = logging.getLogger("aetrain")

# Metrics that a clock gives, which differ between two otherwise equal runs.
TIMING_METRICS = ("seconds", "train/seconds_per_epoch")

# Errors of the system that mean that a file cannot be written.
WRITE_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ENOLCK")}

MAX_DIFFERENCES_SHOWN = 5

METRICS_TABLE = "metrics.txt"

# In a sweep's directory: a file for each run of the command in progress, with its outcome.
OUTCOMES = ".outcomes"


class DirectoryLocked(ConfigError):
    """Another process writes to the directory: nothing may be written there, not even the error."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_claimed = False  # whether this process has begun to write there
        self.signs_config = True  # whether `claim` signs the config: not one that was refused or comes from elsewhere
        self._lock = FileLock(path / ".hydra" / "lock", timeout=0)  # released by the kernel when its holder dies

    def __str__(self) -> str:
        return display_path(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return RunDirectory, (self.path,)  # another process makes its own lock

    @property
    def status(self) -> str:
        """`finished`, `failed`, `pruned`, `interrupted`, `running`, or `new` where no run has begun."""
        status = self._read_metrics().get("status")
        if status is not None:
            return str(status)
        begun = (self.path / ".hydra" / "config.yaml").is_file() or latest_state(self.path) is not None
        return "running" if begun else "new"

    def metrics(self) -> dict[str, Any]:
        """Return the content of metrics.json; empty where there is none or it is damaged."""
        return upgrade_lines([self._read_metrics()], self.path)[0]

    def _read_metrics(self) -> dict[str, Any]:
        """Return the content of metrics.json as it was written, also by an earlier version."""
        try:
            metrics = json.loads((self.path / "metrics.json").read_text())
        except (OSError, ValueError):
            return {}
        return metrics if isinstance(metrics, dict) else {}

    @property
    def is_locked(self) -> bool:
        """Tell whether a process writes there."""
        return locks.is_locked(self.path / ".hydra" / "lock")

    def overrides(self) -> list[str]:
        """Return the overrides that the run began with, under current names.

        Where the file is damaged, the copy in the checkpoint is returned.
        """
        state = latest_state(self.path)
        copy = list(state.overrides) if state else []
        try:
            content = OmegaConf.to_container(OmegaConf.load(self.path / ".hydra" / "overrides.yaml"))
        except Exception:  # any that a YAML parser raises on a damaged file
            content = copy
        complete = isinstance(content, list) and len(content) >= len(copy)
        overrides = content if isinstance(content, list) and complete else copy
        return upgrade_overrides([str(text) for text in overrides], warn=False)

    def check_same_config(self, config: DictConfig) -> None:
        """Raise ConfigError, naming the differences, where the directory holds a run of another config.

        An unfinished run without a checkpoint does not count: nothing would be lost.
        """
        has_checkpoint = any(self.path.glob("checkpoint*/state.json"))
        if not has_checkpoint and self.status != "finished":
            return
        here = ADDED_IN_SECTIONS | flatten(OmegaConf.to_container(config))
        there = ADDED_IN_SECTIONS | flatten(saved_config(self.path))
        differences = [
            f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key) and role_of(key).identity
        ]
        if differences:
            more = ["..."] if len(differences) > MAX_DIFFERENCES_SHOWN else []
            raise ConfigError(
                f"{self.path} holds a run of another config, with which alone it continues:\n  "
                + "\n  ".join(differences[:MAX_DIFFERENCES_SHOWN] + more)
                + f"\n  start={self.path} begins a new run with its weights and these settings; a new run without its "
                "weights needs another directory (hydra.run.dir=)"
            )

    def claim(self, config: DictConfig, overrides: Sequence[str]) -> None:
        """Lock the directory, write the config of the run as Hydra lays it out, and sign it.

        `trust` becomes false in `config`: it is the permission of one command.
        """
        folder = self.path / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        self.lock()
        try:
            self.check_same_config(config)  # another process may have written it since the last check
        except ConfigError:
            self.release()
            raise
        self.is_claimed = True
        for unfinished in (*self.path.glob("*.new"), *self.path.glob("*/*.new")):
            if unfinished.is_file():  # left by a killed process
                unfinished.unlink()
        self.write_metrics({"status": "running"})
        atomic.replace_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
        if config.get("trust"):
            config["trust"] = False
        config_yaml = OmegaConf.to_yaml(config)
        from_run = any(text.endswith(f"={SAVED}") for text in overrides)  # an evaluation, which is never a source
        if self.signs_config and not from_run:
            trust.sign(self.path, config_yaml.encode())
        atomic.replace_text(folder / "config.yaml", config_yaml)

    def lock(self) -> None:
        """Keep other processes out until `release`. Raise DirectoryLocked where one is writing there."""
        try:
            self._lock.acquire()
        except Timeout:
            raise DirectoryLocked(
                f"{self} is being written to by another process: wait for it, or use another directory"
            ) from None

    def release(self) -> None:
        """Let other processes write there."""
        self._lock.release()

    def record_failure(
        self, config: DictConfig, overrides: Sequence[str], status: str, cause: str, error: Exception | None = None
    ) -> bool:
        """Write the cause of a run's end into its log and metrics.json; return False where that is not possible."""
        with suppress(OSError, ConfigError):
            if not self.is_claimed:
                self.signs_config = False
                self.claim(config, overrides)
            with self.logging():
                if status == "pruned":
                    log.info("%s", cause)
                else:
                    log.error("%s", cause if status == "interrupted" else f"{status}: {cause}", exc_info=error)
            self.write_metrics({"status": status, "cause": cause})
            return True
        return False

    def record_outcome(self, status: str, cause: str = "") -> None:
        """Record how a run of a sweep ended where `Sweep` reads it: `refused`, or its status.

        A refused run did not begin: its directory holds another run.
        """
        if status == "refused":
            log.error("%s: %s", self.path.name, cause)
        with suppress(OSError):
            atomic.replace_text(self.outcome_file, json.dumps({"status": status, "cause": cause}) + "\n")

    @property
    def outcome_file(self) -> Path:
        """The file in the sweep's directory that holds the outcome of this run."""
        return self.path.parent / OUTCOMES / self.path.name

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace metrics.json: names to numbers, and `status`."""
        atomic.replace_text(self.path / "metrics.json", json.dumps(metrics, indent=1) + "\n")

    def write_metrics_table(self, text: str) -> None:
        """Replace metrics.txt: all metrics with their descriptions, to read."""
        atomic.replace_text(self.path / METRICS_TABLE, text + "\n")

    def write_findings(self, findings: Sequence[Mapping[str, str]]) -> None:
        """Replace findings.json: the findings of the diagnostics, each with `what`, `evidence` and `remedy`."""
        atomic.replace_text(self.path / "findings.json", json.dumps(list(findings), indent=1) + "\n")

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Append an epoch to history.jsonl."""
        with (self.path / "history.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """Return the epochs of history.jsonl up to the first line that is cut off."""
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
        return upgrade_lines(lines, self.path)

    def write_history(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Replace history.jsonl, as when a run is resumed from before its end."""
        atomic.replace_text(self.path / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    @contextmanager
    def reporting_write_errors(self) -> Iterator[None]:
        """Turn an OSError that means that the directory cannot be written into a ConfigError."""
        try:
            yield
        except OSError as error:
            elsewhere = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(self.path)
            if error.errno not in WRITE_ERRORS or elsewhere:
                raise
            raise ConfigError(
                f"{self} cannot be written to: {error.strerror}; files written before are kept, and "
                f"{resume_command(self.path)} continues a training once the directory can be written to"
            ) from error

    @contextmanager
    def logging(self, exclusive: bool = False) -> Iterator[None]:
        """Copy the log to aetrain.log; `exclusive` sends it nowhere else."""
        handler = logging.FileHandler(self.path / "aetrain.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        before = root.handlers
        root.handlers = [handler] if exclusive else [*before, handler]
        try:
            yield
        finally:
            root.handlers = before
            handler.close()


def display_path(path: Path) -> str:
    """Return a path as a person would type it: relative where it is below the working directory."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def resume_command(path: Path) -> str:
    """Return the shell command that continues the training in a run directory."""
    return shlex.join([*command_prefix(), f"resume={display_path(path)}"])
