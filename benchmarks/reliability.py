"""Break runs, sweeps and inputs in many ways, check that no result is lost, and write docs/reliability.md.

    python benchmarks/reliability.py

The script runs its tasks two at a time and records each result below outputs/reliability/, by commit. If it is stopped
or `--minutes` have passed, the same command continues. It writes the document when all tasks of one commit are done.
`--kills 20 --inputs 70` is a short version, which is only printed.
"""

import argparse
import importlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "reliability.md"
OUTPUTS = ROOT / "outputs" / "reliability"
sys.path.insert(0, str(ROOT / "tests"))

MIN_COUNTS = {"kills": 240, "inputs": 1200}  # of the document
MAX_INPUT_SECONDS = 120  # the command hangs if an input takes longer
INPUTS_PER_PROCESS = 60


@dataclass(frozen=True)
class Task:
    """A part of the work with a result of its own."""

    section: str  # of the document
    case: str  # a row of its table
    number: int  # of the tasks of this case
    run: Callable[[Path], tuple[int, list[str]]]  # in an empty folder; returns the number of trials, and the failures

    @property
    def key(self) -> str:
        """The name of the task in the records."""
        return f"{self.section}: {self.case}: {self.number}"


def import_test_module(name: str) -> Any:
    """Import a module of the tests."""
    return importlib.import_module(name)


# --- Kills ------------------------------------------------------------------------------------------------------------


def run_kills(case: str, first: int, count: int, folder: Path) -> tuple[int, list[str]]:
    """Kill runs of one family at random points, and resume them, until there were `count` kills."""
    fault_case = import_test_module("faults").FaultCase(case, folder / "runs")
    seed, tried = first, 0
    lost: list[str] = []
    while tried < count:
        differing, killed, actions = fault_case.kill(seed, times=1 + seed % 3)
        seed += 1
        tried += killed
        if differing:
            lost += [f"{case}: {actions}: {', '.join(differing)} differ"] * max(1, killed)
    return tried, lost


# --- Inputs -----------------------------------------------------------------------------------------------------------


def run_inputs(kind: str, first: int, count: int, folder: Path) -> tuple[int, list[str]]:
    """Break inputs at random: each must work or give one clear message, without a hang or a crash."""
    from aetrain.runs import process

    record = folder / "record"
    record.touch()
    messages: list[str] = []  # one per input, empty if all is well
    while len(messages) < count:
        worker = process.start(_run_inputs, kind, first + len(messages), first + count, folder, record)
        worker.join()
        messages = [json.loads(line) for line in record.read_text().splitlines()]
        if len(messages) < count and worker.exitcode != 0:
            text = f"{kind}, seed {first + len(messages)}: {process.describe_exit(worker.exitcode or 0)}\n"
            with record.open("a") as file:
                file.write(json.dumps(text) + "\n")
            messages.append(text)
    return count, [message.strip() for message in messages if message]


def _run_inputs(kind: str, first: int, end: int, folder: Path, record: Path) -> None:
    """Try the inputs of the seeds from `first` to `end`; append each message to `record`, as a line of JSON."""
    import signal
    import warnings

    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    mutations = import_test_module("mutations")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    whole = folder / f"whole{first}"
    whole.mkdir()
    mutations.materials(whole)
    for seed in range(first, end):
        signal.alarm(MAX_INPUT_SECONDS)
        message = mutations.tried(kind, whole, folder / "place", seed)
        signal.alarm(0)
        with record.open("a") as file:
            file.write(json.dumps(message) + "\n")


# --- Sweeps -----------------------------------------------------------------------------------------------------------


def run_faults(launcher: str, folder: Path) -> tuple[int, list[str]]:
    """Run a sweep most of whose runs fail, each in another way."""
    tests = import_test_module("test_sweeps")
    tests.write_faulty_noise(folder)
    outcome = tests.sweep_over_faults(folder, launcher)
    return len(tests.CAUSES), [f"{launcher}: {problem}" for problem in tests.problems_of_sweep(folder, outcome)]


