"""A run's directory: who may write there, what it holds, and that nothing in it is ever half a file."""

import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError
from aetrain.config.settings import WHERE_AND_HOW
from aetrain.training import disk, state

log = logging.getLogger("aetrain")

# Settings that may differ when a run is continued.
FREE = (*WHERE_AND_HOW, "epochs", "views", "measures", "dataset.path")

# Groups that came later, and what runs from before them did.
LATER = {"augment": {"_target_": "aetrain.data.augment.Same"}}

# Figures that a clock gives, and so differ between two runs that are the same in all else.
TIMINGS = ("seconds", "train/seconds_per_epoch")

UNWRITABLE = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ENOLCK")}

MANY = 5  # settings that are told to differ


REFUSED = ".refused"  # of a sweep's directory: why runs of it were refused, where their own is another run's


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
        if not (self.path / ".hydra" / "config.yaml").is_file() and state.kept(self.path) is None:
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
    def written(self) -> int:
        """When its figures were last written, in nanoseconds; 0 where they never were."""
        metrics = self.path / "metrics.json"
        return metrics.stat().st_mtime_ns if metrics.is_file() else 0

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
        """What the command line said when the run began; as the checkpoint remembers it where the file is damaged."""
        kept = state.kept(self.path)
        copy = list(kept.overrides) if kept else []
        try:
            said = OmegaConf.to_container(OmegaConf.load(self.path / ".hydra" / "overrides.yaml"))
        except Exception:  # whatever a YAML parser may raise on a damaged file
            return copy
        return [str(text) for text in said] if isinstance(said, list) and len(said) >= len(copy) else copy

    def refuse_another(self, config: DictConfig) -> None:
        """A ConfigError that names what differs, where the directory holds a run of another config.

        A run that never got as far as a checkpoint is none: there is nothing to lose.
        """
        if self.status != "finished" and not any(self.path.glob("checkpoint*/state.json")):
            return
        ours, theirs = flat(OmegaConf.to_container(config)), flat({**LATER, **saved_config(self.path)})
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
        """Keep others out, and write the config that the run is made from, as Hydra lays it out."""
        folder = self.path / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        self.take()
        try:
            self.refuse_another(config)  # which may have been written since this process has looked
        except ConfigError:
            self.release()
            raise
        self.claimed = True
        for unfinished in (*self.path.glob("*.new"), *self.path.glob("*/*.new")):
            if unfinished.is_file():  # what a killed process has left
                unfinished.unlink()
        self.write_metrics({"status": "running"})
        write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
        write(folder / "config.yaml", OmegaConf.to_yaml(config))

    def take(self) -> None:
        """Keep others out. Taken where another process is writing there; `release` lets others in again."""
        try:
            self._lock.acquire()
        except Timeout:
            raise Taken(f"{self} is being written to by another process: wait for it, or give another directory") from (
                None
            )

    def release(self) -> None:
        """Let others write there."""
        self._lock.release()

    def record_failure(
        self, config: DictConfig, overrides: Sequence[str], status: str, cause: str, error: Exception | None = None
    ) -> bool:
        """Leave the cause of a run's end in its log and metrics.json; False where it may not, or cannot, be there."""
        with suppress(OSError, ConfigError):
            if not self.claimed:
                self.claim(config, overrides)
            with self.logging():
                log.error("%s", cause if status == "interrupted" else f"{status}: {cause}", exc_info=error)
            self.write_metrics({"status": status, "cause": cause})
            return True
        return False

    def refuse(self, cause: str) -> None:
        """Leave the cause for which a run of a sweep did not begin where the sweep finds it."""
        log.error("%s: %s", self.path.name, cause)
        with suppress(OSError):
            write(self.path.parent / REFUSED / self.path.name, cause)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace metrics.json: flat, name to number, and `status`."""
        write(self.path / "metrics.json", json.dumps(metrics, indent=1) + "\n")

    def write_findings(self, findings: Sequence[Mapping[str, str]]) -> None:
        """Replace findings.json: what the training doctor has found, each with `what`, `evidence` and `remedy`."""
        write(self.path / "findings.json", json.dumps(list(findings), indent=1) + "\n")

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
    def writable(self) -> Iterator[None]:
        """A ConfigError where it turns out inside that nothing more can be written there."""
        try:
            yield
        except OSError as error:
            elsewhere = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(self.path)
            if error.errno not in UNWRITABLE or elsewhere:
                raise
            raise ConfigError(
                f"{self} cannot be written to: {error.strerror}; what was written before is kept, and "
                "where that is mended the same command goes on from there"
            ) from error

    @contextmanager
    def logging(self, alone: bool = False) -> Iterator[None]:
        """Everything that is logged inside goes into aetrain.log, too; nowhere else where `alone`."""
        handler = logging.FileHandler(self.path / "aetrain.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        before = root.handlers
        root.handlers = [handler] if alone else [*before, handler]
        try:
            yield
        finally:
            root.handlers = before
            handler.close()


def write(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    disk.replace(path, text.encode())


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: {"optimizer.lr": 0.001, ...}."""
    if not isinstance(node, Mapping):
        return {key: node}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{key}.{name}" if key else str(name)).items()}


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it is below the working directory."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# TensorBoard keeps 10 pictures of a tag by default, drawn by lot: more are asked for, so that none is missing.
TENSORBOARD_FLAGS = ("--samples_per_plugin", "images=500,scalars=50000")


def tensorboard_command(logdir: Path) -> str:
    """What opens TensorBoard on a folder, to be typed where this process was started."""
    beside = Path(sys.executable).with_name("tensorboard")
    found = shutil.which("tensorboard")
    on_path = found is not None and Path(found) == beside
    program = "tensorboard" if on_path or not beside.is_file() else shown(beside)
    return " ".join([program, "--logdir", shown(logdir), *TENSORBOARD_FLAGS])


# A run's name without its seed, and without the time it began, which gives the seeds of one setting one colour.
SEEDLESS = r"^(.*?),?seed=\d+([^/]*)|^(.*?)(?:/\d{8}-[^/]*)?$"
MAIN_TAGS = "/(loss|neg_elbo|sse)$|reconstructions"


def tensorboard_link(host: str = "localhost", port: int = 6006) -> str:
    """The page Time Series as it compares runs best: main figures and pictures, unsmoothed, one colour a setting.

    The parameters are those that TensorBoard 2.21 writes into the address itself.
    """
    said = {"smoothing": "0", "tagFilter": MAIN_TAGS, "runColorGroup": f"regex:{SEEDLESS}"}
    return f"http://{host}:{port}/?{urlencode(said, quote_via=quote)}#timeseries"
