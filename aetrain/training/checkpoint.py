"""Checkpoints: everything that the next epoch starts from, replaced as a whole or not at all.

A checkpoint is a folder of tensors and numbers only: `model.safetensors`, `training.pt` (the optimizers and what the
objective has learnt, read with `weights_only=True`) and `state.json`: the epoch, and the digests of the other two.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

NAME = "checkpoint"
PREVIOUS = "checkpoint.previous"  # what was there before; read where the newest is damaged
FILES = ("model.safetensors", "training.pt")


class CheckpointError(ValueError):
    """There is no checkpoint, or none that can be read."""


def save(directory: Path, model: nn.Module, objective: nn.Module, optimizers: Sequence[Optimizer], epoch: int) -> None:
    """Write the checkpoint of a run's directory: to the disk first, into its place last."""
    new, place, previous = (directory / name for name in (f"{NAME}.new", NAME, PREVIOUS))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, new / FILES[0])
    training = {"objective": objective.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(training, new / FILES[1])
    state = {"epoch": epoch, "sha256": {name: _digest(new / name) for name in FILES}}
    (new / "state.json").write_text(json.dumps(state, indent=1) + "\n")
    for file in (*new.iterdir(), new):
        _to_disk(file)
    if place.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(place, previous)
    os.rename(new, place)
    _to_disk(directory)


def load(
    directory: Path, model: nn.Module, objective: nn.Module | None = None, optimizers: Sequence[Optimizer] = ()
) -> int:
    """Fill the model from the newest undamaged checkpoint, and all that training needs where it is given.

    Returns the epoch.

    CheckpointError where there is none, or where it is of a model of another shape.
    """
    problems = []
    for name in (NAME, PREVIOUS):
        folder = directory / name
        if folder.is_dir():
            try:
                weights, training, epoch = _read(folder, to_train=objective is not None)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError, EOFError) as error:
                problems.append(f"{folder} is damaged ({str(error).splitlines()[0] if str(error) else error!r})")
                continue
            _fill(folder, model, weights)
            if objective is not None:
                objective.load_state_dict(training["objective"])
            for optimizer, state in zip(optimizers, training.get("optimizers", ()), strict=True):
                optimizer.load_state_dict(state)
            return epoch
    raise CheckpointError(
        "; ".join(problems) + ": train the run again"
        if problems
        else f"{directory} has no checkpoint: its training ended before the first one was written"
    )


def _read(folder: Path, to_train: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any], int]:
    state = json.loads((folder / "state.json").read_text())
    for name in FILES if to_train else FILES[:1]:
        if _digest(folder / name) != state["sha256"][name]:
            raise ValueError(f"{name} is not what was written")
    training = torch.load(folder / FILES[1], weights_only=True, map_location="cpu") if to_train else {}
    return load_file(folder / FILES[0]), training, int(state["epoch"])


def _fill(folder: Path, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != theirs:
        name = next(n for n in (own | theirs) if own.get(n) != theirs.get(n))
        raise CheckpointError(
            f"{folder} holds another model's weights: {name} is {theirs.get(name, 'missing')} there, "
            f"{own.get(name, 'missing')} in the model that the config describes"
        )
    model.load_state_dict(weights)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a power cut cannot reorder what is written and renamed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
