"""Measure an accelerator: epochs of the four networks of speed.py, and packs of runs; 5 minutes on an H100.

    python benchmarks/gpu.py [--data DIR] [--out FOLDER] [--device cuda] [--sections epochs packs] [--networks vae ...]

`epochs` trains each network on MNIST in the ways of WAYS, each in this process: seconds of the median epoch (training
alone, and with evaluation and checkpoint), and the peak of the device's memory. `packs` trains packs of 8, 32 and 128
runs, and some of the runs one after another. Tables are printed; FOLDER gets gpu.json and gpu.md.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from speed import NETWORKS
from torch import Tensor
from trainers import BATCH, OVERRIDES, RELU, make_loaders, make_network, read_images, summed_loss

from aetrain.api import compose_config
from aetrain.runs import entry
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.packed.packed_training import train_requests
from aetrain.training import loop
from aetrain.utils.devices import wait_for

PACKS = {  # overrides of a sweep over seeds, and the numbers of its runs
    "vae": (["model=vae", "model.hidden=[400]", "model.code_dim=20", *RELU], (8, 32, 128)),
    "conv": (OVERRIDES["conv"], (8, 32)),
}
SUBSET, PACK_EPOCHS, ALONE = 10_000, 3, 4  # examples and epochs of the runs of a pack, and runs one after another
Row = dict[str, Any]


class Memory:
    """The peak of a device's memory since the start, in MB; 0 on the CPU."""

    def __init__(self, device: str) -> None:
        self.has_peak = device == "cuda"
        if self.has_peak:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.has_peak else 0.0


# --- Epochs -----------------------------------------------------------------------------------------------------------


def train_with_aetrain(network: str, arguments: argparse.Namespace, device: str, *more: str, epochs: int = 5) -> Row:
    """Train by the command's code without views; the first epoch does not count."""
    whole: list[float] = []
    training: list[float] = []

    def fit(state: Any, steps: Any, batches: Any, callbacks: Any, *options: Any) -> None:
        start = time.perf_counter()

        def stop_clock(state: loop.TrainState) -> None:
            nonlocal start
            whole.append(time.perf_counter() - start)
            training.append(state.seconds)
            start = time.perf_counter()

        loop.fit(state, steps, batches, [*callbacks, stop_clock], *options)

    memory, lines = Memory(device), LogLines()
    with tempfile.TemporaryDirectory() as folder, mock.patch("aetrain.runs.train.fit", fit), lines:
        run = ["dataset=mnist", f"data_dir='{arguments.data}'", f"device={device}", f"epochs={epochs}", "views=none"]
        result = entry.run(*compose_config([*run, f"hydra.run.dir='{folder}/run'", *OVERRIDES[network], *more]))
    row = {"seconds": statistics.median(training[1:]), "with evaluation": statistics.median(whole[1:])}
    note = next((line for line in lines.lines if "compile" in line or "precision=fast" in line), "")
    return {**row, "memory": memory.peak, "loss": result["test/loss"], "note": note}


