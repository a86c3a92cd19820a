"""Killed runs for the tests and for benchmarks/reliability.py: after a resume they must equal an unkilled run."""

import random
import shutil
import signal
from collections import Counter
from pathlib import Path

from aetrain.config.paths import groups
from aetrain.selfcheck import kill
from aetrain.selfcheck.fingerprint import differences, fingerprint

SMALL = ("dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "epochs=3", "batch_size=32", "device=cpu")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

# Settings that are combined with the families in turn.
COMBINED_WITH = (
    "noise=gaussian",
    "noise=masking schedule=cosine",
    "optimizer=adamw schedule=linear",
    "dataset.validation=50",
)
# Every family, and the kinds of pretraining, optimizers and losses that keep state.
CASES = [
    *(f"model={model} {COMBINED_WITH[i % len(COMBINED_WITH)]}" for i, model in enumerate(groups()["model"])),
    "model=deep pretrain=layerwise pretrain.epochs=2",
    "model=deep model.activation=sigmoid pretrain=rbm pretrain.epochs=2",
    "model=linear pretrain=pca likelihood=gaussian",
    "model=linear dataset.binarize=dynamic optimizer=lbfgs",
    "model=aae sparsity=l1 noise=salt_and_pepper optimizer=sgd",
    "model=linear dataset.subset=4 dataset.validation=50 optimizer.lr=0.1 ema=0.5 keep=best stop.patience=1",
]


class FaultCase:
    """A run without a kill, and killed and resumed runs of the same config, which must equal it."""

    def __init__(self, overrides: str, folder: Path) -> None:
        self.overrides = [*SMALL, *overrides.split()]
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[kill.CodeLocation] = kill.trace(self.command_line("whole"), folder / "locations")
        self.expected = fingerprint(folder / "whole")

    def command_line(self, name: str) -> list[str]:
        """Return the command line of a run in a folder of that name."""
        return [*self.overrides, f"hydra.run.dir='{self.folder / name}'"]

    def kill(self, seed: int, times: int = 1, damage: bool = True) -> tuple[list[str], int, str]:
        """Kill a new run at random points and let it finish.

        Return the differences from the run without a kill, the number of kills and a description of all that was done.
        """
        generator, run = random.Random(seed), self.folder / f"killed{seed}"
        arguments, actions, kills = self.command_line(run.name), [], 0
        for _ in range(times):
            kill_point = kill.random_kill_point(self.counts, generator, SIGNALS)
            kills += kill.run(arguments, kill_point) != 0  # a resumed run may end before its kill point
            damaged = kill.damage_newest_file(run, generator) if damage else "kept"
            actions.append(f"{kill_point}, {damaged}")
        if self._resumed(run, generator):
            actions.append("resume=")
        elif (code := kill.run(arguments)) != 0:
            actions.append(f"exit code {code}")
        differing = self._differences(run)
        if not differing:
            shutil.rmtree(run)
        return differing, kills, "; ".join(actions)

    def _resumed(self, run: Path, generator: random.Random) -> bool:
        """Resume half of the runs that have a config by `resume=`; return whether that was done and succeeded."""
        if not (run / ".hydra" / "config.yaml").is_file() or generator.random() >= 0.5:
            return False
        return kill.run([f"resume='{run}'"]) == 0

    def _differences(self, run: Path) -> list[str]:
        try:
            return differences(self.expected, fingerprint(run))
        except (OSError, ValueError, KeyError) as error:
            return [repr(error)]
