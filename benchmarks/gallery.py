"""Make the pictures of the README and docs/gallery.md: `python benchmarks/gallery.py [headline] [sweep] [shots]`.

`headline` trains `model=vae dataset=fashion` and combines three views. `sweep` trains four families with three seeds
each. `shots` photographs that sweep in a headless Chromium, which must be installed: its report, and TensorBoard's
pages. Without an argument, the script does all three. Finished runs are not trained again.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import NO_BROWSER, Page, browser, find_browser
from pages import combine, last_picture
from PIL import Image

import aetrain
from aetrain.views.tensorboard_link import tensorboard_link

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
OUTPUTS = ROOT / "outputs" / "gallery"
VIEWS = ("reconstructions", "decoder_units", "samples")
SWEEP = (
    *("model=deep,vae,conv_vae,vqvae", "seed=0,1,2", "dataset=fashion", "dataset.subset=20000", "epochs=8"),
    "views=[default,projector]",
)
FAMILIES = OUTPUTS / "families"
WINDOW_SIZE = (1280, 800)  # pixels
MAX_FILE_BYTES = 300_000  # of a picture


def main(names: list[str]) -> None:
    """Run the parts of these names in order, or all; SystemExit for an unknown name or a missing browser."""
    parts = {"headline": headline, "sweep": sweep, "shots": shots}
    unknown = set(names) - set(parts)
    if unknown:
        sys.exit(f"there is no part {', '.join(sorted(unknown))}: use {', '.join(parts)}")
    if "shots" in (names or parts) and not find_browser():
        sys.exit(NO_BROWSER)
    for name, part in parts.items():
        if name in (names or parts):
            part()


def headline() -> None:
    """Train the run, and write docs/figures/headline.png."""
    run = aetrain.run(["model=vae", "dataset=fashion", f"hydra.run.dir={OUTPUTS / 'vae-fashion'}"])
    pictures = [last_picture(run.directory, name) for name in VIEWS]
    sheet = combine(pictures, height=480, gap=16)
    sheet.save(FIGURES / "headline.png")
    print(FIGURES / "headline.png")


def sweep() -> None:
    """Train the sweep of the screenshots."""
    command = [sys.executable, "-m", "aetrain", "-m", *SWEEP, f"hydra.sweep.dir={FAMILIES}"]
    subprocess.run(command, cwd=ROOT, check=True)


def shots() -> None:
    """Photograph the sweep's report and TensorBoard; write the pictures to docs/figures/."""
    if not FAMILIES.is_dir():
        sys.exit(f"{FAMILIES} does not exist: run python benchmarks/gallery.py sweep")
    command = [sys.executable, "-m", "aetrain", "mode=report", f"run={FAMILIES.relative_to(ROOT)}"]
    subprocess.run(command, cwd=ROOT, check=True)
    with browser(webgl=True) as page:
        report_shots(page, (FAMILIES / "report.html").as_uri())
        with board() as port:
            board_shots(page, port)


def report_shots(page: Page, url: str) -> None:
    """Photograph the top of the report, and its pictures and curves."""
    page.open(url, *WINDOW_SIZE)
    save_shot(page, "report")
    for name in ("images", "curves", "units"):
        page.open(url, WINDOW_SIZE[0], 1000)
        page.run(f"document.getElementById('{name}').scrollIntoView()")
        save_shot(page, f"report_{name}")


def board_shots(page: Page, port: int) -> None:
    """Photograph TensorBoard's pages, each when it is drawn completely."""
    page.open(tensorboard_link(port=port), *WINDOW_SIZE)
    page.wait_for("document.querySelectorAll('scalar-card svg').length > 1")
    page.run("document.querySelector('[aria-label=\"Close side pane\"]').click()")
    save_shot(page, "timeseries", 6)
    url = f"http://localhost:{port}/"
    page.open(f"{url}#images&tagFilter=reconstructions&regexInput=seed%3D0", *WINDOW_SIZE)
    save_shot(page, "images", 10)
    page.open(f"{url}#hparams", *WINDOW_SIZE)
    save_shot(page, "hparams", 8)
    page.open(f"{url}#projector", *WINDOW_SIZE)
    save_shot(page, "projector", 25)


def save_shot(page: Page, name: str, seconds: float = 1) -> None:
    """Wait, photograph the window, and reduce the file to `MAX_FILE_BYTES` if possible."""
    time.sleep(seconds)
    path = page.screenshot(FIGURES / f"{name}.png")
    picture = Image.open(path).convert("RGB")
    picture.save(path, optimize=True)
    for colours in (256, 64):
        if path.stat().st_size > MAX_FILE_BYTES:
            picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path)
    print(path, f"{path.stat().st_size // 1000} kB")


@contextmanager
def board() -> Iterator[int]:
    """Run TensorBoard on the sweep inside the block, at the port that is yielded."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "aetrain", "mode=board", f"run={FAMILIES.relative_to(ROOT)}", f"mode.port={port}"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.25)
        time.sleep(5)  # until TensorBoard has read the event files
        yield port
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main(sys.argv[1:])
