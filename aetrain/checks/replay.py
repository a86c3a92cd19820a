"""A run's training done twice, once in one go and once interrupted, to see that both come to the same."""

import random
from pathlib import Path

from omegaconf import DictConfig, open_dict

from aetrain import apart
from aetrain.checks import kills
from aetrain.checks.expect import expect
from aetrain.checks.fingerprint import differences, fingerprint
from aetrain.config.compose import saved_config

EPOCHS = 3
KILLS = 3


def replayed(config: DictConfig, folder: Path, epochs: int, run: str) -> str:
    """Train the config of `run` for a few epochs in one go, and again with kills; Wrong, naming what differs."""
    training = config.copy()
    with open_dict(training):
        training.mode = saved_config(Path(run))["mode"]
        training.run = None
        training.epochs = min(epochs, EPOCHS)
    return interrupted(training, folder)


def interrupted(training: DictConfig, folder: Path) -> str:
    """The same for any config of a training."""
    passed = kills.moments_of(training, folder / "whole", folder / "moments")
    wanted = fingerprint(folder / "whole")
    chance = random.Random(0)
    killed = number = 0
    while killed < KILLS and number < 4 * KILLS:
        number += 1
        part = folder / f"part{number}"
        moment = kills.any_moment(passed, chance)
        killed += kills.run_of(training, part, moment) != apart.FINISHED  # a moment may not come a second time
        code = kills.run_of(training, part)
        expect(code == apart.FINISHED, f"gone on with after {moment}, it ended with exit code {code}")
        differ = differences(wanted, fingerprint(part))
        expect(not differ, f"after {moment}, it differs in {', '.join(differ)}")
    return f"{killed} times killed in {training.epochs} epochs: weights {wanted['weights']}, as without"
