"""Checkpoints: all that the next epoch starts from, replaced as a whole or not at all.

A checkpoint is a folder of tensors, numbers and text: `model.safetensors`, `training.pt` (the states of the optimizers,
of the objective and of the weight average, read with `weights_only=True`), `journal.jsonl` (the metrics of every epoch,
so that history and curves survive the loss of the files that show them) and `state.json`: the epoch, the digests of
all files, a copy of the config, the digests of the data and the numbers of threads and processes.
"""

import io
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn
from torch.optim import Optimizer

from aetrain.config.renames import upgrade_tensors
from aetrain.storage import atomic
from aetrain.storage.checkpoint_state import CHECKPOINT, PREVIOUS, STATE_FILE, CheckpointState, find_state, read_state
from aetrain.storage.hashing import sha256
from aetrain.storage.old_metrics import upgrade_lines
from aetrain.storage.run_directory import RunDirectory
from aetrain.utils.processes import world_size

log = logging.getLogger("aetrain")

WEIGHTS_FILE, TRAINING_FILE, JOURNAL_FILE = "model.safetensors", "training.pt", "journal.jsonl"
MAX_CAUSE_LENGTH = 200  # characters of a parser's message

JournalLine = dict[str, Any]  # an epoch and its metrics by name


class CheckpointError(ValueError):
    """There is no checkpoint, or none that can be read."""


@dataclass(frozen=True)
class TrainingState:
    """The modules and optimizers whose state training needs beside the model's."""

    objective: nn.Module
    optimizers: Sequence[Optimizer] | None = None  # None where a trained model is only evaluated
    weight_average: nn.Module | None = None  # the exponential moving average of the weights, where there is one
    best_weights: nn.Module | None = None  # the weights of the best epoch, where the run keeps them

    def state_dict(self) -> dict[str, Any]:
        """Return the states by name."""
        state: dict[str, Any] = {
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers or ()],
        }
        if self.weight_average is not None:
            state["weight_average"] = self.weight_average.state_dict()
        if self.best_weights is not None:
            state["best_weights"] = self.best_weights.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states; any exception where they are of other modules."""
        self.objective.load_state_dict(state["objective"])
        if self.optimizers is not None:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        if self.weight_average is not None:
            self.weight_average.load_state_dict(state["weight_average"])
        if self.best_weights is not None:
            self.best_weights.load_state_dict(state["best_weights"])


@dataclass(frozen=True)
class Progress:
    """The epoch of a checkpoint and the metrics up to there."""

    epoch: int
    journal: Sequence[JournalLine] = ()


def save(
    directory: Path,
    model: nn.Module,
    training: TrainingState,
    progress: Progress,
    config: str = "",
    overrides: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint of a run's directory: to the disk first, then into its place.

    `config` (YAML) and `overrides` are copies of the run's own files, `data` are the digests of its data.
    """
    content = io.BytesIO()
    torch.save(training.state_dict(), content)
    files = {
        WEIGHTS_FILE: tensors_to_bytes({name: tensor.contiguous() for name, tensor in model.state_dict().items()}),
        TRAINING_FILE: content.getvalue(),
        JOURNAL_FILE: "".join(json.dumps(line) + "\n" for line in progress.journal).encode(),
    }
    digests = {name: sha256(file) for name, file in files.items()}
    files[STATE_FILE] = CheckpointState(
        progress.epoch, digests, config, tuple(overrides), data or {}, torch.get_num_threads(), world_size()
    ).to_json()
    _replace_checkpoint(directory, files)


def _replace_checkpoint(directory: Path, files: Mapping[str, bytes]) -> None:
    new, current, previous = (directory / name for name in (f"{CHECKPOINT}.new", CHECKPOINT, PREVIOUS))
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, file in files.items():
            atomic.write(new / name, file)
        atomic.sync_folder(new)
        if current.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(current, previous)
        os.rename(new, current)
    except OSError:  # such as a full disk: the old checkpoint stays
        shutil.rmtree(new, ignore_errors=True)
        raise
    atomic.sync_folder(directory)


@dataclass(frozen=True)
class SavedTensors:
    """The tensors of a checkpoint by name, and its epoch."""

    epoch: int
    model: Mapping[str, torch.Tensor]
    objective: Mapping[str, torch.Tensor]


def read_tensors(directory: Path) -> SavedTensors:
    """Return the tensors of the newest undamaged checkpoint. Raise CheckpointError where there is none."""
    (weights, states, progress), _ = _read_newest(directory, with_training=True)
    return SavedTensors(progress.epoch, weights, states["objective"])


