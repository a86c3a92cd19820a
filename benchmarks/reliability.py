"""Break runs, sweeps and inputs in many ways, see that nothing is lost, and write docs/reliability.md.

    python benchmarks/reliability.py [kills] [inputs] [sweeps] [--kills 240] [--inputs 1200]

Each part leaves its count in outputs/reliability/PART.json, from which the document is made.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "outputs" / "reliability"
sys.path.insert(0, str(ROOT / "tests"))


def kills(count: int) -> dict[str, Any]:
    """Runs of every family, killed at random moments and gone on with."""
    from faults import CASES, Subject

    each = -(-count // len(CASES))
    rows, lost = [], []
    for number, case in enumerate(CASES):
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject(case, Path(folder) / "runs")
            tried = survived = 0
            seed = 1000 * number
            while tried < each:
                differ, killed, told = subject.kill(seed, times=1 + seed % 3)
                seed += 1
                tried += killed
                survived += 0 if differ else killed
                if differ:
                    lost.append(f"{case}: {told}: {', '.join(differ)} differ")
            rows.append({"case": case, "places": len(subject.passed), "tried": tried, "survived": survived})
            print(rows[-1], flush=True)
    return {"rows": rows, "lost": lost}


def inputs(count: int) -> dict[str, Any]:
    """Inputs broken at random: each has to work, or to get one clear message."""
    import warnings

    import torch
    from mutations import KINDS, materials, tried

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    each = -(-count // len(KINDS))
    rows, unclean = [], []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        materials(whole)
        for kind in KINDS:
            found = [text for seed in range(each) if (text := tried(kind, whole, Path(folder) / "place", 100 + seed))]
            unclean += [f"{kind}: {text}" for text in found]
            rows.append({"case": kind, "tried": each, "survived": each - len(found)})
            print(rows[-1], *found, sep="\n", flush=True)
    return {"rows": rows, "lost": unclean}


def sweeps() -> dict[str, Any]:
    """Sweeps of which most runs fail, each in another way."""
    from test_sweeps import CAUSES, LAUNCHERS, place, sweep, unsound

    rows, lost = [], []
    for launcher in LAUNCHERS:
        with tempfile.TemporaryDirectory() as folder:
            here = place(Path(folder) / "place")
            found = unsound(here, sweep(here, launcher))
        lost += [f"{launcher}: {text}" for text in found]
        rows.append({"case": launcher, "tried": len(CAUSES), "survived": max(0, len(CAUSES) - len(found))})
        print(rows[-1], *found, sep="\n", flush=True)
    return {"rows": rows, "lost": lost}


TITLES = {
    "kills": ("Kills survived", "run"),
    "inputs": ("Broken inputs answered cleanly", "input"),
    "sweeps": ("Sweep faults survived", "launcher"),
}
MEANING = {
    "kills": "A run is killed (SIGKILL, at times SIGTERM or SIGINT) at a moment chosen at random from all lines of the "
    "loop, of the checkpoint, of the directory and of the logbook, and from all file operations; then its newest file "
    "is kept, cut off or deleted; up to three times in a row. What it comes to after that has to equal an "
    "uninterrupted run in the digests of its weights, optimizer state, metrics, history, curves and pictures, with "
    "one event file and no "
    "leftovers. Where the event file itself was cut off or deleted, its curves are compared but its pictures are not: "
    "they are not kept elsewhere.",
    "inputs": "Each answer has to be either a success or one message of a few lines and exit code 1: no traceback, no "
    "half-written file, no foreign code run.",
    "sweeps": "Eight runs, of which six raise, diverge, run out of memory, say sys.exit, are killed by SIGKILL or "
    "crash. Survived means that the cause is on record; the other two runs have to finish.",
}


def document() -> str:
    """docs/reliability.md, of the parts that were done."""
    text = ["# Reliability", "", "Made by `python benchmarks/reliability.py`.", ""]
    for part, (title, column) in TITLES.items():
        file = PLACE / f"{part}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text())
        total = [sum(row[key] for row in found["rows"]) for key in ("survived", "tried")]
        text += [f"## {title}: {total[0]} of {total[1]}", "", MEANING[part], ""]
        text += [f"| {column} | survived | tried |", "|---|---:|---:|"]
        text += [f"| `{row['case']}` | {row['survived']} | {row['tried']} |" for row in found["rows"]]
        text += [
            "",
            *(["Not survived:", ""] if found["lost"] else []),
            *(f"- {line.strip()}" for line in found["lost"]),
            "",
        ]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["kills", "inputs", "sweeps"])
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--inputs", type=int, default=1200)
    said = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    for part in said.parts:
        began = time.time()
        match part:
            case "kills":
                found = kills(said.kills)
            case "inputs":
                found = inputs(said.inputs)
            case "sweeps":
                found = sweeps()
            case _:
                parser.error(f"no part {part}")
        found["minutes"] = round((time.time() - began) / 60, 1)
        (PLACE / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n")
    (ROOT / "docs" / "reliability.md").write_text(document())


if __name__ == "__main__":
    main()
