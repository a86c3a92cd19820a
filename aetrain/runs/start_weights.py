"""`start=RUN`: training begins with the weights of another run, as far as they fit, under settings of its own."""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.runs.build import Components
from aetrain.runs.epoch_selection import epoch_of_weights
from aetrain.storage import atomic, checkpoint
from aetrain.storage.run_directory import RunDirectory, display_path
from aetrain.training.pretraining.pretrain import NoPretraining

log = logging.getLogger("aetrain")

START_FILE = "start.json"  # in a run directory: the run whose weights it began with, and which of them
MAX_NAMES_SHOWN = 8  # of tensors and modules, in the log


@dataclass(frozen=True)
class StartWeights:
    """The tensors of another run that have the name and the shape of a tensor of this one."""

    run: Path
    epoch: int  # of the other run, in which it had them
    taken: Mapping[str, Tensor]
    new: Sequence[str]  # tensors of this run that keep their initial values
    unused: Sequence[str]  # tensors of the other run

    @torch.no_grad()
    def load(self, components: Components) -> None:
        """Put the tensors into the modules of this run."""
        tensors = tensors_of(components)
        for name, tensor in self.taken.items():
            tensors[name].copy_(tensor)

    def describe(self) -> str:
        """Return a sentence that lists what is taken and what is not."""
        parts = [f"taken: {list_modules(self.taken, self.new)}"]
        if self.new:
            parts.append(f"new, with initial values: {list_modules(self.new, self.taken)}")
        if self.unused:
            parts.append(f"not taken: {list_modules(self.unused, self.taken)}")
        return f"start: weights of {display_path(self.run)}, epoch {self.epoch}; {'; '.join(parts)}"

    def to_json(self) -> str:
        """Return the content of start.json."""
        content = {
            "run": str(self.run.absolute()),
            "epoch": self.epoch,
            "taken": list(self.taken),
            "new": list(self.new),
            "unused": list(self.unused),
        }
        return json.dumps(content, indent=1) + "\n"


def find_start_weights(settings: Settings, components: Components, run_dir: Path) -> StartWeights | None:
    """Return the weights with which a new run in `run_dir` begins; None without `start`, and where it is resumed.

    Raise ConfigError where the other run has no checkpoint or no matrix of it fits. Called before any data are read.
    """
    if settings.start is None or checkpoint.is_resumable(run_dir):
        return None
    if not isinstance(components.pretrain, NoPretraining):
        raise ConfigError(f"pretrain= and start={settings.start} both make the initial weights: drop one of them")
    run = Path(settings.start)
    if not run.is_dir():
        raise ConfigError(f"start={run} is no directory, and this run has no weights of its own yet")
    try:
        saved = checkpoint.read_tensors(run)
    except checkpoint.CheckpointError as error:
        raise ConfigError(f"start={run}: {error}") from error
    here, there = tensors_of(components), {**saved.model, **_critics_in(saved.objective)}
    taken = {name: there[name] for name in here if name in there and there[name].shape == here[name].shape}
    if all(tensor.dim() < 2 for tensor in taken.values()):  # a bias alone is not worth a start
        raise ConfigError(f"start={run}: none of its weight matrices fits this model{_first_difference(here, there)}")
    new = [name for name in here if name not in taken]
    epoch = epoch_of_weights(RunDirectory(run), saved.epoch)
    return StartWeights(run, epoch, taken, new, [name for name in there if name not in taken])


def apply_start_weights(weights: StartWeights, components: Components, run_dir: Path) -> None:
    """Begin with the weights, log what is taken, and write the origin into the run directory."""
    weights.load(components)
    atomic.replace_text(run_dir / START_FILE, weights.to_json())
    log.info("%s", weights.describe())


def tensors_of(components: Components) -> dict[str, Tensor]:
    """Return the tensors of a run's model by name, and those of its critics below `penalty.NAME`."""
    tensors: dict[str, Tensor] = components.model.state_dict()
    return tensors | _critics_in(components.objective.state_dict(), components.objective.critics)


def _critics_in(state: Mapping[str, Tensor], critics: Collection[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of penalties in the state of an objective; the progress of their schedules starts again."""
    tensors = {}
    for key, tensor in state.items():
        _, penalty, name = key.split(".", 2)
        if not name.startswith("schedule.") and (critics is None or penalty in critics):
            tensors[f"penalty.{penalty}.{name}"] = tensor
    return tensors


def _first_difference(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> str:
    """Return `: NAME is SHAPE there and SHAPE here` for the first tensor that both have, in other shapes."""
    for name in here:
        if name in there and there[name].shape != here[name].shape:
            shapes = [list(tensors[name].shape) for tensors in (there, here)]
            return f": {name} is {shapes[0]} there and {shapes[1]} here; use its model= and dataset= or their sizes"
    return f": it has {list_modules(there, ())}, this model has {list_modules(here, ())}"


def list_modules(names: Iterable[str], others: Iterable[str]) -> str:
    """Return names of tensors as text, with the name of a module in place of all tensors in it.

    A module stands for its tensors where none of `others` is in it: `encoder, decoder.layers.0.weight`.
    """
    prefixes = {".".join(parts[:end]) for name in others if (parts := name.split(".")) for end in range(1, len(parts))}
    modules = []
    for name in names:
        parts = name.split(".")
        ends = range(1, len(parts) + 1)
        modules.append(next((".".join(parts[:end]) for end in ends if ".".join(parts[:end]) not in prefixes), name))
    listed = list(dict.fromkeys(modules))
    more = f", ... ({len(listed)} modules)" if len(listed) > MAX_NAMES_SHOWN else ""
    return f"{', '.join(listed[:MAX_NAMES_SHOWN])}{more}"
