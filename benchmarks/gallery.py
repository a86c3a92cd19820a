"""Make the README's picture: `python benchmarks/gallery.py` trains `model=vae dataset=fashion`, pastes three views."""

from pathlib import Path

from PIL import Image

import aetrain

ROOT = Path(__file__).resolve().parent.parent
VIEWS = ("reconstructions", "decoder_units", "samples")


def main() -> None:
    """Train, paste the pictures side by side, write docs/figures/headline.png."""
    run = aetrain.run(["model=vae", "dataset=fashion", f"hydra.run.dir={ROOT / 'outputs' / 'gallery' / 'vae-fashion'}"])
    pictures = [Image.open(run.directory / "figures" / f"{name}.png").convert("RGB") for name in VIEWS]
    height = 480
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    gap = 16
    sheet = Image.new("RGB", (sum(p.width for p in scaled) + gap * (len(scaled) - 1), height), "white")
    left = 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    target = ROOT / "docs" / "figures" / "headline.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    print(target)


if __name__ == "__main__":
    main()
