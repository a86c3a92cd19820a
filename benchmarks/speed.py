"""Measure how fast aetrain is, beside others, and write docs/speed.md: `make bench`.

    python benchmarks/speed.py [SECTION ...] [--threads 2] [--rounds 5] [--networks vae dense conv deep] [--compare OLD]

Sections: training, precision, compile, start, memory; all by default. Training compares ways to train the same network,
each in a process of its own, taking turns of one epoch, the first of which does not count; a ratio is the median of the
turns' ratios. On a machine that others use as well, `--threads 1` and the processor's own clock (`--clock cpu`) are the
figures to go by. Peers are the extra `.[bench]`; what is not installed is left out with a sentence. Results go to
docs/speed.json, section by section.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers import DENSE, FLOOR, NEEDS, OVERRIDES, WAYS

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


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    names = re.findall(r"model name\s*: (.*)", cpuinfo()) or [platform.processor()]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if installed(name)]
    when = datetime.date.today().isoformat()
    return {"processor": f"{names[0]}, {os.cpu_count()} cores", "versions": ", ".join(versions), "date": when}


def cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.is_file() else ""


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def environment(threads: int) -> dict[str, str]:
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **count, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def pinned(threads: int) -> list[str]:
    """What keeps a process to so many processors, for libraries that take all they see."""
    found = subprocess.run(["which", "taskset"], capture_output=True, check=False).returncode == 0
    return ["taskset", "-c", f"0-{threads - 1}"] if found else []


# --- Training ---------------------------------------------------------------------------------------------------------


def training(given: argparse.Namespace, before: Results) -> Results:
    """Seconds an epoch by network and way: on the wall and on the processor's clock, and training alone where known."""
    found: Results = {**before, "threads": given.threads, "rounds": max(given.rounds, before.get("rounds", 0))}
    for network in given.networks:
        workers: dict[str, Any] = {}
        for way in WAYS:
            if way == FLOOR and network not in DENSE:
                continue
            missing = [name for name in NEEDS.get(way, ()) if not installed(name)]
            if missing:
                print(f"{way} is left out: {missing[0]} is not installed (pip install '.[bench]')")
                continue
            call = [*pinned(given.threads), sys.executable, str(ROOT / "benchmarks" / "contestants.py")]
            workers[way] = subprocess.Popen(
                [*call, way, network, given.data],
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True},
                env=environment(given.threads),
            )
        times: dict[str, list[list[float]]] = {way: [] for way in workers}
        for turn in range(given.rounds + 1):
            for way, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
                if not line:
                    sys.exit(f"{way} has failed: python benchmarks/contestants.py '{way}' {network} {given.data}")
                if turn:  # what begins in the first turn (memory, caches, drawing) is no part of an epoch
                    times[way].append([float(figure) for figure in line.split()])
                print(network, way, line.strip(), flush=True)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
        names = ("wall", "cpu", "training")
        found[network] = {
            way: {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=False)}
            for way, rows in times.items()
        }
        for way, rows in times.items():  # turn by turn, as the machine may be busy in one and idle in the next
            for place, name in enumerate(names[:2]):
                turns = zip(rows, times["aetrain"], strict=True)
                found[network][way][f"{name} ratio"] = statistics.median(
                    row[place] / ours[place] for row, ours in turns
                )
    return found


def training_text(found: Results, clock: str) -> list[str]:
    other = {"cpu": "processor time", "wall": "time on the wall"}[clock]
    lines = [
        "## An epoch, beside others",
        "",
        "The same network, data (grey MNIST), batches of 128, Adam and loss, in turns of one epoch; a pass over the",
        "test images after each. `aetrain` is the command as users have it: figures, log, curves, pictures, weights.",
        "What is compiled before the first epoch (`compile=true`, Keras) is left out: some seconds, once.",
        f"Medians of up to {found['rounds']} turns, {found['threads']} thread{'s' * (found['threads'] > 1)},",
        f"{other}; a ratio above 1 says how many times as long as aetrain somebody takes.",
        "",
    ]
    ways = list(WAYS)
    networks = [network for network in NETWORKS if network in found]
    lines += [
        "| way | " + " | ".join(NETWORKS[network] for network in networks) + " |",
        "|---" * (len(networks) + 1) + "|",
    ]
    for way in ways:
        cells = []
        for network in networks:
            measured = found[network].get(way)
            ours = f"{found[network]['aetrain'][clock]:.2f} s"
            cells.append("" if measured is None else ours if way == "aetrain" else f"{measured[f'{clock} ratio']:.2f}")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    beside = [1 - found[network]["aetrain"]["training"] / found[network]["aetrain"]["wall"] for network in networks]
    shares = ", ".join(f"{100 * share:.0f} % ({network})" for network, share in zip(networks, beside, strict=True))
    reached = ", ".join(
        f"{100 * found[network][FLOOR][f'{clock} ratio']:.0f} % ({network})"
        for network in networks
        if FLOOR in found[network]
    )
    return [
        *lines,
        "",
        f"Of aetrain's epoch, on the wall, {shares} are not training: figures on",
        "10,000 test images, log, curves, pictures, checkpoint. The share that its matrix products would take",
        f"alone: {reached}.",
        "",
    ]


