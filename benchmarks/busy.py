"""The sections `busy` and `waiting` of speed.py: an epoch on a machine that other programs use, and on a free one.

In `busy`, company is two trainings in a loop by hand with torch's own settings. It stands still (SIGSTOP) while a free
machine is measured. In each turn, a run with the default settings and one with `threads=1` train an epoch alone, then
in company; then three runs of each kind train an epoch at once. An epoch has few images, since company slows some
epochs down to a tenth. No process has a number of threads from its environment. `waiting` compares the default settings
with torch's own wait policy on a free machine.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, cast

Results = dict[str, Any]
Process = subprocess.Popen[str]
Start = Callable[[str, str, argparse.Namespace], Process]

COMPANY_EPOCHS, SETTLING_S = 1000, 2.0
KINDS = {"default": "aetrain, few images", "one thread": "aetrain, few images, one thread"}
COMPANY = "loop by hand"
SIZE_OF_COMPANY, RUNS_AT_ONCE = 2, 3
SPIN_COUNT_OF_GNU = {"GOMP_SPINCOUNT": "300000"}  # GNU OpenMP's own; aetrain leaves a policy of the user as it is


def request_epoch(trainer: Process) -> None:
    """Let a trainer begin an epoch."""
    requests = cast(IO[str], trainer.stdin)
    requests.write("\n")
    requests.flush()


def read_seconds(trainer: Process) -> float:
    """Wait for the end of an epoch, and return its wall-clock seconds."""
    line = cast(IO[str], trainer.stdout).readline()
    if not line:
        sys.exit("a trainer has failed: python benchmarks/trainers.py shows why")
    return float(line.split()[0])


def train_at_once(trainers: Sequence[Process]) -> float:
    """Train an epoch with all trainers at once, and return the median of their seconds."""
    for trainer in trainers:
        request_epoch(trainer)
    return statistics.median(read_seconds(trainer) for trainer in trainers)


def end_trainers(trainers: Iterable[Process]) -> None:
    """End trainers by the end of their requests."""
    for trainer in trainers:
        cast(IO[str], trainer.stdin).close()
        trainer.wait()


def signal_all(processes: Sequence[Process], number: signal.Signals) -> None:
    """Send a signal to processes."""
    for process in processes:
        process.send_signal(number)


def measure_network(network: str, arguments: argparse.Namespace, start: Start) -> Results:
    """Return the seconds of an epoch of each kind of run: alone, in company, and with three at once."""
    runs = {kind: [start(way, network, arguments) for _ in range(RUNS_AT_ONCE)] for kind, way in KINDS.items()}
    company = [start(COMPANY, network, arguments) for _ in range(SIZE_OF_COMPANY)]
    for trainer in [trainer for trainers in runs.values() for trainer in trainers]:
        train_at_once([trainer])  # the first epoch also allocates memory and fills caches
    for trainer in company:
        for _ in range(COMPANY_EPOCHS):
            request_epoch(trainer)
    rows: dict[str, list[list[float]]] = {kind: [] for kind in runs}
    for turn in range(arguments.rounds):
        signal_all(company, signal.SIGSTOP)
        alone = {kind: train_at_once(trainers[:1]) for kind, trainers in runs.items()}
        at_once = {kind: train_at_once(trainers) for kind, trainers in runs.items()}
        signal_all(company, signal.SIGCONT)
        time.sleep(SETTLING_S)
        in_company = {kind: train_at_once(trainers[:1]) for kind, trainers in runs.items()}
        for kind, values in rows.items():
            values.append([alone[kind], in_company[kind], at_once[kind]])
        print("busy", network, turn, {kind: values[-1] for kind, values in rows.items()}, flush=True)
    signal_all(company, signal.SIGKILL)
    end_trainers([trainer for trainers in runs.values() for trainer in trainers])
    return summarise(rows)


def summarise(rows: dict[str, list[list[float]]]) -> Results:
    """Return the median seconds alone, and the medians of ratios to the time of the default settings alone."""
    results: Results = {"seconds": statistics.median(row[0] for row in rows["default"])}
    for kind, values in rows.items():
        pairs = list(zip(values, rows["default"], strict=True))
        for number, name in enumerate(("alone", "in company", "at once")):
            results[f"{kind} {name}"] = statistics.median(row[number] / own[0] for row, own in pairs)
    for number, name in enumerate(("alone", "in company", "at once")):
        pairs = list(zip(rows["default"], rows["one thread"], strict=True))
        results[f"ratio {name}"] = statistics.median(row[number] / other[number] for row, other in pairs)
    return results


def measure_ratio(network: str, trainers: Sequence[Process], rounds: int) -> float:
    """Return the time of an epoch of the first of two trainers, as a multiple of that of the second."""
    first, second = trainers
    ratios = []
    for turn in range(rounds + 1):
        order = trainers if turn % 2 else trainers[::-1]  # the load of the machine may fall on either
        seconds = {trainer: train_at_once([trainer]) for trainer in order}
        if turn:  # the first epoch also allocates memory and fills caches
            ratios.append(seconds[first] / seconds[second])
            print("waiting", network, turn, ratios[-1], flush=True)
    end_trainers(trainers)
    return statistics.median(ratios)


def waiting_text(results: Results, networks: dict[str, str]) -> list[str]:
    """Return the lines of the section of waiting."""
    ratios = [f"{results[network]:.3f} ({network})" for network in networks if network in results]
    return [WAITING_HEAD.format(rounds=results["rounds"], cores=results["cores"], ratios=", ".join(ratios)), ""]


WAITING_HEAD = """## Waiting threads on a free machine

An epoch with the default settings, which let waiting threads sleep where the machine is busy, as a multiple of the
time with `GOMP_SPINCOUNT=300000`, which is what torch has of its own. Below 1 is faster:
{ratios}. Medians of {rounds} turns, on the {cores} cores of a machine that
other programs used as well: repeat the measurement before you rely on a digit."""


HEAD = """## A busy machine

An epoch of 12,000 images beside two trainings in a loop by hand with torch's own settings, and in three runs at
once, as multiples of its time on a free machine; the default settings, and `threads=1`. The last two columns are the
time of the default settings divided by that of `threads=1` in the same company. Medians of {rounds} turns, on the
{cores} cores of a machine that other programs used as well: repeat the measurement before you rely on a digit.

| network | alone | `threads=1` | in company | `threads=1` | three at once | `threads=1` | ratio in company | at once |
|---|---|---|---|---|---|---|---|---|"""


def busy_text(results: Results, networks: dict[str, str]) -> list[str]:
    """Return the lines of the section."""
    lines = [HEAD.format(rounds=results["rounds"], cores=results["cores"])]
    for network in (network for network in networks if network in results):
        values = results[network]
        cells = [f"{values['seconds']:.2f} s", f"{values['one thread alone']:.2f}"]
        for name in ("in company", "at once"):
            cells += [f"{values[f'default {name}']:.2f}", f"{values[f'one thread {name}']:.2f}"]
        cells += [f"{values[f'ratio {name}']:.2f}" for name in ("in company", "at once")]
        lines.append(f"| {networks[network]} | {' | '.join(cells)} |")
    return [*lines, ""]
