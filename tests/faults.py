"""Faults to be survived, for the tests and for benchmarks/reliability.py: killed runs, and what they must become."""

import random
import shutil
import signal
from collections import Counter
from pathlib import Path

from aetrain.config.paths import groups
from aetrain.selfcheck import kill
from aetrain.selfcheck.fingerprint import differences, fingerprint

SMALL = ("dataset=digits", "dataset.subset=64", "epochs=3", "batch_size=32", "device=cpu")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

# What is trained in front of the kills: every family, each with something else that must survive as well.
BESIDE = ("noise=gaussian", "noise=masking schedule=cosine", "optimizer=adamw schedule=linear", "dataset.validation=50")
CASES = [
    *(f"model={model} {BESIDE[i % len(BESIDE)]}" for i, model in enumerate(groups()["model"])),
    "model=deep pretrain=layerwise pretrain.epochs=2",
    "model=deep model.activation=sigmoid pretrain=rbm pretrain.epochs=2",
    "model=linear pretrain=pca likelihood=gaussian",
    "model=linear dataset.binarize=dynamic optimizer=lbfgs",
    "model=aae sparsity=l1 noise=salt_and_pepper optimizer=sgd",
]


class EvalInputs:
    """A run that is killed again and again, and the run that it has to equal."""

    def __init__(self, overrides: str, folder: Path) -> None:
        self.overrides = [*SMALL, *overrides.split()]
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.passed: Counter[kill.Place] = kill.kill_points(self.at("whole"), folder / "moments")
        self.wanted = fingerprint(folder / "whole")

    def at(self, name: str) -> list[str]:
        """The command line for a run in a folder of that name."""
        return [*self.overrides, f"hydra.run.dir='{self.folder / name}'"]

    def kill(self, seed: int, times: int = 1, damage: bool = True) -> tuple[list[str], int, str]:
        """Kill a new run at random moments, let it finish, and say what differs, the kills, and what was done to it."""
        chance, run, told, killed = random.Random(seed), self.folder / f"killed{seed}", [], 0
        said, harm = self.at(run.name), "kept"
        for _ in range(times):
            moment = kill.random_kill_point(self.passed, chance, SIGNALS)
            killed += kill.run(said, moment) != 0  # the moment may not come a second time
            harm = kill.damage_newest(run, chance) if damage else "kept"
            told.append(f"{moment}, {harm}")
        if (run / ".hydra" / "config.yaml").is_file() and chance.random() < 0.5 and kill.run([f"resume='{run}'"]) == 0:
            told.append("resume=")
        elif (code := kill.run(said)) != 0:
            told.append(f"exit code {code}")
        try:
            differ = differences(self.wanted, fingerprint(run))
        except (OSError, ValueError, KeyError) as error:
            differ = [repr(error)]
        if not differ:
            shutil.rmtree(run)
        return differ, killed, "; ".join(told)
