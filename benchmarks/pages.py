"""Make the pictures of docs/views.md: `python benchmarks/pages.py` trains three small runs, and combines pictures."""

import io
from pathlib import Path

from PIL import Image

import aetrain
from aetrain.views.tensorboard import event_files, read_events

ROOT = Path(__file__).resolve().parent.parent

RUNS = {
    "deep": ["model=deep", "dataset=mnist", "epochs=2", "views=[units,atlas]"],
    "conv": ["model=conv", "dataset=mnist", "epochs=1", "views=atlas"],
    "vae": [
        *["model=vae", "dataset=fashion", "noise=masking", "epochs=3", "views=all"],
        "views.noise_map.kinds=[block,gaussian,masking,salt]",
    ],
}
SHEETS = {
    "atlas": ["deep/atlas-hidden2", "conv/atlas-hidden2", "vae/units_sorted-hidden1"],
    "code": ["vae/traversals", "vae/noise_map", "vae/errors"],
}
HEIGHT = 640  # pixels


def main() -> None:
    """Train the runs, and write docs/figures/views_*.png."""
    outputs = ROOT / "outputs" / "pages"
    for name, overrides in RUNS.items():
        aetrain.run([*overrides, f"hydra.run.dir={outputs / name}"])  # a finished run is not trained again
    for sheet, names in SHEETS.items():
        pictures = []
        for picture in names:
            run, _, name = picture.partition("/")
            pictures.append(last_picture(outputs / run, name))
        path = ROOT / "docs" / "figures" / f"views_{sheet}.png"
        combine(pictures, HEIGHT).quantize(64).save(path)
        print(path)


def last_picture(run: Path, name: str) -> Image.Image:
    """Return TensorBoard's last picture of a view, or of a layer such as `atlas-code`: the figure without its texts."""
    view, _, layer = name.partition("-")
    tag = f"views_{view}/{layer}" if layer else f"views/{view}"
    contents = [
        value.image.encoded_image_string
        for file in event_files(run)
        for event in read_events(file)
        for value in event.summary.value
        if value.tag == tag
    ]
    return Image.open(io.BytesIO(contents[-1])).convert("RGB")


def combine(pictures: list[Image.Image], height: int, gap: int = 12) -> Image.Image:
    """Return the pictures side by side, scaled to one height in pixels."""
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    sheet = Image.new("RGB", (sum(picture.width + gap for picture in scaled) - gap, height), "white")
    left = 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


if __name__ == "__main__":
    main()
