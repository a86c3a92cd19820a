"""Make the pictures of docs/views.md: `python benchmarks/pages.py` trains three small runs and pastes their figures."""

from pathlib import Path

from PIL import Image

import aetrain

ROOT = Path(__file__).resolve().parent.parent

RUNS = {
    "deep": ["model=deep", "dataset=mnist", "epochs=2", "views=[units,atlas]"],
    "conv": ["model=conv", "dataset=mnist", "epochs=1", "views=atlas"],
    "vae": ["model=vae", "dataset=fashion", "noise=masking", "epochs=3", "views=all"],
}
SHEETS = {
    "atlas": ["deep/atlas-hidden2", "conv/atlas-hidden2", "vae/units_sorted-hidden1"],
    "code": ["vae/traversals", "vae/noise_map", "vae/errors"],
}
HEIGHT = 640


def main() -> None:
    """Train, paste side by side, write docs/figures/views_*.png."""
    home = ROOT / "outputs" / "pages"
    for name, overrides in RUNS.items():
        aetrain.run([*overrides, f"hydra.run.dir={home / name}"])  # nothing to do where that is done
    for sheet, names in SHEETS.items():
        files = [home / name.partition("/")[0] / "figures" / f"{name.partition('/')[2]}.png" for name in names]
        target = ROOT / "docs" / "figures" / f"views_{sheet}.png"
        pasted([Image.open(file).convert("RGB") for file in files]).quantize(64).save(target)
        print(target)


def pasted(pictures: list[Image.Image], gap: int = 12) -> Image.Image:
    """Pictures side by side at one height."""
    scaled = [picture.resize((picture.width * HEIGHT // picture.height, HEIGHT)) for picture in pictures]
    sheet = Image.new("RGB", (sum(p.width + gap for p in scaled) - gap, HEIGHT), "white")
    left = 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


if __name__ == "__main__":
    main()
