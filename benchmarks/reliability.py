"""Break runs, sweeps and inputs in many ways, see that nothing is lost, and write docs/reliability.md.

    python benchmarks/reliability.py

It does one piece after the other, two at a time, and keeps what each came to below outputs/reliability/, by the commit
that it was done on: stopped, or out of its --minutes, the same command goes on. The document is written once all pieces
are there, all of one commit. `--kills 20 --inputs 70` is a taste, which is only printed.
"""

import argparse
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
PLACE = ROOT / "outputs" / "reliability"
sys.path.insert(0, str(ROOT / "tests"))

PROMISED = {"kills": 240, "inputs": 1200}  # how many are tried, at least
PATIENCE = 120  # seconds until an input is said to hang the command
BLOCK = 60  # inputs that are tried in one process, one after the other


@dataclass(frozen=True)
class Piece:
    """Something that is done in one go, and counted."""

    part: str  # of the document
    case: str  # a row of its table
    number: int  # of the pieces of this case
    do: Callable[[Path], tuple[int, list[str]]]  # in an empty folder: how often it was tried, and what was lost

    @property
    def key(self) -> str:
        return f"{self.part}: {self.case}: {self.number}"


# --- Kills ------------------------------------------------------------------------------------------------------------


def kills(case: str, first: int, count: int, folder: Path) -> tuple[int, list[str]]:
    """A run of one family, killed at random moments and gone on with."""
    from faults import EvalInputs

    inputs = EvalInputs(case, folder / "runs")
    seed, tried = first, 0
    lost: list[str] = []
    while tried < count:
        differ, killed, told = inputs.kill(seed, times=1 + seed % 3)
        seed += 1
        tried += killed
        if differ:
            lost += [f"{case}: {told}: {', '.join(differ)} differ"] * max(1, killed)
    return tried, lost


# --- Inputs -----------------------------------------------------------------------------------------------------------


def inputs(kind: str, first: int, count: int, folder: Path) -> tuple[int, list[str]]:
    """Inputs broken at random: each has to work, or to get one clear message, and neither to hang nor to crash."""
    from aetrain.runs import process

    note, lost, done = folder / "note", [], 0
    note.touch()
    while done < count:
        process = process.start(_inputs, kind, first + done, first + count, folder, note)
        process.join()
        answers = [json.loads(line) for line in note.read_text().splitlines()]
        if len(answers) < count and process.exitcode != 0:
            how = process.cause_of_death(process.exitcode or 0)
            with note.open("a") as file:
                file.write(json.dumps(f"{kind}, seed {first + len(answers)}: {how}\n") + "\n")
        done = len(note.read_text().splitlines())
    lost = [text.strip() for line in note.read_text().splitlines() if (text := json.loads(line))]
    return count, lost


def _inputs(kind: str, first: int, beyond: int, folder: Path, note: Path) -> None:
    """Try the inputs of these seeds, and add what was not clean about each to `note`, a line an input."""
    import signal
    import warnings

    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    from mutations import materials, tried

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    whole = folder / f"whole{first}"
    whole.mkdir()
    materials(whole)
    for seed in range(first, beyond):
        signal.alarm(PATIENCE)
        text = tried(kind, whole, folder / "place", seed)
        signal.alarm(0)
        with note.open("a") as file:
            file.write(json.dumps(text) + "\n")


# --- Sweeps -----------------------------------------------------------------------------------------------------------


def faults(launcher: str, folder: Path) -> tuple[int, list[str]]:
    """A sweep of which most runs fail, each in another way."""
    from test_sweeps import CAUSES, place, sweep, unsound

    here = place(folder / "place")
    return len(CAUSES), [f"{launcher}: {text}" for text in unsound(here, sweep(here, launcher))]


def interruptions(launcher: str, interruption: str, folder: Path) -> tuple[int, list[str]]:
    """A sweep that is interrupted as a whole, and taken up."""
    from interruptions import interrupted

    found = interrupted(folder, launcher, interruption, _uninterrupted())
    return 1, [f"{launcher}, {interruption}: {'; '.join(found)}"] if found else []


@cache
def _uninterrupted() -> dict[str, dict[str, str]]:
    from interruptions import whole

    with tempfile.TemporaryDirectory() as folder:
        return whole(Path(folder) / "whole")


# --- All of it --------------------------------------------------------------------------------------------------------


