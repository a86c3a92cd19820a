"""How long a sweep takes packed, and with the joblib launcher, whole commands from start to end: docs/packed.md.

    python benchmarks/packed.py [--repeats 3] [--cores 2] [--only digits]

Both launchers take turns at each size, in the same order, and the medians are compared. joblib has as many workers as
there are cores, each with one thread, which is the best for it; the pack has all cores.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from speed import pinned

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "packed.md", ROOT / "docs" / "packed.json"
BEGIN = "<!-- measured: python benchmarks/packed.py -->"

# What is trained, and by how many runs that differ in their seeds.
SWEEPS = {
    "digits": (["model=vae", "dataset=digits", "model.hidden=[64]", "epochs=20"], (2, 8, 32)),
    "mnist": (["model=vae", "dataset=mnist", "dataset.subset=5000", "epochs=3"], (2, 8, 24)),
    "conv": (["model=conv", "dataset=mnist", "dataset.subset=2000", "epochs=2"], (8,)),
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LAUNCHERS = ("packed", "joblib")


def seconds(overrides: list[str], runs: int, launcher: str, cores: int) -> float:
    """The time from the command's start to its end."""
    packed = launcher == "packed"
    words = ["hydra/launcher=packed"] if packed else ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}"]
    folder = tempfile.mkdtemp()
    seeds = f"seed={','.join(map(str, range(runs)))}"
    said = ["-m", *overrides, seeds, "views=none", "device=cpu", f"hydra.sweep.dir={folder}/sweep", *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(cores if packed else 1)}
    try:
        began = time.perf_counter()
        call = [*pinned(cores), sys.executable, "-m", "aetrain", *said]
        subprocess.run(call, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=CORES)
    parser.add_argument("--runs", type=int, nargs="*", help="these sizes alone")
    parser.add_argument("--only", nargs="*", choices=SWEEPS, default=list(SWEEPS))
    asked = parser.parse_args()
    rows = []
    for name in asked.only:
        overrides, sizes = SWEEPS[name]
        for runs in asked.runs or sizes:
            taken: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
            for _ in range(asked.repeats):
                for launcher, times in taken.items():
                    times.append(seconds(overrides, runs, launcher, asked.cores))
            medians = {launcher: statistics.median(times) for launcher, times in taken.items()}
            times = {launcher: round(median, 2) for launcher, median in medians.items()}
            counts = {"runs": runs, "cores": asked.cores, "repeats": asked.repeats}
            rows.append({"sweep": " ".join(overrides), **counts, "torch": torch.__version__, **times})
            print(json.dumps(rows[-1]), flush=True)
    known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else []
    again = {place(row) for row in rows}
    rows = sorted([*(row for row in known if place(row) not in again), *rows], key=place)
    FIGURES.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(PAGE.read_text().partition(BEGIN)[0] + BEGIN + "\n" + table(rows))


def place(row: dict[str, object]) -> tuple[str, int, int]:
    return str(row["sweep"]), int(str(row["runs"])), int(str(row["cores"]))


def table(rows: list[dict[str, object]]) -> str:
    head = "| sweep | runs | cores | of | packed, s a run | joblib, s a run | packed is |"
    lines = [
        f"\nWhole commands on {platform.machine()}, wall clock, medians `of` so many tries taken in turns.\n",
        head,
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---|")
    for row in rows:
        packed, joblib, runs = float(str(row["packed"])), float(str(row["joblib"])), int(str(row["runs"]))
        cells = [f"`{row['sweep']}`", str(runs), str(row["cores"]), str(row["repeats"])]
        cells += [f"{packed / runs:.2f}", f"{joblib / runs:.2f}", f"{joblib / packed:.2f} times as fast"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
