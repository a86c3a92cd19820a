"""Measure the time of an epoch and the memory of a run as data, network, processes and sweeps grow: docs/scale.md.

    python benchmarks/scale.py [SERIES ...] [--folder /tmp/aetrain-scale] [--page]

Each series varies one number: rows of a memory-mapped array, pixels of an image, width, depth, code size, processes
that `torchrun` starts, runs of a sweep. A point is a command of its own on one thread a process, with generated images.
Its seconds are those of the shortest of its epochs, or of the whole command for a sweep; its memory is the largest that
is not shared with files, of process 0. Results go to docs/scale.json, from which the page is made; `--page` only writes
the page. `--folder` takes 6 GB and is deleted at the end.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memory import write_array

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCUMENT = ROOT / "docs" / "scale.json", ROOT / "docs" / "scale.md"
COMMON = ("views=none", "device=cpu", "dataset.test_subset=500", "epochs=2", "batch_size=128", "compile=false")
MEASURE = """
import json, os, sys, time

if __name__ == "__main__":  # the processes of a sweep import this file
    from process_memory import watched_memory
    start = time.perf_counter()
    file, *sys.argv[1:] = sys.argv[1:]
    with watched_memory() as memory:
        from aetrain.cli import main
        main()
    if os.environ.get("RANK", "0") == "0":
        open(file, "w").write(json.dumps({"mib": memory["RssAnon"], "seconds": time.perf_counter() - start}))
"""

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Point:
    """A point of a series."""

    value: int
    rows: int
    shape: Shape
    overrides: tuple[str, ...]
    work: float  # the time of a perfect system, in a unit of the series
    processes: int = 1


@dataclass(frozen=True)
class Series:
    """Points in the order of the number that grows."""

    title: str
    column: str
    points: Sequence[Point]
    perfect: str  # the line that a perfect system would follow
    reason: str  # why the measured one bends

    @property
    def is_of_sweeps(self) -> bool:
        """Whether the points are sweeps, whose seconds are those of the command."""
        return "-m" in self.points[0].overrides


def dense_weights(pixels: int, hidden: Sequence[int], code: int) -> int:
    """Return the number of weights of a dense autoencoder, which an example multiplies once."""
    sizes = [pixels, *hidden, code]
    return 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def dense_point(value: int, rows: int, hidden: Sequence[int], code: int) -> Point:
    """Return a point of a dense network on images of 28x28."""
    overrides = ("model=deep", f"model.hidden=[{','.join(map(str, hidden))}]", f"model.code_dim={code}")
    return Point(value, rows, (1, 28, 28), overrides, rows * dense_weights(784, hidden, code))


def process_point(processes: int, batch_size: int) -> Point:
    """Return a point of one run in several processes."""
    point = dense_point(processes, 20_000, [1000, 500, 250], 30)
    overrides = (*point.overrides, f"batch_size={batch_size}")
    cores = min(processes, os.cpu_count() or 1)
    return replace(point, overrides=overrides, work=point.work / cores, processes=processes)


def image_point(side: int, channels: int) -> Point:
    """Return a point of a convolutional network on square images."""
    return Point(side * side * channels, 2000, (channels, side, side), ("model=conv",), side * side)


def sweep_point(runs: int) -> Point:
    """Return a point of a sweep over seeds, in one process."""
    return Point(runs, 2000, (1, 28, 28), ("-m", f"seed=range({runs})", "model=vae"), runs)


SERIES: dict[str, Series] = {
    "rows": Series(
        "Rows of a memory-mapped array: 784-256-32",
        "rows",
        [dense_point(rows, rows, [256], 32) for rows in (60_000, 600_000, 6_000_000)],
        "proportional to the rows, with constant memory",
        "Every row is read once an epoch, in random order, from the pages of the file that are in memory. An array "
        "above the size of memory is read from the disk in every epoch. The order of an epoch takes 8 bytes a row.",
    ),
    "pixels": Series(
        "Pixels of an image: `model=conv`",
        "values of an image",
        [image_point(28, 1), image_point(32, 3), image_point(64, 3), image_point(128, 3)],
        "proportional to height times width (the channels of the hidden layers are the same)",
        "The dense layer at the code grows in the same way. The memory is that of the activations of a batch, and of "
        "the test images in evaluation.",
    ),
    "width": Series(
        "Width: 784-w-32",
        "units",
        [dense_point(width, 10_000, [width], 32) for width in (128, 512, 2048, 8192)],
        "proportional to the number of weights",
        "Narrow networks pay for the operations of a step, whatever their size; their products do not fill a core. "
        "Once products take most of the time, the line is straight. Memory is 16 bytes a weight.",
    ),
    "depth": Series(
        "Depth: layers of 512 units in the encoder",
        "layers",
        [dense_point(depth, 10_000, [512] * depth, 32) for depth in (1, 2, 4, 8)],
        "proportional to the number of weights",
        "The weights, their gradients and the means of Adam, 16 bytes a weight, leave the cache of the processor.",
    ),
    "code": Series(
        "Size of the code: 784-512-d",
        "units",
        [dense_point(code, 10_000, [512], code) for code in (2, 32, 512, 4096)],
        "proportional to the number of weights",
        "The line is straight; small codes are a small part of the network.",
    ),
    "processes": Series(
        "Processes of `torchrun`: 784-1000-500-250-30, batches of 128",
        "processes",
        [process_point(count, 128) for count in (1, 2, 4)],
        "divided by the number of processes, up to the number of cores",
        "Each step exchanges the gradients of 2.8 million weights and updates all of them in each process, which takes "
        "as long for any batch; the products of a shard of 64 examples read the same weights as those of 128. Process "
        "0 evaluates while the others wait. More processes than cores take turns.",
    ),
    "large_batches": Series(
        "Processes of `torchrun`: 784-1000-500-250-30, batches of 2,048",
        "processes",
        [process_point(count, 2048) for count in (1, 2, 4)],
        "divided by the number of processes, up to the number of cores",
        "There are sixteen times fewer messages and updates. The evaluation of process 0 is not divided.",
    ),
    "runs": Series(
        "Runs of a sweep over seeds",
        "runs",
        [sweep_point(runs) for runs in (1, 4, 16, 64)],
        "proportional to the runs, with constant memory",
        "The start, the imports and most of the composition of configs are paid once. The summary at the end reads "
        "every run; [clusters.md](clusters.md) has sweeps of 1,000 runs.",
    ),
}

HEAD = """# Growth

