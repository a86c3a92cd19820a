"""A run's directory: who may write there, what it holds, and that nothing in it is ever half a file."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError

log = logging.getLogger("aetrain")

# Settings that may differ when a run is continued: where and how, not what.
FREE = ("mode", "run", "trust", "device", "data_dir", "epochs", "views", "dataset.path")

MANY = 5  # settings that are told to differ


class RunDirectory:
    """The files of one run, in the names that users and scripts rely on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claimed = False  # whether this process has begun to write there

    def __str__(self) -> str:
        """The path as a person would type it: relative where it is below the working directory."""
        return str(self.path.relative_to(Path.cwd())) if self.path.is_relative_to(Path.cwd()) else str(self.path)

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

    def refuse_another(self, config: DictConfig) -> None:
        """A ConfigError that names what differs, where the directory holds a run of another config."""
        if self.status == "new":
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
        """Write the config that the run is made from, as Hydra lays it out."""
        self.claimed = True
        folder = self.path / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
        write(folder / "config.yaml", OmegaConf.to_yaml(config))

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace metrics.json: flat, name to number, and `status`."""
        write(self.path / "metrics.json", json.dumps(metrics, indent=1) + "\n")

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

    def cut_history(self, epoch: int) -> None:
        """Forget what came after an epoch that is to be continued from."""
        kept = [json.dumps(line) + "\n" for line in self.history() if line["epoch"] <= epoch]
        write(self.path / "history.jsonl", "".join(kept))

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
    """Replace a file as a whole: a reader sees the old text or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: {"optimizer.lr": 0.001, ...}."""
    if not isinstance(node, Mapping):
        return {key: node}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{key}.{name}" if key else str(name)).items()}
