"""What looking costs: `python benchmarks/views.py` trains with views=none, default and all in turn, and says ratios.

Wall clock of whole commands, `import torch` and all, interleaved so that a busy machine is equally busy for each;
the middle one of `--rounds`. Settings of a run may follow, as in `python benchmarks/views.py model=vae epochs=10`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

VIEWS = ("none", "default", "all")


def main() -> None:
    """Train, and print how much longer it takes with views."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {views: [] for views in VIEWS}
    for _ in range(asked.rounds):
        for views in VIEWS:
            with tempfile.TemporaryDirectory() as folder:
                call = [sys.executable, "-m", "aetrain", f"views={views}", f"hydra.run.dir={folder}/run"]
                began = time.perf_counter()
                subprocess.run([*call, *asked.settings], check=True, capture_output=True)
                seconds[views].append(time.perf_counter() - began)
        print({views: [round(value, 1) for value in values] for views, values in seconds.items()}, flush=True)
    plain = statistics.median(seconds["none"])
    for views in VIEWS[1:]:
        print(f"views={views}: {100 * (statistics.median(seconds[views]) / plain - 1):.1f} % longer than views=none")


if __name__ == "__main__":
    main()