The time of an epoch and the memory of a run as one number grows, beside the line that a perfect system would follow
from the first point. `python benchmarks/scale.py` measures it (half an hour) and writes this page from
[scale.json](scale.json). Each process has one thread; images are generated; batches have 128 examples where nothing
else is said; an epoch includes its evaluation of 500 images. Seconds are by the clock, the shortest epoch of two, on
the {cores} cores of a machine that other programs used as well. Memory is that of the process without pages of files.
"""
PAPER = """## A hundred machines, on paper

Nothing here was measured on more than one machine. It follows from the tables and from how the parts work.

- **Many runs.** Runs of a sweep share the data and the directory of the sweep, so a hundred machines train a hundred
  times as many runs, through Slurm or Ray ([clusters.md](clusters.md)). The command that starts them composes one
  config after the other, and the report reads every run: both grow with the runs, not with the machines. On the shared
  file system, each run has one history, one checkpoint and one event file, which change once an epoch.
- **One run.** A step sends the gradients of all weights, 4 bytes a weight, and an all-reduce in a ring sends twice as
  many per process, whatever the number of processes. Let a step of one process take t seconds, and let b bytes a second
  join processes that train w weights: n processes take about t / n + 8 w / b seconds. More than t b / (8 w) processes
  bring little. A larger batch raises t and not w, so that a hundred machines need batches a hundred times as large,
  which is another training: its learning rate has to be chosen again.
- **Data.** Every process maps the whole array and reads the rows of its shard. A shared file system sends the same
  pages to all machines; a copy on each machine is read once. Every process draws the order of an epoch, 8 bytes a row.
- **Evaluation.** Process 0 evaluates alone, which takes as long with any number of processes: with a share s of an
  epoch, the gain is at most 1 / s (Amdahl's law). `dataset.test_subset` makes it shorter.
"""


def measure(point: Point, folder: Path) -> dict[str, float]:
    """Train a point; return its value and its work, the seconds, and the memory of process 0 in MiB."""
    file = folder / f"{point.rows}-{'x'.join(map(str, point.shape))}.npy"
    if not file.is_file():
        write_array(file, point.rows, point.shape)
    run, measured, script = folder / "run", folder / "measured.json", folder / "measure.py"
    shutil.rmtree(run, ignore_errors=True)
    script.write_text(MEASURE)
    directories = (f"hydra.run.dir={run}", f"hydra.sweep.dir={run}")
    words = [*COMMON, "dataset=npz", f"dataset.path={file}", *directories, *point.overrides]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={point.processes}"]
    command = [sys.executable, *(launcher if point.processes > 1 else []), str(script), str(measured), *words]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
    }
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    result = json.loads(measured.read_text())
    if (history := run / "history.jsonl").is_file():
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        result["seconds"] = min(line["seconds"] for line in lines if line.get("seconds"))
    return {"value": point.value, "work": point.work, **result}


def section(series: Series, results: Sequence[dict[str, float]]) -> list[str]:
    """Return the lines of a series: a table of seconds, ratios to the first point and memory, and the reasons."""
    time = "seconds of the command" if series.is_of_sweeps else "seconds an epoch"
    text = [f"## {series.title}", "", f"| {series.column} | {time} | ratio | perfect | memory, MiB |"]
    text.append("|---:|---:|---:|---:|---:|")
    for one in results:
        ratio, perfect = (one[name] / results[0][name] for name in ("seconds", "work"))
        numbers = f"{one['seconds']:.3g} | {ratio:.3g} | {perfect:.3g} | {one['mib']:,.0f}"
        text.append(f"| {one['value']:,.0f} | {numbers} |")
    return [*text, "", textwrap.fill(f"Perfect: {series.perfect}. {series.reason}", 120), ""]


def write_document() -> None:
    """Write docs/scale.md from the results."""
    results = json.loads(RESULTS.read_text())
    text = [HEAD.format(cores=results["cores"])]
    for name, series in SERIES.items():
        if name in results:
            text += section(series, results[name])
    DOCUMENT.write_text("\n".join([*text, PAPER]))


def main() -> None:
    """Measure, record each series as soon as all of its points are measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"series: {', '.join(SERIES)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/aetrain-scale"))
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SERIES)
    if unknown:
        sys.exit(f"there is no series {', '.join(sorted(unknown))}: use {', '.join(SERIES)}")
    names = [] if arguments.page else arguments.names or list(SERIES)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in names:
            points = [measure(point, arguments.folder) for point in SERIES[name].points]
            print(name, json.dumps(points), flush=True)
            results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
            RESULTS.write_text(json.dumps(results | {"cores": os.cpu_count(), name: points}, indent=1) + "\n")
    finally:
        shutil.rmtree(arguments.folder)
    write_document()


if __name__ == "__main__":
    main()