# --- Precision and compiling ------------------------------------------------------------------------------------------


def aetrain(words: Sequence[str], given: argparse.Namespace, program: Sequence[str] = ()) -> tuple[Results, str, float]:
    """A run in a process of its own: its metrics, what it said, and the memory that it needed at most, MB."""
    with tempfile.TemporaryDirectory() as folder:
        said = [f"data_dir={given.data}", f"hydra.run.dir={folder}/run", *words]
        code = (
            "import resource, sys; from aetrain.cli import main; main(); print('peak', resource.getrusage(0).ru_maxrss)"
        )
        call = [*pinned(given.threads), sys.executable, "-c", code, *said]
        done = subprocess.run(call, env=environment(given.threads), capture_output=True, text=True, check=True)
        metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text())
        return metrics, done.stdout, int(done.stdout.split()[-1]) / 1024


def precision(given: argparse.Namespace, before: Results) -> Results:
    """The test loss after a few epochs in both precisions, the same seed."""
    found: Results = {**before, "epochs": given.epochs}
    for network in given.networks:
        found[network] = {}
        for word in ("float32", "fast"):
            words = [*OVERRIDES[network], "views=none", f"epochs={given.epochs}", f"precision={word}"]
            metrics, _, _ = aetrain(words, given)
            found[network][word] = [metrics["test/loss"], metrics["train/seconds_per_epoch"]]
        print("precision", network, found[network], flush=True)
    return found


def precision_text(found: Results) -> list[str]:
    lines = [
        "## `precision=fast`",
        "",
        "Training in bfloat16 (weights, optimizer, loss and all figures stay float32): the test loss after "
        f"{found['epochs']} epochs,",
        "nats per image, same seed.",
        "",
        "| network | float32 | fast | difference |",
        "|---|---|---|---|",
    ]
    for network in (n for n in NETWORKS if n in found):
        exact, fast = found[network]["float32"][0], found[network]["fast"][0]
        lines.append(f"| {NETWORKS[network]} | {exact:.3f} | {fast:.3f} | {100 * (fast / exact - 1):+.2f} % |")
    return [*lines, ""]


def compiling(given: argparse.Namespace, before: Results) -> Results:
    """What `compile=true` says of each network."""
    found = dict(before)
    for network in given.networks:
        _, said, _ = aetrain([*OVERRIDES[network], "views=none", "epochs=1", "compile=true"], given)
        found[network] = next(line for line in said.splitlines() if "compiled in" in line or "compile=true" in line)
        print("compile", network, found[network], flush=True)
    return found


def compiling_text(found: Results) -> list[str]:
    lines = [
        "## `compile=true`",
        "",
        "What the run itself says, on this machine's CPU; the optimizer's step comes on top. On a GPU the program is",
        "recorded as a CUDA graph; that has not been measured.",
        "",
    ]
    return [*lines, *(f"- {NETWORKS[network]}: {found[network]}" for network in NETWORKS if network in found), ""]


# --- Start and memory -------------------------------------------------------------------------------------------------

STARTS = {
    "import torch": ["-c", "import torch"],
    "aetrain --help": ["-m", "aetrain", "--help"],
    "aetrain --cfg job": ["-m", "aetrain", "--cfg", "job"],
    "tab completion": ["-m", "aetrain", "-sc", "query=bash"],
}
FIRST_STEP = """
import os, sys, time
import torch
from aetrain import experiment, library
from aetrain.training.fit import OptimizerStep
began = 0.0
load, step = experiment.load, OptimizerStep.step
def loaded(parts):
    global began
    splits = load(parts)
    began = time.process_time()
    return splits
def first(update, x):
    step(update, x)
    print("first", time.process_time() - began, flush=True)
    os._exit(0)
experiment.load, OptimizerStep.step = loaded, first
experiment.run(*library.composed(sys.argv[1:]))
"""


