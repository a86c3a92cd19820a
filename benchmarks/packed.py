"""Measure the time of whole sweep commands with the packed and the joblib launcher, for docs/packed.md.

    python benchmarks/packed.py [--repeats 3] [--cores 2] [--only digits]

The two launchers take turns at each size, in the same order; the medians are compared. joblib has one worker per core,
each with one thread, which is its fastest setting; the pack uses all cores.
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
from speed import pin_to_cores
from trainers import RELU

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "packed.md", ROOT / "docs" / "packed.json"
MARKER = "<!-- measured: python benchmarks/packed.py -->"  # the script replaces the rest of the page

# Overrides of each sweep, and its numbers of runs, which differ in their seeds.
SWEEPS = {
    "digits": (["model=vae", "dataset=digits", "model.hidden=[64]", "epochs=20"], (2, 8, 32)),
    "mnist": (
        ["model=vae", "dataset=mnist", "dataset.subset=5000", "dataset.test_subset=5000", "epochs=3"],
        (2, 8, 24),
    ),
    "conv": (["model=conv", "dataset=mnist", "dataset.subset=2000", "dataset.test_subset=2000", "epochs=2"], (8,)),
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LAUNCHERS = ("packed", "joblib")
Row = dict[str, str | int | float]


def time_sweep(overrides: list[str], runs: int, launcher: str, cores: int) -> float:
    """Return the seconds from the start to the end of the command."""
    folder = tempfile.mkdtemp()
    seeds = f"seed={','.join(map(str, range(runs)))}"
    command = [*pin_to_cores(cores), sys.executable, "-m", "aetrain", "-m", *overrides, *RELU, seeds]
    command += ["views=none", "device=cpu", f"hydra.sweep.dir={folder}/sweep", f"hydra/launcher={launcher}"]
    if launcher == "joblib":
        command.append(f"hydra.launcher.n_jobs={cores}")
    environment = os.environ | {"OMP_NUM_THREADS": str(cores if launcher == "packed" else 1)}
    try:
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start
    finally:
        shutil.rmtree(folder)


def measure(overrides: list[str], runs: int, cores: int, repeats: int) -> Row:
    """Return the row of one sweep."""
    seconds: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
    for _ in range(repeats):
        for launcher in LAUNCHERS:
            seconds[launcher].append(time_sweep(overrides, runs, launcher, cores))
    row: Row = {"sweep": " ".join(overrides), "runs": runs, "cores": cores, "repeats": repeats}
    row["torch"] = torch.__version__
    for launcher in LAUNCHERS:
        row[launcher] = round(statistics.median(seconds[launcher]), 2)
    return row


def main() -> None:
    """Measure the sweeps, and write docs/packed.json and the table of docs/packed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=CORES)
    parser.add_argument("--runs", type=int, nargs="*", help="only sweeps of these numbers of runs")
    parser.add_argument("--only", nargs="*", choices=SWEEPS, default=list(SWEEPS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        overrides, sizes = SWEEPS[name]
        for runs in arguments.runs or sizes:
            rows.append(measure(overrides, runs, arguments.cores, arguments.repeats))
            print(json.dumps(rows[-1]), flush=True)
    results = {row_key(row): row for row in [*read_results(), *rows]}
    RESULTS.write_text(json.dumps([results[key] for key in sorted(results)], indent=1) + "\n")
    write_document()


def read_results() -> list[Row]:
    """Return the recorded rows."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else []


def row_key(row: Row) -> tuple[str, int, int]:
    """Return the part of a row that identifies a measurement; a repeated measurement replaces the recorded one."""
    return str(row["sweep"]), int(row["runs"]), int(row["cores"])


def write_document() -> None:
    """Write the table of docs/packed.md from the recorded rows."""
    PAGE.write_text(PAGE.read_text().partition(MARKER)[0] + MARKER + "\n" + table(read_results()))


def table(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [
        f"\nWall-clock time of whole commands on {platform.machine()}. The two launchers take turns; a number is the "
        f"median of `of` measurements. All sweeps have `{' '.join(RELU)}`.\n",
        "| sweep | runs | cores | of | packed, s per run | joblib, s per run | packed is |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        packed, joblib, runs = float(row["packed"]), float(row["joblib"]), int(row["runs"])
        cells = [f"`{row['sweep']}`", str(runs), str(row["cores"]), str(row["repeats"])]
        cells += [f"{packed / runs:.2f}", f"{joblib / runs:.2f}", f"{joblib / packed:.2f} times as fast"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