def load(directory: Path, model: nn.Module, training: TrainingState | None = None) -> Progress:
    """Load the newest undamaged checkpoint into the model, and into `training` where it is given.

    Raise CheckpointError where there is none, or where it is of a model of another shape.
    """
    (weights, states, progress), folder = _read_newest(directory, with_training=training is not None)
    _load_weights(folder, model, weights)
    if training is not None:
        _load_training(folder, training, states)
    return progress


Content = tuple[dict[str, torch.Tensor], dict[str, Any], Progress]  # weights, states of training, progress


def _read_newest(directory: Path, with_training: bool) -> tuple[Content, Path]:
    """Return the content of the newest undamaged checkpoint, and its folder."""
    problems = []
    for name in (CHECKPOINT, PREVIOUS):
        folder = directory / name
        if not folder.is_dir():
            continue
        try:
            content = _read(folder, with_training)
        except Exception as error:  # any that a parser raises on a damaged file
            line = str(error).partition("\n")[0] or repr(error)
            problems.append(f"{folder} is damaged ({line[:MAX_CAUSE_LENGTH]})")
            continue
        if problems:
            log.warning("%s: using the previous checkpoint, of epoch %d", problems[0], content[-1].epoch)
        return content, folder
    if problems:
        raise CheckpointError("; ".join(problems) + ": train the run again")
    raise CheckpointError(f"{directory} has no checkpoint: its training ended before the first one was written")


def resume(directory: Path, model: nn.Module, training: TrainingState) -> Progress | None:
    """Load a checkpoint to continue training; return None where nothing was trained yet and training can start.

    A damaged checkpoint is removed: the next save would keep it as the previous one otherwise. Raise CheckpointError
    where the only one is damaged and holds trained weights, or cannot be read.
    """
    current, previous = directory / CHECKPOINT, directory / PREVIOUS
    if not current.is_dir() and not previous.is_dir():
        return None
    damaged = current.is_dir() and _is_damaged(current)
    if damaged and not previous.is_dir() and _holds_initial_weights(directory):
        log.warning("%s is damaged: training starts anew from its initial weights", current)
        progress = None
    else:
        progress = load(directory, model, training)
    if damaged:
        shutil.rmtree(current, ignore_errors=True)
    return progress


def is_resumable(directory: Path) -> bool:
    """Tell whether a run has a checkpoint whose content is not known to be damaged."""
    folders = [directory / name for name in (CHECKPOINT, PREVIOUS)]
    return any(folder.is_dir() and not _is_damaged(folder) for folder in folders)


def _is_damaged(folder: Path) -> bool:
    """Tell whether a checkpoint lacks files or has other content than was saved; a failure to read it is no damage."""
    try:
        _read(folder, with_training=True)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, MemoryError):
        return False
    except Exception:  # any that a parser raises on a damaged file
        return True
    return False


def _holds_initial_weights(directory: Path) -> bool:
    """Tell whether the only checkpoint of a run is that of epoch 0.

    Where its state cannot be read: from the second save on, in epoch 1, a run has a previous checkpoint, which is
    absent for a moment in each later save alone.
    """
    state = find_state(directory / CHECKPOINT)
    if state is None:
        return all(line["epoch"] <= 1 for line in RunDirectory(directory).history())
    return state.epoch == 0


def _read(folder: Path, with_training: bool) -> Content:
    state = read_state(folder)
    files: dict[str, bytes] = {}
    for name in state.sha256 if with_training else (WEIGHTS_FILE,):
        files[name] = (folder / name).read_bytes()
        if sha256(files[name]) != state.sha256[name]:
            raise ValueError(f"{name} does not match its digest")
    training: dict[str, Any] = {}
    if with_training:
        training = torch.load(io.BytesIO(files[TRAINING_FILE]), weights_only=True, map_location="cpu")
    journal = [json.loads(line) for line in files.get(JOURNAL_FILE, b"").splitlines()]
    tensors = sorted(tensors_from_bytes(files[WEIGHTS_FILE]).items())  # safetensors returns them in random order
    weights = upgrade_tensors(dict(tensors))
    return weights, training, Progress(state.epoch, upgrade_lines(journal, folder.parent))


def _load_weights(folder: Path, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != saved:
        name = next(n for n in (shapes | saved) if shapes.get(n) != saved.get(n))
        raise CheckpointError(
            f"{folder} holds another model's weights: {name} is {saved.get(name, 'missing')} there and "
            f"{shapes.get(name, 'missing')} in the model of this config"
        )
    model.load_state_dict(weights)


def _load_training(folder: Path, training: TrainingState, states: Mapping[str, Any]) -> None:
    try:
        training.load_state_dict(states)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{folder}/{TRAINING_FILE} is of another kind of training ({line}): train the run again"
        ) from error