def pieces(counts: dict[str, int]) -> Iterator[Piece]:
    """All that is to be done."""
    from faults import CASES
    from interruptions import INTERRUPTIONS
    from interruptions import LAUNCHERS as INTERRUPTED
    from mutations import KINDS
    from test_sweeps import LAUNCHERS

    each = -(-counts["kills"] // len(CASES))
    for number, case in enumerate(CASES):
        yield Piece("kills", case, 0, partial(kills, case, 1000 * number, each))
    each = -(-counts["inputs"] // len(KINDS))
    for kind in KINDS:
        for number, first in enumerate(range(0, each, BLOCK)):
            yield Piece("inputs", kind, number, partial(inputs, kind, 100 + first, min(BLOCK, each - first)))
    for launcher in LAUNCHERS:
        yield Piece("faults", launcher, 0, partial(faults, launcher))
    for launcher in INTERRUPTED:
        for number, interruption in enumerate(INTERRUPTIONS):
            if not (launcher == "basic" and "worker" in interruption):
                yield Piece("interruptions", launcher, number, partial(interruptions, launcher, interruption))


TITLES = {
    "kills": ("Kills survived", "run"),
    "inputs": ("Broken inputs answered cleanly", "input"),
    "faults": ("Faults in sweeps survived", "launcher"),
    "interruptions": ("Interrupted sweeps taken up", "launcher"),
}
DESCRIPTIONS = {
    "kills": "A run is killed (SIGKILL, at times SIGTERM or SIGINT) at a moment chosen at random from all lines of the "
    "loop, of the checkpoint, of the directory and of the tensorboard, and from all file operations; then its newest file "
    "is kept, cut off or deleted; up to three times in a row. What it comes to after that has to equal an "
    "uninterrupted run in the digests of its weights, optimizer state, metrics, history, curves and pictures, with "
    "one event file and no leftovers.",
    "inputs": "Each answer has to be either a success or one message of a few lines and exit code 1: no traceback, no "
    "half-written file, no foreign code run, no hang, no crash.",
    "faults": "Eight runs, of which six raise, diverge, run out of memory, say sys.exit, are killed by SIGKILL or "
    "crash. Survived means that the cause is on record; the other two runs have to finish.",
    "interruptions": "Three runs, and while the second trains the sweep's main process is killed or gets SIGTERM, or "
    "all of its processes are killed or get Ctrl-C, or one of joblib's workers is killed. Then the same command is "
    "given again at once: what was finished is left alone, and all comes to the same as without.",
}


def document(done: dict[str, dict[str, Any]], todo: list[Piece], state: str) -> str:
    """docs/reliability.md."""
    found = [done[piece.key] for piece in todo]
    minutes = sum(one["seconds"] for one in found) / 60
    machine = f"{os.cpu_count()}-core {platform.machine()} CPU"
    text = [
        "# Reliability",
        "",
        f"Made by `python benchmarks/reliability.py` on {state}, on a {machine}, with "
        f"{minutes:.0f} minutes of work, two pieces at a time.",
        "",
    ]
    for part, (title, column) in TITLES.items():
        tried: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        told: list[str] = []
        for piece in todo:
            if piece.part == part:
                tried[piece.case] += done[piece.key]["tried"]
                lost[piece.case] += min(done[piece.key]["tried"], len(done[piece.key]["lost"]))
                told += dict.fromkeys(done[piece.key]["lost"])
        text += [f"## {title}: {tried.total() - lost.total()} of {tried.total()}", "", DESCRIPTIONS[part], ""]
        text += [f"| {column} | survived | tried |", "|---|---:|---:|"]
        text += [f"| `{case}` | {tried[case] - lost[case]} | {tried[case]} |" for case in tried]
        text += ["", *(["Not survived:", "", *(f"- {' '.join(line.split())}" for line in told), ""] if told else [])]
    return "\n".join(text).rstrip() + "\n"


def state_of_the_repository() -> tuple[str, bool]:
    """The commit, and whether anything but the document itself differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip()

    changed = [line for line in git("status", "--porcelain").splitlines() if line[3:] != "docs/reliability.md"]
    return git("rev-parse", "--short=12", "HEAD"), bool(changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *TITLES], default=[], help="only these; all by default")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no piece after so many")
    parser.add_argument("--at-once", type=int, default=2, help="pieces that are done side by side")
    parser.add_argument("--dirty", action="store_true", help="also on what is not committed, and say so")
    for part, count in PROMISED.items():
        parser.add_argument(f"--{part}", type=int, default=count)
    said = parser.parse_args()
    counts = {part: getattr(said, part) for part in PROMISED}
    commit, dirty = state_of_the_repository()
    if dirty and not said.dirty:
        sys.exit("there are changes that are not committed: the document is of one commit (--dirty says so in it)")
    logging.getLogger().setLevel(logging.CRITICAL)  # also in the processes that are begun here
    PLACE.mkdir(parents=True, exist_ok=True)
    name = "-".join(map(str, [commit, *counts.values()])) + ("-dirty" if dirty else "")
    record = PLACE / f"{name}.jsonl"
    lines = record.read_text().splitlines() if record.is_file() else []
    done = {line["key"]: line for line in map(json.loads, lines)}

    todo = [piece for piece in pieces(counts) if not said.parts or piece.part in said.parts]
    left = [piece for piece in todo if piece.key not in done]
    began = time.monotonic()
    print(f"{len(left)} of {len(todo)} pieces to do", flush=True)

    def work(piece: Piece) -> None:
        if time.monotonic() - began > 60 * said.minutes:
            return
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                tried, lost = piece.do(Path(folder))
            except Exception as error:  # what cannot be tried is not survived
                tried, lost = 1, [f"{piece.key}: {type(error).__name__}: {error}"]
        seconds = time.monotonic() - start
        done[piece.key] = {"key": piece.key, "tried": tried, "lost": lost, "seconds": round(seconds, 1)}
        with record.open("a") as file:
            file.write(json.dumps(done[piece.key]) + "\n")
        count = sum(each.key in done for each in todo)
        print(f"{count}/{len(todo)} {piece.key}: {tried} tried, {len(lost)} lost, {seconds:.0f} s", *lost, sep="\n  ")
        sys.stdout.flush()

    with ThreadPoolExecutor(said.at_once) as pool:
        list(pool.map(work, left))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if missing := [piece for piece in todo if piece.key not in done]:
        sys.exit(f"{len(missing)} pieces are left: the same command goes on with them")
    state = f"commit {commit}" + (" with changes that are not committed" if dirty else "")
    text = document(done, todo, state)
    if said.parts or any(counts[part] < count for part, count in PROMISED.items()):
        print(f"\nnot all that is promised, and so not written to {DOCUMENT.relative_to(ROOT)}:\n\n{text}")
    else:
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