class LogLines(logging.Handler):
    """The log lines of aetrain inside."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> "LogLines":
        logging.getLogger("aetrain").setLevel(logging.INFO)
        logging.getLogger("aetrain").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("aetrain").removeHandler(self)


def train_by_hand(
    network: str, arguments: argparse.Namespace, device: str, mode: str | None = None, epochs: int = 4
) -> Row:
    """Train with tensor operations alone, the data on the device; `mode` of torch.compile records a CUDA graph."""
    pixels = next(iter(read_images(arguments.data))).to(device)
    model = make_network(network).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss_of: Callable[[Any, Tensor], Tensor] = summed_loss
    if mode is not None:
        loss_of = torch.compile(summed_loss, mode=mode, dynamic=False)
    memory = Memory(device)

    def epoch() -> None:
        total = torch.zeros((), device=device)
        for index in torch.randperm(len(pixels), device=device).split(BATCH):
            x = pixels[index].to(torch.float32).div_(255)
            loss = (loss_of if len(x) == BATCH else summed_loss)(model, x) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return {"seconds": median_time(epoch, device, epochs), "memory": memory.peak}


def train_with_loader(network: str, arguments: argparse.Namespace, device: str) -> Row:
    """Train one epoch like pytorch/examples on a GPU: a DataLoader with one worker, pinned memory, `.item()`."""
    from torch.utils.data import DataLoader

    train, _ = make_loaders(arguments.data)
    # The options of pytorch/examples/mnist.
    options: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if device == "cuda" else {}
    loader = DataLoader(train.dataset, batch_size=BATCH, shuffle=True, **options)
    model = make_network(network).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    memory, start = Memory(device), time.perf_counter()
    for images, _ in loader:
        x = images.to(device).flatten(1)
        optimizer.zero_grad()
        loss = summed_loss(model, x)
        loss.backward()
        loss.item()
        optimizer.step()
    return {"seconds": time.perf_counter() - start, "memory": memory.peak}


def median_time(epoch: Callable[[], None], device: str, epochs: int) -> float:
    """Return the median seconds of epochs after the first."""
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        epoch()
        wait_for(torch.device(device))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


Way = Callable[[str, argparse.Namespace], Row]
WAYS: dict[str, Way] = {
    "aetrain": lambda network, a: train_with_aetrain(network, a, a.device),
    "aetrain compile=true": lambda network, a: train_with_aetrain(network, a, a.device, "compile=true"),
    "aetrain precision=fast": lambda network, a: train_with_aetrain(network, a, a.device, "precision=fast"),
    "aetrain compile=true precision=fast": lambda network, a: train_with_aetrain(
        network, a, a.device, "compile=true", "precision=fast"
    ),
    "loop by hand": lambda network, a: train_by_hand(network, a, a.device),
    "loop by hand, torch.compile reduce-overhead": lambda network, a: train_by_hand(
        network, a, a.device, "reduce-overhead"
    ),
    "PyTorch example, DataLoader": lambda network, a: train_with_loader(network, a, a.device),
    "aetrain device=cpu": lambda network, a: train_with_aetrain(network, a, "cpu", epochs=3),
}


def measure_epochs(arguments: argparse.Namespace) -> list[Row]:
    """Return a row for each network and way; a way that fails has its error in place of numbers."""
    rows = []
    for network in arguments.networks:
        for name, way in WAYS.items():
            torch.manual_seed(0)
            start = time.perf_counter()
            try:
                row = way(network, arguments)
            except Exception as error:  # the others are still measured
                row = {"note": f"{type(error).__name__}: {str(error)[:200]}"}
            rows.append({"network": network, "way": name, **row, "took": time.perf_counter() - start})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def epochs_table(rows: Sequence[Row]) -> list[str]:
    """Return a table of training seconds an epoch, one of epochs with evaluation, and one of memory."""
    lines = []
    for key, title in (("seconds", "s of training"), ("with evaluation", "s with evaluation"), ("memory", "MB")):
        networks = [network for network in NETWORKS if any(row["network"] == network for row in rows)]
        lines += [f"| {title} an epoch | {' | '.join(networks)} |", "|---" * (len(networks) + 1) + "|"]
        for way in WAYS:
            values = {row["network"]: row[key] for row in rows if row["way"] == way and row.get(key)}
            if values:
                cells = [f"{values[network]:.3g}" if network in values else "" for network in networks]
                lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return lines


# --- Packs ------------------------------------------------------------------------------------------------------------


def sweep_requests(overrides: Sequence[str], runs: int, arguments: argparse.Namespace, folder: str) -> list[RunRequest]:
    """Return the requests of the runs of a sweep over seeds."""
    requests = []
    for seed in range(runs):
        words = ["dataset=mnist", f"dataset.subset={SUBSET}", f"dataset.test_subset={SUBSET}", "views=none"]
        words += [f"data_dir='{arguments.data}'", f"device={arguments.device}", f"epochs={PACK_EPOCHS}"]
        words += [*overrides, f"seed={seed}", f"hydra.run.dir='{folder}/{seed}'"]
        config, directory, full = compose_config(words)
        requests.append(RunRequest(config, RunDirectory(directory), full, single=False))
    return requests


def measure_sweep(name: str, runs: int, packed: bool, arguments: argparse.Namespace) -> Row:
    """Return the seconds a run of a sweep, as a pack or one after another: of training alone, and of everything."""
    memory, log = Memory(arguments.device), LogLines()
    with tempfile.TemporaryDirectory() as folder, log:
        requests = sweep_requests(PACKS[name][0], runs, arguments, folder)
        start = time.perf_counter()
        if packed:
            train_requests(requests)
        else:
            for request in requests:
                entry.run_request(request)
        wall = time.perf_counter() - start
        metrics = [request.run_dir.metrics() for request in requests]
    note = next((line for line in log.lines if "individually" in line), "")
    training = [row["train/seconds_per_epoch"] * PACK_EPOCHS for row in metrics]
    row = {"network": name, "runs": runs, "packed": packed, "whole": wall / runs, "memory": memory.peak, "note": note}
    return {**row, "training": statistics.median(training), "loss": statistics.mean(m["test/loss"] for m in metrics)}


def measure_packs(arguments: argparse.Namespace) -> list[Row]:
    """Return the rows of all sweeps; the runs one after another come first."""
    rows = []
    for name, (_, sizes) in PACKS.items():
        for runs, packed in ((1, False), (ALONE, False), *((size, True) for size in arguments.runs or sizes)):
            try:
                row = measure_sweep(name, runs, packed, arguments)
            except Exception as error:
                row = {"network": name, "runs": runs, "packed": packed, "note": f"{type(error).__name__}: {error}"}
            if runs > 1:  # the first run fills caches and allocates
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def packs_table(rows: Sequence[Row]) -> list[str]:
    """Return the table of packs, with their speed relative to runs one after another."""
    lines = [
        f"Runs on {SUBSET:,} images of MNIST for {PACK_EPOCHS} epochs; one after another is the mean of {ALONE} runs.",
        "",
        "| network | runs | training, s a run | times as fast | everything, s a run | times as fast | MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in (row for row in rows if "whole" in row):
        alone = next((r for r in rows if r["network"] == row["network"] and not r["packed"] and "whole" in r), row)
        runs = f"pack of {row['runs']}" if row["packed"] else "one after another"
        ratios = [f"{row[key]:.3f} | {alone[key] / row[key]:.2f}" for key in ("training", "whole")]
        lines.append(f"| {row['network']} | {runs} | {' | '.join(ratios)} | {row['memory']:.0f} |")
    return [*lines, ""]


# --- The page ---------------------------------------------------------------------------------------------------------


def describe_machine(device: str) -> str:
    """Return the device, the processor and the version of torch."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return f"{name}; {platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}"


def main() -> None:
    """Measure the sections, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("AETRAIN_DATA", "data"))
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sections", nargs="+", choices=["epochs", "packs"], default=["epochs", "packs"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runs", type=int, nargs="*", help="the numbers of runs of a pack")
    arguments = parser.parse_args()
    arguments.data = str(Path(arguments.data).resolve())
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(arguments.device)
    results: dict[str, Any] = {"machine": machine}
    lines = [f"Measured on {machine}.", ""]
    for section in arguments.sections:
        measure, table = {"epochs": (measure_epochs, epochs_table), "packs": (measure_packs, packs_table)}[section]
        results[section] = measure(arguments)
        lines += table(results[section])
        (arguments.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / "gpu.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