def run_interruption(launcher: str, interruption: str, folder: Path) -> tuple[int, list[str]]:
    """Interrupt a sweep as a whole, and resume it."""
    problems = import_test_module("interruptions").interrupted(folder, launcher, interruption, uninterrupted_sweep())
    return 1, [f"{launcher}, {interruption}: {'; '.join(problems)}"] if problems else []


@cache
def uninterrupted_sweep() -> dict[str, dict[str, str]]:
    """Return the fingerprints of the runs of an uninterrupted sweep."""
    with tempfile.TemporaryDirectory() as folder:
        return import_test_module("interruptions").whole(Path(folder) / "whole")


# --- All tasks --------------------------------------------------------------------------------------------------------


def make_tasks(counts: dict[str, int]) -> Iterator[Task]:
    """Yield all tasks, for these numbers of kills and inputs."""
    cases, kinds = import_test_module("faults").CASES, import_test_module("mutations").KINDS
    kills_per_case, inputs_per_kind = -(-counts["kills"] // len(cases)), -(-counts["inputs"] // len(kinds))
    for number, case in enumerate(cases):
        yield Task("kills", case, 0, partial(run_kills, case, 1000 * number, kills_per_case))
    for kind in kinds:
        for number, first in enumerate(range(0, inputs_per_kind, INPUTS_PER_PROCESS)):
            count = min(INPUTS_PER_PROCESS, inputs_per_kind - first)
            yield Task("inputs", kind, number, partial(run_inputs, kind, 100 + first, count))
    for launcher in import_test_module("test_sweeps").LAUNCHERS:
        yield Task("faults", launcher, 0, partial(run_faults, launcher))
    interruptions = import_test_module("interruptions")
    for launcher in interruptions.LAUNCHERS:
        for number, interruption in enumerate(interruptions.INTERRUPTIONS):
            if not (launcher == "basic" and "worker" in interruption):
                yield Task("interruptions", launcher, number, partial(run_interruption, launcher, interruption))


class Records:
    """The results of tasks in a file of JSON lines, by key."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.is_file() else []
        self.results: dict[str, dict[str, Any]] = {record["key"]: record for record in map(json.loads, lines)}

    def run(self, task: Task) -> None:
        """Run a task in an empty folder; record and print its result."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                tried, lost = task.run(Path(folder))
            except Exception as error:  # a task that cannot run is not survived
                tried, lost = 1, [f"{task.key}: {type(error).__name__}: {error}"]
        seconds = time.monotonic() - start
        record = {"key": task.key, "tried": tried, "lost": lost, "seconds": round(seconds, 1)}
        self.results[task.key] = record
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{task.key}: {tried} tried, {len(lost)} lost, {seconds:.0f} s", *lost, sep="\n  ", flush=True)

    def missing(self, tasks: list[Task]) -> list[Task]:
        """Return the tasks without a result."""
        return [task for task in tasks if task.key not in self.results]


TITLES = {
    "kills": ("Kills survived", "run"),
    "inputs": ("Broken inputs handled", "input"),
    "faults": ("Faults in sweeps survived", "launcher"),
    "interruptions": ("Interrupted sweeps resumed", "launcher"),
}
DESCRIPTIONS = {
    "kills": "A run is killed (SIGKILL, at times SIGTERM or SIGINT) at a random line of the training loop, the "
    "checkpoint, the run directory or the TensorBoard writer, or at a random file operation. Then its "
    "newest file is kept, truncated or deleted. This happens up to three times in a row. The resumed run "
    "must equal an uninterrupted run in the digests of its weights, optimizer state, metrics, history, "
    "curves and pictures, with one event file and no temporary files.",
    "inputs": "The result must be a success, or one message of a few lines and exit code 1: no traceback, no half- "
    "written file, no execution of foreign code, no hang, no crash.",
    "faults": "Eight runs. Six of them raise an exception, diverge, run out of memory, call sys.exit, are killed by "
    "SIGKILL or crash. A fault is survived if its cause is recorded; the other two runs must finish.",
    "interruptions": "Three runs. While the second trains, the sweep's main process is killed or gets SIGTERM, or all "
    "processes are killed or get Ctrl-C, or one of joblib's workers is killed. Then the same command is "
    "repeated at once. Finished runs must stay unchanged, and all results must equal those of an "
    "uninterrupted sweep.",
}


def document(results: dict[str, dict[str, Any]], tasks: list[Task], state: str) -> str:
    """Return the content of docs/reliability.md."""
    minutes = sum(results[task.key]["seconds"] for task in tasks) / 60
    machine = f"{os.cpu_count()}-core {platform.machine()} CPU"
    text = [
        "# Reliability",
        "",
        f"Made by `python benchmarks/reliability.py` on {state}, on a {machine}, with "
        f"{minutes:.0f} minutes of work, two pieces at a time.",
        "",
    ]
    for section in TITLES:
        text += document_section(section, [task for task in tasks if task.section == section], results)
    return "\n".join(text).rstrip() + "\n"


def document_section(section: str, tasks: list[Task], results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a section: a table by case, and the failures."""
    title, column = TITLES[section]
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    failures: list[str] = []
    for task in tasks:
        result = results[task.key]
        tried[task.case] += result["tried"]
        lost[task.case] += min(result["tried"], len(result["lost"]))
        failures += dict.fromkeys(result["lost"])
    text = [f"## {title}: {tried.total() - lost.total()} of {tried.total()}", "", DESCRIPTIONS[section], ""]
    text += [f"| {column} | survived | tried |", "|---|---:|---:|"]
    text += [f"| `{case}` | {tried[case] - lost[case]} | {tried[case]} |" for case in tried]
    text += [""]
    if failures:
        text += ["Not survived:", "", *(f"- {' '.join(line.split())}" for line in failures), ""]
    return text


def repository_state() -> tuple[str, bool]:
    """Return the commit, and whether any file except the document differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip()

    changed = [line for line in git("status", "--porcelain").splitlines() if line[3:] != "docs/reliability.md"]
    return git("rev-parse", "--short=12", "HEAD"), bool(changed)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *TITLES], default=[], help="only these; all by default")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no task after this time")
    parser.add_argument("--at-once", type=int, default=2, help="number of parallel tasks")
    parser.add_argument("--dirty", action="store_true", help="allow uncommitted changes, and state it in the document")
    for section, count in MIN_COUNTS.items():
        parser.add_argument(f"--{section}", type=int, default=count)
    return parser.parse_args()


