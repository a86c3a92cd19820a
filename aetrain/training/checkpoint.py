"""Checkpoints: everything that the next epoch starts from, replaced as a whole or not at all.

A checkpoint is a folder of tensors, numbers and words only: `model.safetensors`, `training.pt` (the optimizers and what
the objective has learnt, read with `weights_only=True`), `journal.jsonl` (every figure of the run so far, so that its
history and curves survive the loss of the files that show them) and `state.json`: the epoch, the digests of the
others and its own, and the config, which so survives as well.
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
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import nn
from torch.optim import Optimizer

from aetrain.training import disk, state
from aetrain.training.state import NAME, PREVIOUS, STATE, State, digest

log = logging.getLogger("aetrain")

WEIGHTS, TRAINING, JOURNAL = "model.safetensors", "training.pt", "journal.jsonl"

Line = dict[str, Any]  # of a journal: an epoch and its figures by name


class CheckpointError(ValueError):
    """There is no checkpoint, or none that can be read."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint says beside the tensors."""

    epoch: int
    journal: Sequence[Line] = ()


def save(
    directory: Path,
    model: nn.Module,
    objective: nn.Module,
    optimizers: Sequence[Optimizer],
    epoch: int,
    journal: Sequence[Line] = (),
    config: str = "",
    overrides: Sequence[str] = (),
) -> None:
    """Write the checkpoint of a run's directory: to the disk first, into its place last.

    `config` (YAML) and `overrides` are what the run is made from.
    """
    new, place, previous = (directory / name for name in (f"{NAME}.new", NAME, PREVIOUS))
    training = io.BytesIO()
    torch.save({"objective": objective.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, training)
    files = {
        WEIGHTS: to_bytes({name: tensor.contiguous() for name, tensor in model.state_dict().items()}),
        TRAINING: training.getvalue(),
        JOURNAL: "".join(json.dumps(line) + "\n" for line in journal).encode(),
    }
    digests = {name: digest(content) for name, content in files.items()}
    files[STATE] = State(epoch, digests, config, tuple(overrides)).sealed()
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, content in files.items():
            disk.write(new / name, content)
        disk.settle(new)
        if place.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(place, previous)
        os.rename(new, place)
    except OSError:  # such as a full disk: what was there before stays
        shutil.rmtree(new, ignore_errors=True)
        raise
    disk.settle(directory)


def load(
    directory: Path, model: nn.Module, objective: nn.Module | None = None, optimizers: Sequence[Optimizer] = ()
) -> Saved:
    """Fill the model from the newest undamaged checkpoint, and all that training needs where it is given.

    CheckpointError where there is none, or where it is of a model of another shape.
    """
    problems = []
    for name in (NAME, PREVIOUS):
        folder = directory / name
        if folder.is_dir():
            try:
                weights, training, saved = _read(folder, to_train=objective is not None)
            except Exception as error:  # whatever a parser may raise on a damaged file
                line = str(error).partition("\n")[0] or repr(error)
                problems.append(f"{folder} is damaged ({line[:200]})")
                continue
            if problems:
                log.warning("%s: going by the one before, of epoch %d", problems[0], saved.epoch)
            _fill(folder, model, weights)
            if objective is not None:
                _fill_training(folder, objective, optimizers, training)
            return saved
    raise CheckpointError(
        "; ".join(problems) + ": train the run again"
        if problems
        else f"{directory} has no checkpoint: its training ended before the first one was written"
    )


def resume(
    directory: Path, model: nn.Module, objective: nn.Module, optimizers: Sequence[Optimizer] = ()
) -> Saved | None:
    """`load` to go on with training; None where nothing was trained yet, and so nothing is lost by starting.

    A damaged checkpoint that another stands in for is removed, or it would take that one's place at the next save.
    """
    place, previous = directory / NAME, directory / PREVIOUS
    if not previous.is_dir():
        try:
            return load(directory, model, objective, optimizers) if place.is_dir() else None
        except CheckpointError:
            if _is_readable(place):  # but of another model
                raise
            return None  # it was the first, of the weights that training starts with
    saved = load(directory, model, objective, optimizers)
    if not _is_readable(place):
        shutil.rmtree(place, ignore_errors=True)
    return saved


def _is_readable(folder: Path) -> bool:
    try:
        _read(folder, to_train=True)
    except Exception:  # as in `load`
        return False
    return True


def _read(folder: Path, to_train: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any], Saved]:
    said = state.read(folder)
    files: dict[str, bytes] = {}
    for name in said.sha256 if to_train else (WEIGHTS,):
        files[name] = (folder / name).read_bytes()
        if digest(files[name]) != said.sha256[name]:
            raise ValueError(f"{name} is not what was written")
    training = torch.load(io.BytesIO(files[TRAINING]), weights_only=True, map_location="cpu") if to_train else {}
    journal = [json.loads(line) for line in files.get(JOURNAL, b"").splitlines()]
    return load_bytes(files[WEIGHTS]), training, Saved(said.epoch, journal)


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


def _fill_training(
    folder: Path, objective: nn.Module, optimizers: Sequence[Optimizer], training: Mapping[str, Any]
) -> None:
    try:
        objective.load_state_dict(training["objective"])
        for optimizer, state in zip(optimizers, training["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder}/{TRAINING} is of another kind of training ({line}): train it anew") from error
