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
            case _:
                parser.error(f"no part {part}")
        found["minutes"] = round((time.time() - began) / 60, 1)
        (PLACE / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
