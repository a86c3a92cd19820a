"""Measure the speed of aetrain and of other libraries, and write docs/speed.md: `make bench`.

    python benchmarks/speed.py [SECTION ...] [--threads 2] [--rounds 5] [--networks vae dense conv deep] [--compare OLD]

Sections: training, busy, waiting, convolutions, precision, compile, start, memory; all by default. `training` compares
programs that train the same network. Each runs in its own process, and they take turns of one epoch, the first of which
does not count; a ratio is the median of the ratios of the turns. On a machine with other load, use `--threads 1` and
processor time (`--clock cpu`). The other libraries are the extra `.[bench]`; a library that is not installed is left
out with a message. The results go to docs/speed.json, section by section.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from busy import SPIN_COUNT_OF_GNU, busy_text, end_trainers, measure_network, measure_ratio, waiting_text
from convolutions import convolutions_text, measure_step
from trainers import DENSE, FLOOR, OVERRIDES, PACKAGES_OF, WAYS

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCUMENT = ROOT / "docs" / "speed.json", ROOT / "docs" / "speed.md"
NETWORKS = {
    "vae": "variational 784-400-20",
    "dense": "dense 784-256-128",
    "conv": "convolutional, 16 and 32 maps, code of 32",
    "deep": "deep 784-1000-500-250-30",
}
PACKAGES = ("torch", "lightning", "keras", "jax")
Results = dict[str, Any]


def describe_machine() -> dict[str, str]:
    """Return the processor, the versions of the libraries, and the date."""
    processors = re.findall(r"model name\s*: (.*)", read_cpuinfo()) or [platform.processor()]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if is_installed(name)]
    date = datetime.date.today().isoformat()
    return {"processor": f"{processors[0]}, {os.cpu_count()} cores", "versions": ", ".join(versions), "date": date}


def read_cpuinfo() -> str:
    """Return the content of /proc/cpuinfo; empty if there is no such file."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.is_file() else ""


