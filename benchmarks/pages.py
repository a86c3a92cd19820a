"""Make the pictures of docs/views.md: `python benchmarks/pages.py` trains small runs, and combines pictures.

Names of runs, such as `words`, train these alone. `words dataset.path=my/20newsgroups.csv` reads the documents from a
file, which scikit-learn downloads otherwise.
"""

import io
import sys
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
    "words": [
        *["experiment=text_retrieval", "epochs=10", "measures=none", "views=[features,rows]"],
        *["views.features.panels=6", "views.rows.count=2"],
    ],
}
SHEETS = {
    "atlas": ["deep/atlas-hidden2", "conv/atlas-hidden2", "vae/units_sorted-hidden1"],
    "code": ["vae/traversals", "vae/noise_map", "vae/errors"],
    "words": ["words/features-code", "words/rows"],
}
HEIGHT = 640  # pixels of pictures side by side
WIDTH = 1100  # pixels of pictures with words, which are one below the other


def main() -> None:
    """Train the runs, and write docs/figures/views_*.png."""
    outputs = ROOT / "outputs" / "pages"
    chosen = [word for word in sys.argv[1:] if "=" not in word] or [*RUNS]
    settings = [word for word in sys.argv[1:] if "=" in word]
    for name in chosen:
        # A finished run is not trained again.
        aetrain.run([*RUNS[name], *settings, f"hydra.run.dir={outputs / name}"])
    for sheet, names in SHEETS.items():
        if not {picture.partition("/")[0] for picture in names} <= {*chosen}:
            continue
        pictures = []
        for picture in names:
            run, _, name = picture.partition("/")
            pictures.append(last_picture(outputs / run, name))
        path = ROOT / "docs" / "figures" / f"views_{sheet}.png"
        combined = stack(pictures, WIDTH) if sheet == "words" else combine(pictures, HEIGHT)
        combined.quantize(64).save(path)
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


def stack(pictures: list[Image.Image], width: int) -> Image.Image:
    """Return the pictures one below the other, scaled to one width in pixels."""
    scaled = [picture.resize((width, picture.height * width // picture.width)) for picture in pictures]
    sheet = Image.new("RGB", (width, sum(picture.height for picture in scaled)), "white")
    top = 0
    for picture in scaled:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


if __name__ == "__main__":
    main()
