"""The check of exact resume: a run that is killed and resumed must equal an uninterrupted run bit for bit."""

import random
from pathlib import Path

from omegaconf import DictConfig, open_dict

from aetrain.runs import process
from aetrain.selfcheck import kill
from aetrain.selfcheck.expect import expect
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.saved_config import saved_config

MAX_EPOCHS = 3
NUM_KILLS = 3
MAX_ATTEMPTS = 12  # a run may end before its kill point


def check_resume_of_run(config: DictConfig, folder: Path, epochs: int, run: Path) -> str:
    """Do `check_resume` with the config of `mode=check run=RUN`, for at most 3 epochs."""
    training = config.copy()
    with open_dict(training):
        training.mode = saved_config(run)["mode"]
        training.run = None
        training.epochs = min(epochs, MAX_EPOCHS)
    return check_resume(training, folder)


def check_resume(config: DictConfig, folder: Path) -> str:
    """Train once without and several times with a kill and a resume; return a description of the result.

    Raise CheckFailed with the differences between the runs. `folder` holds the run directories.
    """
    counts = kill.trace_config(config, folder / "whole", folder / "locations")
    expected = fingerprint(folder / "whole")
    generator = random.Random(0)
    kills = attempts = 0
    while kills < NUM_KILLS and attempts < MAX_ATTEMPTS:
        attempts += 1
        run_dir = folder / f"killed{attempts}"
        kill_point = kill.random_kill_point(counts, generator)
        kills += kill.run_config(config, run_dir, kill_point) != process.FINISHED
        code = kill.run_config(config, run_dir)
        expect(code == process.FINISHED, f"resumed after {kill_point}, the run ended with exit code {code}")
        differing = differences(expected, fingerprint(run_dir))
        expect(not differing, f"resumed after {kill_point}, the run differs in {', '.join(differing)}")
    return f"{kills} kills in runs of {config.epochs} epochs: weights {expected['weights']}, as without kills"
