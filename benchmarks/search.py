"""Compare a search by TPE with pruning against random search of the same time, for docs/search.md.

    python benchmarks/search.py [--seeds 3] [--trials 30]    # on Linux

For each seed, the two searches take turns of ten trials, each with one process and one thread; random search continues
until it has taken as long as the other. Both have the space of search=vae with smaller networks, and the same seed of
the weights; the seed is that of the sampler. Times are those of the processor, which a busy machine changes little.
That of a command is divided among its trials as the time of their training.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.search_file import SearchRecord, TrialRecord, read_search

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "search.md", ROOT / "docs" / "search.json"
MARKER = "<!-- measured: python benchmarks/search.py -->"  # the script replaces the rest of the page

PR_SET_CHILD_SUBREAPER = 36  # of Linux: orphans among the descendants become children
TURN = 10  # trials
DATA = ("dataset=fashion", "dataset.subset=5000", "dataset.validation=1000", "dataset.test_subset=2000", "epochs=8")
SPACE = ("search=vae", "model=vae", "batch_size=64,128,256", "model.hidden=[128],[256],[256,128]", "views=none")
SWEEPERS = {
    "TPE, pruning": ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed"),
    "random": ("hydra/sweeper=random", "hydra.sweeper.seed"),
}


@dataclass
class Search:
    """A search in a directory, and the time that it has taken."""

    name: str
    seed: int
    directory: Path
    seconds: float = 0.0
    ends: dict[int, float] = field(default_factory=dict)  # seconds of the search at the end of each trial

    def go_on(self, n_trials: int) -> None:
        """Search until `n_trials` have ended."""
        sweeper, seed_key = SWEEPERS[self.name]
        command = [sys.executable, "-m", "aetrain", "-m", *SPACE, *DATA, sweeper, f"{seed_key}={self.seed}"]
        command += [f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweep.dir={self.directory}"]
        cost = processor_seconds(command)
        trials = [trial for trial in self.record.trials if trial.number not in self.ends]
        per_second = cost / sum(trial.seconds for trial in trials)
        for trial in trials:
            self.seconds += per_second * trial.seconds
            self.ends[trial.number] = self.seconds

    @property
    def record(self) -> SearchRecord:
        record = read_search(self.directory)
        assert record is not None
        return record

    def result(self, limit: float) -> dict[str, Any]:
        """Return the number of trials and the best one that ended within `limit` seconds."""
        trials = [trial for trial in self.record.trials if self.ends[trial.number] <= limit]
        best = min((trial for trial in trials if trial.values), key=_value)
        metrics = RunDirectory(self.directory / best.run).metrics()
        return {
            "trials": len(trials),
            "pruned": sum(trial.status == "pruned" for trial in trials),
            "validation": _value(best),
            "test": metrics["test/neg_elbo"],
            "settings": best.settings,
        }


def processor_seconds(command: list[str]) -> float:
    """Run a command with one thread; return the time of the processor that all of its processes have taken.

    The server from which the runs are forked outlives the command: it becomes a child of this process, which waits for
    it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _value(trial: TrialRecord) -> float:
    return (trial.values or [float("inf")])[0]


def compare(seed: int, n_trials: int) -> dict[str, Any]:
    """Return the results of both searches for a seed."""
    with tempfile.TemporaryDirectory() as folder:
        tpe, rand = (Search(name, seed, Path(folder) / name.split(",")[0]) for name in SWEEPERS)
        for number in range(TURN, n_trials + 1, TURN):
            tpe.go_on(number)
            rand.go_on(number)
        limit, number = tpe.ends[n_trials - 1], n_trials
        while rand.seconds < limit:
            number += TURN
            rand.go_on(number)
        row = {"seed": seed, "seconds": round(limit), tpe.name: tpe.result(limit), rand.name: rand.result(limit)}
        return {**row, "random, all": rand.result(rand.seconds), "seconds of random": round(rand.seconds)}


def page(rows: list[dict[str, Any]], machine: str) -> str:
    """Return the measured part of the page."""
    lines = [
        f"Measured on {machine}: `{' '.join((*SPACE, *DATA))}`; trials by TPE with the median pruner, and those that "
        "random search ended in the same time. The last columns are the -ELBO of the best trial in nats.",
        "",
        "| seed | processor time | sweeper | trials | pruned | validation | test |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name in SWEEPERS:
            cells = row[name]
            values = f"{cells['trials']} | {cells['pruned']} | {cells['validation']:.2f} | {cells['test']:.2f} |"
            lines.append(f"| {row['seed']} | {row['seconds']} s | {name} | {values}")
    for name in SWEEPERS:
        means = [statistics.mean(row[name][key] for row in rows) for key in ("validation", "test")]
        trials, pruned = (statistics.mean(row[name][key] for row in rows) for key in ("trials", "pruned"))
        lines.append(f"| mean | | {name} | {trials:.0f} | {pruned:.0f} | {means[0]:.2f} | {means[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    rows: list[dict[str, Any]] = []
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    for seed in range(options.seeds):
        rows.append(compare(seed, options.trials))
        print(json.dumps(rows[-1]), flush=True)
        RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    before = PAGE.read_text().partition(MARKER)[0]
    PAGE.write_text(f"{before}{MARKER}\n\n{page(rows, machine)}")


if __name__ == "__main__":
    main()
