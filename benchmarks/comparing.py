"""Make the pictures of docs/comparing.md: `python benchmarks/comparing.py` trains the runs of its commands.

Finished runs are not trained again.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import aetrain
from aetrain.modes.report import report

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
OUTPUTS = ROOT / "outputs" / "comparing"
DATA = ("dataset=fashion", "dataset.subset=10000", "epochs=5")
PAIR = {"A": ("model=conv", "model.code_dim=32"), "B": ("model=deep", "model.code_dim=32")}
SWEEP = ("model=deep,vae", "model.code_dim=2,4,8,16,32,64", "seed=0,1", "measures=probes")


def main() -> None:
    """Train the runs, compare two of them, and copy the pictures to docs/figures/."""
    for name, overrides in PAIR.items():
        aetrain.run([*overrides, *DATA, "views=none"], directory=OUTPUTS / name)
    report([OUTPUTS / name for name in PAIR], out=OUTPUTS / "pair")
    shutil.copyfile(OUTPUTS / "pair" / "differences.png", FIGURES / "comparing_differences.png")
    print((OUTPUTS / "pair" / "differences.csv").read_text())
    sweep = [f"hydra.sweep.dir={OUTPUTS / 'sweep'}", "views=none", *SWEEP, *DATA]
    subprocess.run([sys.executable, "-m", "aetrain", "-m", *sweep], cwd=ROOT, check=True)
    shutil.copyfile(OUTPUTS / "sweep" / "sweep.png", FIGURES / "comparing_sweep.png")


if __name__ == "__main__":
    main()