def main() -> None:
    """Run the missing tasks, and write the document when all are done."""
    arguments = parse_arguments()
    counts = {section: getattr(arguments, section) for section in MIN_COUNTS}
    commit, dirty = repository_state()
    if dirty and not arguments.dirty:
        sys.exit("there are uncommitted changes, but the document is of one commit: commit them or use --dirty")
    logging.getLogger().setLevel(logging.CRITICAL)  # child processes inherit it
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    suffix = "-dirty" if dirty else ""
    records = Records(OUTPUTS / f"{'-'.join(map(str, [commit, *counts.values()]))}{suffix}.jsonl")
    tasks = [task for task in make_tasks(counts) if not arguments.sections or task.section in arguments.sections]
    print(f"{len(records.missing(tasks))} of {len(tasks)} tasks are missing", flush=True)
    start = time.monotonic()

    def run_in_time(task: Task) -> None:
        if time.monotonic() - start <= 60 * arguments.minutes:
            records.run(task)

    with ThreadPoolExecutor(arguments.at_once) as pool:
        list(pool.map(run_in_time, records.missing(tasks)))
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    missing = records.missing(tasks)
    if missing:
        sys.exit(f"{len(missing)} tasks are missing: repeat the command to continue")
    state = f"commit {commit} with uncommitted changes" if dirty else f"commit {commit}"
    text = document(records.results, tasks, state)
    if arguments.sections or any(counts[section] < count for section, count in MIN_COUNTS.items()):
        print(f"\nnot the whole document, and therefore not written to {DOCUMENT.relative_to(ROOT)}:\n\n{text}")
    else:
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