def is_installed(name: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process with a number of threads and the repository on its path."""
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **counts, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def pin_to_cores(count: int) -> list[str]:
    """Return a command prefix that restricts a process to `count` cores; the prefix is empty without taskset."""
    has_taskset = subprocess.run(["which", "taskset"], capture_output=True, check=False).returncode == 0
    return ["taskset", "-c", f"0-{count - 1}"] if has_taskset else []


# --- Training ---------------------------------------------------------------------------------------------------------


def measure_training(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the seconds per epoch by network and way: wall-clock time, processor time, and training alone if known."""
    rounds = max(arguments.rounds, before.get("rounds", 0))
    results: Results = {**before, "threads": arguments.threads, "rounds": rounds}
    for network in arguments.networks:
        results[network] = summarise_turns(take_turns(network, arguments))
    return results


def take_turns(network: str, arguments: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Train a network in all ways, taking turns of one epoch; return the rows of seconds by way."""
    trainers = {way: start_trainer(way, network, arguments) for way in WAYS if can_train(way, network)}
    seconds: dict[str, list[list[float]]] = {way: [] for way in trainers}
    for turn in range(arguments.rounds + 1):
        for way, trainer in trainers.items():
            requests, answers = cast(IO[str], trainer.stdin), cast(IO[str], trainer.stdout)
            requests.write("\n")
            requests.flush()
            line = answers.readline()
            if not line:
                sys.exit(f"{way} has failed: python benchmarks/trainers.py '{way}' {network} {arguments.data}")
            if turn:  # the first turn also allocates memory, fills caches and draws the first pictures
                seconds[way].append([float(number) for number in line.split()])
            print(network, way, line.strip(), flush=True)
    end_trainers(trainers.values())
    return seconds


def can_train(way: str, network: str) -> bool:
    """Return whether a way applies to the network and its packages are installed; print a missing package."""
    missing = [name for name in PACKAGES_OF.get(way, ()) if not is_installed(name)]
    if missing:
        print(f"{way} is left out: {missing[0]} is not installed (pip install '.[bench]')")
    return not missing and (way != FLOOR or network in DENSE)


def start_trainer(
    way: str, network: str, arguments: argparse.Namespace, more: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start trainers.py for a way and a network, with more variables of its environment."""
    command = [*pin_to_cores(arguments.threads), sys.executable, str(ROOT / "benchmarks" / "trainers.py")]
    return subprocess.Popen(
        [*command, way, network, arguments.data],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(arguments.threads) | (more or {}),
    )


def summarise_turns(seconds: dict[str, list[list[float]]]) -> Results:
    """Return the medians by way, and the medians of the ratios to aetrain.

    A ratio compares times of the same turn, because the load of the machine may differ between turns.
    """
    results: Results = {}
    for way, rows in seconds.items():
        columns = zip(("wall", "cpu", "training"), zip(*rows, strict=True), strict=False)
        results[way] = {name: statistics.median(column) for name, column in columns}
        for number, name in enumerate(("wall", "cpu")):
            ratios = [row[number] / own[number] for row, own in zip(rows, seconds["aetrain"], strict=True)]
            results[way][f"{name} ratio"] = statistics.median(ratios)
    return results


TRAINING_HEAD = """## An epoch, compared with others

The same network, data (grey MNIST), batches of 128, Adam and loss; the programs take turns of one epoch, each
followed by a pass over the test images. `aetrain` is the full command with metrics, log, curves, pictures and
weights. Compilation before the first epoch (`compile=true`, Keras) is left out: some seconds, once.
Medians of up to {rounds} turns, {threads},
{clock}; numbers without a unit are ratios to aetrain's time: 2.00 takes twice as long.
"""


def training_text(results: Results, clock: str) -> list[str]:
    """Return the lines of the section of training."""
    clock_name = {"cpu": "processor time", "wall": "wall-clock time"}[clock]
    threads = "1 thread" if results["threads"] == 1 else f"{results['threads']} threads"
    networks = [network for network in NETWORKS if network in results]
    lines = [TRAINING_HEAD.format(rounds=results["rounds"], threads=threads, clock=clock_name)]
    lines.append("| way | " + " | ".join(NETWORKS[network] for network in networks) + " |")
    lines.append("|---" * (len(networks) + 1) + "|")
    for way in WAYS:
        cells = [training_cell(results[network], way, clock) for network in networks]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    shares, floors = [], []
    for network in networks:
        own = results[network]["aetrain"]
        shares.append(f"{100 * (1 - own['training'] / own['wall']):.0f} % ({network})")
        if FLOOR in results[network]:
            floors.append(f"{100 * results[network][FLOOR][f'{clock} ratio']:.0f} % ({network})")
    return [
        *lines,
        "",
        f"Of aetrain's epoch, in wall-clock time, {', '.join(shares)} are not training but metrics on",
        "10,000 test images, log, curves, pictures and checkpoint. Its matrix products alone would take",
        f"{', '.join(floors)}.",
        "",
    ]


def training_cell(results: Results, way: str, clock: str) -> str:
    """Return aetrain's seconds per epoch, or the ratio of another way; empty if it was not measured."""
    if way not in results:
        return ""
    return f"{results[way][clock]:.2f} s" if way == "aetrain" else f"{results[way][f'{clock} ratio']:.2f}"


# --- A busy machine ---------------------------------------------------------------------------------------------------


def measure_busy(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the time of an epoch beside other programs by network, as multiples of that on a free machine."""
    results: Results = {**before, "rounds": arguments.rounds, "cores": arguments.threads}
    for network in arguments.networks:
        results[network] = measure_network(network, arguments, start_without_count)
    return results


def measure_waiting(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the time of an epoch on a free machine by network, as a multiple of that with torch's own wait policy."""
    results: Results = {**before, "rounds": arguments.rounds, "cores": arguments.threads}
    for network in arguments.networks:
        trainers = [start_without_count("aetrain", network, arguments, more) for more in ({}, SPIN_COUNT_OF_GNU)]
        results[network] = measure_ratio(network, trainers, arguments.rounds)
    return results


def start_without_count(
    way: str, network: str, arguments: argparse.Namespace, more: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start trainers.py on as many cores as `threads`, without a number of threads in its environment."""
    return start_trainer(way, network, arguments, {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "", **(more or {})})


def measure_convolutions(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the times of the layers of the convolutional network."""
    results = measure_step(OVERRIDES["conv"], arguments.threads)
    print("convolutions", results, flush=True)
    return results


# --- Precision and compiling ------------------------------------------------------------------------------------------


def run_aetrain(overrides: Sequence[str], arguments: argparse.Namespace) -> tuple[Results, str, float]:
    """Run aetrain in its own process; return its metrics, its output, and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import resource, sys; from aetrain.cli import main; main(); print(resource.getrusage(0).ru_maxrss)"
        command = [*pin_to_cores(arguments.threads), sys.executable, "-c", code]
        command += [f"data_dir={arguments.data}", f"hydra.run.dir={folder}/run", *overrides]
        process = subprocess.run(
            command, env=environment(arguments.threads), capture_output=True, text=True, check=True
        )
        metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text())
        return metrics, process.stdout, int(process.stdout.split()[-1]) / 1024


def measure_precision(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the test loss after a few epochs in both precisions, with the same seed."""
    results: Results = {**before, "epochs": arguments.epochs}
    for network in arguments.networks:
        results[network] = {}
        for precision in ("float32", "fast"):
            overrides = [*OVERRIDES[network], "views=none", f"epochs={arguments.epochs}", f"precision={precision}"]
            metrics, _, _ = run_aetrain(overrides, arguments)
            results[network][precision] = [metrics["test/loss"], metrics["train/seconds_per_epoch"]]
        print("precision", network, results[network], flush=True)
    return results


def precision_text(results: Results) -> list[str]:
    """Return the lines of the section of precision."""
    lines = [
        "## `precision=fast`",
        "",
        "Training in bfloat16 (weights, optimizer, loss and all metrics stay float32): the test loss after "
        f"{results['epochs']} epochs,",
        "nats per image, same seed.",
        "",
        "| network | float32 | fast | difference |",
        "|---|---|---|---|",
    ]
    for network in (network for network in NETWORKS if network in results):
        exact, fast = results[network]["float32"][0], results[network]["fast"][0]
        lines.append(f"| {NETWORKS[network]} | {exact:.3f} | {fast:.3f} | {100 * (fast / exact - 1):+.2f} % |")
    return [*lines, ""]


def measure_compilation(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the log line of `compile=true` by network."""
    results = dict(before)
    for network in arguments.networks:
        _, output, _ = run_aetrain([*OVERRIDES[network], "views=none", "epochs=1", "compile=true"], arguments)
        lines = [line for line in output.splitlines() if "compiled in" in line or "compile=true" in line]
        results[network] = lines[0]
        print("compile", network, results[network], flush=True)
    return results


COMPILATION_HEAD = """## `compile=true`

The log line of a run of each network, on this machine's CPU. The times do not include the optimizer's step. On a GPU
the compiled step is recorded as a CUDA graph ([devices.md](devices.md)).
"""


def compilation_text(results: Results) -> list[str]:
    """Return the lines of the section of compilation."""
    lines = [f"- {NETWORKS[network]}: {results[network]}" for network in NETWORKS if network in results]
    return [COMPILATION_HEAD, *lines, ""]


# --- Start and memory -------------------------------------------------------------------------------------------------

STARTS = {
    "import torch": ["-c", "import torch"],
    "aetrain --help": ["-m", "aetrain", "--help"],
    "aetrain --cfg job": ["-m", "aetrain", "--cfg", "job"],
    "tab completion": ["-m", "aetrain", "-sc", "query=bash"],
}
FIRST_STEP_NAME = (
    "from loaded data to the end of the first step of `model=vae`, including the metrics and pictures before it"
)
FIRST_STEP = """
import os, sys, time
import torch
from aetrain.api import compose_config
from aetrain.runs import entry, train
from aetrain.training.step import OptimizerStep
start = 0.0
load_data, step = train.load_data, OptimizerStep.__call__
def load_and_start_clock(components):
    global start
    splits = load_data(components)
    start = time.process_time()
    return splits
def take_first_step(optimizer_step, *batches):
    step(optimizer_step, *batches)
    print("first", time.process_time() - start, flush=True)
    os._exit(0)
train.load_data, OptimizerStep.__call__ = load_and_start_clock, take_first_step
entry.run(*compose_config(sys.argv[1:]))
"""


def measure_start(arguments: argparse.Namespace, before: Results) -> Results:
    """Return processor seconds: of commands without training, which take turns, and until the end of the first step."""
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    completion = {"COMP_LINE": "aetrain dataset=", "COMP_POINT": "16"}
    for _ in range(arguments.rounds):
        for name, options in STARTS.items():
            start = children_seconds()
            command = [sys.executable, *options]
            subprocess.run(command, env=environment(1) | completion, capture_output=True, check=True, cwd=ROOT)
            seconds[name].append(children_seconds() - start)
    results = {name: min(values) for name, values in seconds.items()}
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"data_dir={arguments.data}", f"hydra.run.dir={folder}/run", "model=vae"]
        command = [sys.executable, "-c", FIRST_STEP, *overrides]
        process = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True)
    results[FIRST_STEP_NAME] = float(process.stdout.split()[-1])
    print("start", results, flush=True)
    return results


def children_seconds() -> float:
    """Return the processor seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def start_text(results: Results) -> list[str]:
    """Return the lines of the section of the start."""
    lines = [
        "## Start",
        "",
        "Processor seconds, the minimum of several measurements that take turns.",
        "",
        "| what | s | `import torch` = 1 |",
        "|---|---|---|",
    ]
    torch = results["import torch"]
    return [*lines, *(f"| {name} | {value:.2f} | {value / torch:.2f} |" for name, value in results.items()), ""]


MEMORY = {
    "default run (`model=deep`, MNIST, 60,000 images)": [],
    "default run with 30,000 images": ["dataset.subset=30000"],
    "`model=deep model.hidden=[1000,500,250] model.code_dim=30`": OVERRIDES["deep"],
    "`model=conv`": OVERRIDES["conv"],
}


def measure_memory(arguments: argparse.Namespace, before: Results) -> Results:
    """Return the peak resident memory, in MB."""
    code = "import torch, resource; print(resource.getrusage(0).ru_maxrss)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    results = {"`import torch` alone": int(process.stdout) / 1024}
    for name, overrides in MEMORY.items():
        results[name] = run_aetrain([*overrides, "epochs=1"], arguments)[2]
        print("memory", name, results[name], flush=True)
    return results


MEMORY_HEAD = """## Memory

Peak resident memory, with pictures, metrics and checkpoint. The data set is stored with one byte per pixel; a batch
is converted to floats; a weight takes 16 bytes (itself, its gradient, Adam's means).

| what | MB |
|---|---|"""


def memory_text(results: Results) -> list[str]:
    """Return the lines of the section of memory."""
    return [MEMORY_HEAD, *(f"| {name} | {value:.0f} |" for name, value in results.items()), ""]


# --- The page ---------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[argparse.Namespace, Results], Results]] = {
    "training": measure_training,
    "busy": measure_busy,
    "waiting": measure_waiting,
    "convolutions": measure_convolutions,
    "precision": measure_precision,
    "compile": measure_compilation,
    "start": measure_start,
    "memory": measure_memory,
}
TEXTS = {
    "busy": lambda results: busy_text(results, NETWORKS),
    "waiting": lambda results: waiting_text(results, NETWORKS),
    "convolutions": convolutions_text,
    "precision": precision_text,
    "compile": compilation_text,
    "start": start_text,
    "memory": memory_text,
}


def write_document() -> None:
    """Write docs/speed.md from the recorded results."""
    results = read_results()
    lines = [
        "# Speed",
        "",
        "`make bench` (`python benchmarks/speed.py`, which documents each measurement) writes this page and",
        "[speed.json](speed.json), the input of `--compare`. Ratios carry over to other machines.",
        "",
        *machines_text(results["machines"]),
        "",
    ]
    if "training" in results:
        lines += training_text(results["training"], results["clock"])
    for name, text in TEXTS.items():
        if name in results:
            lines += text(results[name])
    DOCUMENT.write_text("\n".join(lines).rstrip() + "\n")


def machines_text(machines: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for each machine on which sections were measured, with their names."""
    sections: dict[str, list[str]] = {}
    for name in (name for name in SECTIONS if name in machines):
        machine = machines[name]
        sections.setdefault(f"{machine['processor']}; {machine['versions']}; {machine['date']}", []).append(name)
    return ["Measured on", "", *(f"- {machine} ({', '.join(names)})" for machine, names in sections.items())]


def read_results() -> Results:
    """Return the recorded results."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def compare(new: Results, old: Results) -> list[str]:
    """Return a line per network on the change of aetrain's epoch since an earlier file."""
    clock, lines = new["clock"], []
    for network in NETWORKS:
        before, after = (epoch_seconds(results, network, clock) for results in (old, new))
        if before is not None and after is not None:
            lines.append(f"{network}: {before:.2f} s before, {after:.2f} s now ({after / before:.2f})")
    return lines


def epoch_seconds(results: Results, network: str, clock: str) -> float | None:
    """Return aetrain's recorded seconds per epoch; None if there are none."""
    return results.get("training", {}).get(network, {}).get("aetrain", {}).get(clock)


def main() -> None:
    """Measure the sections, write the page, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of the comparison of precisions")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--data", default=os.environ.get("AETRAIN_DATA", "data"))
    parser.add_argument("--compare", type=Path, help="an earlier speed.json")
    arguments = parser.parse_args()
    old = json.loads(arguments.compare.read_text()) if arguments.compare else None
    start = time.perf_counter()
    for name in arguments.sections or SECTIONS:
        section = SECTIONS[name](arguments, read_results().get(name, {}))
        results = {**read_results(), name: section}
        results["machines"] = {**results.get("machines", {}), name: describe_machine()}
        results.setdefault("clock", arguments.clock)
        if name == "training":
            results["clock"] = arguments.clock
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        write_document()
    print(DOCUMENT.read_text())
    if old is not None:
        print(*compare(read_results(), old), sep="\n")
    print(f"{time.perf_counter() - start:.0f} s; {DOCUMENT}")


if __name__ == "__main__":
    main()
