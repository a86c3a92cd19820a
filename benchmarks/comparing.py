"""Make the pictures of docs/comparing.md: `python benchmarks/comparing.py` trains the runs of its commands.

Finished runs are not trained again.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

import aetrain
from aetrain.modes.report import report

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
OUTPUTS = ROOT / "outputs" / "comparing"
DATA = ("dataset=fashion", "dataset.subset=10000", "epochs=5")
PAIR = {"A": ("model=conv", "model.code_dim=32"), "B": ("model=deep", "model.code_dim=32")}
SWEEP = (
    *("model=deep,vae", "model.code_dim=2,4,8,16,32", "seed=0,1", "dataset=digits", "epochs=40"),
    *("measures=probes", "measures.probes.methods=[linear,knn]"),
)


def main() -> None:
    """Train the runs, compare two of them, and copy the pictures to docs/figures/."""
    for name, overrides in PAIR.items():
        aetrain.run([*overrides, *DATA, "views=none"], directory=OUTPUTS / name)
    report([OUTPUTS / name for name in PAIR], out=OUTPUTS / "pair")
    copy_picture(OUTPUTS / "pair" / "differences.png", "comparing_differences")
    print((OUTPUTS / "pair" / "differences.csv").read_text())
    sweep = [f"hydra.sweep.dir={OUTPUTS / 'sweep'}", "views=none", *SWEEP]
    subprocess.run([sys.executable, "-m", "aetrain", "-m", *sweep], cwd=ROOT, check=True)
    copy_picture(OUTPUTS / "sweep" / "sweep.png", "comparing_sweep")


def copy_picture(file: Path, name: str) -> None:
    """Copy a picture to docs/figures/, with 64 colours."""
    Image.open(file).convert("RGB").quantize(64).save(FIGURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
