"""Run directories that are written as training does, without training, and pages parsed as HTML."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from aetrain import api


class ParsedPage(HTMLParser):
    """The elements, scripts and text of a page, parsed as HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open_tag = ""
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.open_tag = tag

    def handle_endtag(self, tag: str) -> None:
        self.open_tag = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open_tag == "script" else self.texts).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@cache
def config_text(overrides: tuple[str, ...]) -> str:
    """Return the config of overrides as YAML."""
    return OmegaConf.to_yaml(api.compose_config(overrides)[0])


def write_run(
    folder: Path, *overrides: str, metrics: dict[str, Any] | None = None, epochs: int = 3, findings: Any = ()
) -> Path:
    """Write a run directory as training does, without training, and return it."""
    folder.mkdir(parents=True)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(config_text(overrides))
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    defaults = {"status": "finished", "epochs": epochs, "weights": 1000, "train/seconds_per_epoch": 0.5}
    (folder / "metrics.json").write_text(json.dumps(defaults | (metrics or {})))
    lines = [json.dumps(history_line(epoch)) + "\n" for epoch in range(epochs + 1)]
    (folder / "history.jsonl").write_text("".join(lines))
    (folder / "findings.json").write_text(json.dumps(list(findings)))
    (folder / "aetrain.log").write_text("")
    return folder


def history_line(epoch: int) -> dict[str, float]:
    """Return the metrics of an epoch; the losses fall by 1 an epoch, and epoch 0 has no training loss."""
    line = {"epoch": epoch, "test/loss": 9.0 - epoch, "test/sse": 8.0 - epoch, "seconds": 0.5}
    return line | {"train/loss": 9.5 - epoch} if epoch else line
