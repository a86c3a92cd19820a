"""Metrics of earlier versions: a run up to 0.1 has `nll`, `neg_elbo` and `loss` without the likelihood's constant.

A line of metrics (of metrics.json, history.jsonl or a checkpoint's journal) that has the constant names it as
`nll_constant`. All other lines are converted where they are read, so that one run, and one report, has one convention.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.storage.saved_config import saved_config

NLL_CONSTANT = "nll_constant"  # the constant in `nll`, in nats per image

SPLITS = ("train", "validation", "test")
FIRST_STAGE = "pretrain/1"  # of layer-wise pretraining, whose likelihood is that of the pixels
NLLS = ("nll", "neg_elbo")
LOSS = "loss"

BERNOULLI = "aetrain.model.likelihoods.Bernoulli"  # its constant is 0
GAUSSIAN = "aetrain.model.likelihoods.Gaussian"

Line = Mapping[str, Any]  # metrics by tag, and other values


def upgrade_lines(lines: Sequence[Line], run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run directory with the constant of the likelihood in their metrics.

    Where the constant is unknown (a likelihood that is not aetrain's, a damaged config), the metrics that lack it are
    left out.
    """
    if not any(_needs_constant(line) for line in lines):
        return [dict(line) for line in lines]
    constants = _constants(run, _num_pixels(lines))
    return [_upgrade(line, constants) if _needs_constant(line) else dict(line) for line in lines]


def _needs_constant(line: Line) -> bool:
    return NLL_CONSTANT not in line and bool(_losses(line))


def _losses(line: Line) -> dict[str, str]:
    """Return the names (`nll`) of the metrics that the constant belongs to, by tag (`test/nll`)."""
    losses = {}
    splits = [*SPLITS, *([FIRST_STAGE] if f"{FIRST_STAGE}/nll" in line else [])]  # an RBM's loss is no likelihood
    for tag, value in line.items():
        split, _, name = tag.rpartition("/")
        if split in splits and name in (*NLLS, LOSS) and isinstance(value, int | float):
            losses[tag] = name
    return losses


def _upgrade(line: Line, constants: Mapping[str, float]) -> dict[str, Any]:
    """Return the line with the constants, by name, in its losses; without its losses if there are no constants."""
    losses = _losses(line)
    if not constants:
        return {tag: value for tag, value in line.items() if tag not in losses}
    upgraded = {tag: line[tag] + constants[name] for tag, name in losses.items()}
    return {**line, **upgraded, NLL_CONSTANT: constants["nll"]}


def _num_pixels(lines: Iterable[Line]) -> int | None:
    """Return the number of pixels of an image, which is the squared error by the squared error per pixel."""
    for line in lines:
        for split in SPLITS:
            sse, mse = line.get(f"{split}/sse"), line.get(f"{split}/mse")
            if isinstance(sse, int | float) and isinstance(mse, int | float) and mse > 0:
                return round(sse / mse)
    return None


def _constants(run: Path, num_pixels: int | None) -> dict[str, float]:
    """Return the constants that the losses of an old run lack, by name; empty if they are unknown."""
    try:
        config = saved_config(run)
        likelihood, scale = config["likelihood"], config["dataset"]["scale"]
        target = likelihood["_target_"]
        if target == BERNOULLI:
            return dict.fromkeys((*NLLS, LOSS), 0.0)
        if target != GAUSSIAN or num_pixels is None:
            return {}
        constant = _gaussian_constant(num_pixels, likelihood["variance"], *scale)
        in_loss = constant / num_pixels if likelihood["reduction"] == "mean" else constant
    except (ConfigError, OSError, RecursionError, LookupError, TypeError, ValueError):
        return {}
    return {**dict.fromkeys(NLLS, constant), LOSS: in_loss}


def _gaussian_constant(num_pixels: int, variance: float, low: float, high: float) -> float:
    """Return the constant that 0.1 left out. It is a copy: old runs keep it if `Gaussian.constant` changes."""
    return num_pixels * (0.5 * math.log(2 * math.pi * variance) - math.log(high - low))