def start(given: argparse.Namespace, before: Results) -> Results:
    """Processor seconds of answers without training, taking turns; and from loaded data to the first step's end."""
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    extra = {"COMP_LINE": "aetrain dataset=", "COMP_POINT": "16"}
    for _ in range(given.rounds):
        for name, words in STARTS.items():
            began = os.times()
            subprocess.run(
                [sys.executable, *words], env=environment(1) | extra, capture_output=True, check=True, cwd=ROOT
            )
            ended = os.times()
            times[name].append(
                ended.children_user + ended.children_system - began.children_user - began.children_system
            )
    found = {name: min(values) for name, values in times.items()}
    with tempfile.TemporaryDirectory() as folder:
        words = [f"data_dir={given.data}", f"hydra.run.dir={folder}/run", "model=vae"]
        call = [sys.executable, "-c", FIRST_STEP, *words]
        done = subprocess.run(call, env=environment(1), capture_output=True, text=True, check=True)
    found[
        "from loaded data to the end of the first step of `model=vae`, the figures and pictures before it included"
    ] = float(done.stdout.split()[-1])
    print("start", found, flush=True)
    return found


def start_text(found: Results) -> list[str]:
    lines = [
        "## Start",
        "",
        "Processor seconds, the least of several, taking turns.",
        "",
        "| what | s | `import torch` = 1 |",
    ]
    torch = found["import torch"]
    return [*lines, "|---|---|---|", *(f"| {k} | {v:.2f} | {v / torch:.2f} |" for k, v in found.items()), ""]


MEMORY = {
    "default run (`model=deep`, MNIST, 60,000 images)": [],
    "the same with 30,000 images": ["dataset.subset=30000"],
    "`model=deep model.hidden=[1000,500,250] model.code_dim=30`": OVERRIDES["deep"],
    "`model=conv`": OVERRIDES["conv"],
}


def memory(given: argparse.Namespace, before: Results) -> Results:
    """Resident memory at its peak, MB."""
    code = "import torch, resource; print(resource.getrusage(0).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {"`import torch` alone": int(done.stdout) / 1024}
    for name, words in MEMORY.items():
        found[name] = aetrain([*words, "epochs=1"], given)[2]
        print("memory", name, found[name], flush=True)
    return found


def memory_text(found: Results) -> list[str]:
    lines = [
        "## Memory",
        "",
        "Resident memory at its peak, with pictures, figures and checkpoint. The data set stays as it is stored,",
        "one byte a pixel; a batch becomes floats; a weight takes 16 bytes (itself, its gradient, Adam's means).",
        "",
        "| what | MB |",
        "|---|---|",
    ]
    return [*lines, *(f"| {name} | {value:.0f} |" for name, value in found.items()), ""]


# --- The document -----------------------------------------------------------------------------------------------------

SECTIONS = {"training": training, "precision": precision, "compile": compiling, "start": start, "memory": memory}


def document(results: Results) -> str:
    """docs/speed.md from all that has been measured."""
    where = results["machine"]
    lines = [
        "# Speed",
        "",
        "Written by `make bench` (`python benchmarks/speed.py`), which says how each figure comes about; they",
        "are in [speed.json](speed.json), which `--compare` takes. Ratios carry over to other machines.",
        "",
        f"Measured on {where['processor']}; {where['versions']}; {where['date']}.",
        "",
    ]
    texts = {"precision": precision_text, "compile": compiling_text, "start": start_text, "memory": memory_text}
    if "training" in results:
        lines += training_text(results["training"], results["clock"])
    for name, text in texts.items():
        if name in results:
            lines += text(results[name])
    return "\n".join(lines).rstrip() + "\n"


def recorded() -> Results:
    """What has been measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def compared(new: Results, old: Results) -> list[str]:
    """How an epoch of aetrain's has changed since an earlier file, network by network."""
    clock, lines = new["clock"], []
    for network in NETWORKS:
        pair = [r.get("training", {}).get(network, {}).get("aetrain", {}).get(clock) for r in (old, new)]
        if None not in pair:
            lines.append(f"{network}: {pair[0]:.2f} s then, {pair[1]:.2f} s now ({pair[1] / pair[0]:.2f})")
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of the comparison of precisions")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--data", default=os.environ.get("AETRAIN_DATA", "data"))
    parser.add_argument("--compare", type=Path, help="an earlier speed.json")
    given = parser.parse_args()
    old = json.loads(given.compare.read_text()) if given.compare else None
    began = time.perf_counter()
    for name in given.sections or SECTIONS:
        measured = SECTIONS[name](given, recorded().get(name, {}))
        results = {**recorded(), "machine": machine(), name: measured}
        results.setdefault("clock", given.clock)
        if name == "training":
            results["clock"] = given.clock
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        DOCUMENT.write_text(document(results))
    print(DOCUMENT.read_text())
    print(*([] if old is None else compared(recorded(), old)), sep="\n")
    print(f"{time.perf_counter() - began:.0f} s; {DOCUMENT}")


if __name__ == "__main__":
    main()
