"""Make the pictures of the README and docs/gallery.md: `python benchmarks/gallery.py [headline] [sweep] [shots]`.

`headline` trains `model=vae dataset=fashion` and pastes three views. `sweep` trains four families, three seeds each.
`shots` looks at that sweep in a headless Chromium (which must be there): its report, and TensorBoard's pages. Without a
word, all three. What is trained already is used as it is.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import Page, browser, found
from PIL import Image

import aetrain
from aetrain.storage.run_directory import tensorboard_link

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
OUTPUTS = ROOT / "outputs" / "gallery"
VIEWS = ("reconstructions", "decoder_units", "samples")
SWEEP = (
    *("model=deep,vae,conv_vae,vqvae", "seed=0,1,2", "dataset=fashion", "dataset.subset=20000", "epochs=8"),
    "views=[default,projector]",
)
FAMILIES = OUTPUTS / "families"
LAPTOP = (1280, 800)
LARGEST = 300_000  # bytes of a picture


def main(wanted: list[str]) -> None:
    """Do what was asked for, in order."""
    parts = {"headline": headline, "sweep": sweep, "shots": shots}
    unknown = set(wanted) - set(parts)
    if unknown:
        sys.exit(f"no part {', '.join(sorted(unknown))}: choose from {', '.join(parts)}")
    if "shots" in (wanted or parts) and not found():
        sys.exit("screenshots need Chromium or Chrome on the path (Debian and Ubuntu: apt install chromium)")
    for name, part in parts.items():
        if name in (wanted or parts):
            part()


def headline() -> None:
    """Train, paste the pictures side by side, write docs/figures/headline.png."""
    run = aetrain.run(["model=vae", "dataset=fashion", f"hydra.run.dir={OUTPUTS / 'vae-fashion'}"])
    pictures = [Image.open(run.directory / "figures" / f"{name}.png").convert("RGB") for name in VIEWS]
    height = 480
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    gap = 16
    sheet = Image.new("RGB", (sum(p.width for p in scaled) + gap * (len(scaled) - 1), height), "white")
    left = 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    sheet.save(FIGURES / "headline.png")
    print(FIGURES / "headline.png")


def sweep() -> None:
    """Train what the screenshots show; runs that are finished are left as they are."""
    said = [sys.executable, "-m", "aetrain", "-m", *SWEEP, f"hydra.sweep.dir={FAMILIES}"]
    subprocess.run(said, cwd=ROOT, check=True)


def shots() -> None:
    """Look at the sweep, write docs/figures/report*.png and those of TensorBoard."""
    if not FAMILIES.is_dir():
        sys.exit(f"{FAMILIES} is not there: python benchmarks/gallery.py sweep makes it")
    aetrain_report = [sys.executable, "-m", "aetrain", "mode=report", f"run={FAMILIES.relative_to(ROOT)}"]
    subprocess.run(aetrain_report, cwd=ROOT, check=True)
    with browser(webgl=True) as page:
        report_shots(page, (FAMILIES / "report.html").as_uri())
        with board() as port:
            board_shots(page, port)


def report_shots(page: Page, url: str) -> None:
    """The top of the report, and its pictures and curves."""
    page.open(url, *LAPTOP)
    keep(page, "report")
    for name in ("images", "curves", "units"):
        page.open(url, LAPTOP[0], 1000)
        page.run(f"document.getElementById('{name}').scrollIntoView()")
        keep(page, f"report_{name}")


def board_shots(page: Page, port: int) -> None:
    """TensorBoard's pages, each once it has drawn itself."""
    page.open(tensorboard_link(port=port), *LAPTOP)
    page.until("document.querySelectorAll('scalar-card svg').length > 1")
    page.run("document.querySelector('[aria-label=\"Close side pane\"]').click()")
    keep(page, "timeseries", 6)
    where = f"http://localhost:{port}/"
    page.open(f"{where}#images&tagFilter=reconstructions&regexInput=seed%3D0", *LAPTOP)
    keep(page, "images", 10)
    page.open(f"{where}#hparams", *LAPTOP)
    keep(page, "hparams", 8)
    page.open(f"{where}#projector", *LAPTOP)
    keep(page, "projector", 25)


def keep(page: Page, name: str, seconds: float = 1) -> None:
    """A picture of what is there after a while, small enough for a repository."""
    time.sleep(seconds)
    target = page.shot(FIGURES / f"{name}.png")
    picture = Image.open(target).convert("RGB")
    picture.save(target, optimize=True)
    for colours in (256, 64):
        if target.stat().st_size > LARGEST:
            picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(target)
    print(target, f"{target.stat().st_size // 1000} kB")


@contextmanager
def board() -> Iterator[int]:
    """TensorBoard on the sweep, at the port that comes out, until the end."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    said = [sys.executable, "-m", "aetrain", "mode=board", f"run={FAMILIES.relative_to(ROOT)}", f"mode.port={port}"]
    server = subprocess.Popen(said, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.25)
        time.sleep(5)  # it reads the event files
        yield port
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main(sys.argv[1:])
