"""Measure runs on images that stay in their files: the time to the first step, memory, and images per second.

    python benchmarks/memory.py [--folder /tmp/aetrain-memory] [--files 200000] [--gigabytes 6]

A folder of generated images of 3x32x32 and an array of images of 1x65x65 in an .npy file, both in `--folder`, which is
deleted at the end. Each run is a process of its own, on one thread, with a linear autoencoder, which computes little,
so that reading counts. The page cache of the data is dropped before the first run. `in memory` is the same folder
without a cache, and for arrays an .npz file with a quarter of the images, beside the same quarter in an .npy file.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from process_memory import watched_memory

FOLDER_SHAPE = (3, 32, 32)
ARRAY_SHAPE = (1, 65, 65)  # larger than PCA is fitted to, which would take most of the time
COMMON = ("model=linear", "likelihood=gaussian", "views=none", "batch_size=256", "threads=1", "device=cpu")
FEW_TESTS = "dataset.test_subset=1000"


def make_images(count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return noise with a bright square in each image, uint8 [count, *shape]."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 128, (count, *shape), dtype=np.uint8)
    for image, (channel, top, left) in zip(images, random.integers(0, (shape[0], 24, 24), (count, 3)), strict=True):
        image[channel, top : top + 8, left : left + 8] += 127
    return images


def write_folder(folder: Path, count: int) -> None:
    """Write a folder of image files, 1,000 in each subfolder."""
    from PIL import Image

    for part in range(0, count, 1000):
        below = folder / f"{part // 1000:04d}"
        below.mkdir(parents=True)
        for number, image in enumerate(make_images(min(1000, count - part), FOLDER_SHAPE, part)):
            Image.fromarray(image.transpose(1, 2, 0)).save(below / f"{number:04d}.png", compress_level=1)


def write_array(file: Path, count: int, shape: tuple[int, int, int] = ARRAY_SHAPE) -> None:
    """Write an .npy file of images, uint8 [count, *shape], a part at a time."""
    with file.open("wb") as stream:
        header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(stream, header)
        part = make_images(min(count, 5_000), shape, 0)
        for start in range(0, count, len(part)):
            stream.write((part[: count - start] + np.uint8(start // len(part) % 64)).data)


def drop_page_cache(path: Path) -> None:
    """Let the kernel forget the content of files, so that they are read from the disk."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(overrides: list[str], directory: Path) -> dict[str, float]:
    """Train in this process; return the seconds from its start to the first step, memory and images per second."""
    import aetrain
    from aetrain.training import step

    take_step = step.OptimizerStep.__call__
    ends: list[float] = []  # of the steps
    sizes: list[int] = []  # of their batches

    def timed(self: step.OptimizerStep, *batches: Any) -> Any:
        losses = take_step(self, *batches)
        ends.append(time.time())
        sizes.append(sum(map(len, batches)))
        return losses

    step.OptimizerStep.__call__ = timed  # type: ignore[method-assign]
    with watched_memory() as memory:
        aetrain.run([*COMMON, *overrides], directory=directory)
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line.get("seconds")]  # of the epochs
    rate = sum(sizes) / len(seconds) / min(seconds)
    return {"first_step": ends[0] - float(os.environ["MEASURE_START"]), "images_per_second": rate, **memory}


def run(folder: Path, name: str, *overrides: str) -> dict[str, float]:
    """Measure in a process of its own, and print a row of the table."""
    directory = folder / "runs"
    shutil.rmtree(directory, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MEASURE_START": str(time.time())}
    command = [sys.executable, __file__, "--measure", str(directory), *overrides, f"data_dir={folder / 'data'}"]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    columns = f"{result['first_step']:.1f} s | {result['RssAnon']:,.0f} | {result['VmRSS']:,.0f}"
    print(f"| {name} | {columns} | {result['images_per_second']:,.0f} |", flush=True)
    return result


def compare(name: str, mapped: dict[str, float], stored: dict[str, float]) -> None:
    """Print the ratio of the images per second."""
    print(f"{name}: {mapped['images_per_second'] / stored['images_per_second']:.2f} of the images per second in memory")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/aetrain-memory"))
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--data", nargs="+", choices=["folder", "array"], default=["folder", "array"])
    parser.add_argument("--measure", nargs="+", metavar=("DIRECTORY", "OVERRIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[1:], Path(arguments.measure[0]))))
        return
    folder = arguments.folder
    folder.mkdir(parents=True)
    try:
        print("| data | first step after | anonymous memory, MiB | resident memory, MiB | images per second |")
        print("|---|---|---|---|---|")
        if "folder" in arguments.data:
            measure_folder(folder, arguments.files)
        if "array" in arguments.data:
            measure_array(folder, round(arguments.gigabytes * 1e9 / np.prod(ARRAY_SHAPE)))
    finally:
        shutil.rmtree(folder)


def measure_folder(folder: Path, count: int) -> None:
    """Measure runs on a folder of images."""
    images = folder / "images"
    write_folder(images, count)
    drop_page_cache(images)
    name = f"folder of {count:,} files"
    settings = ("dataset=folder", f"dataset.path={images}", "dataset.size=32", "dataset.channels=3", FEW_TESTS)
    run(folder, f"{name}, first time", *settings, "epochs=1")
    second = run(folder, f"{name}, second time", *settings, "epochs=3")
    stored = run(folder, f"{name}, in memory", *settings, "epochs=3", "dataset.data_dir=null")
    compare(name, second, stored)
    shutil.rmtree(images)
    shutil.rmtree(folder / "data", ignore_errors=True)


def measure_array(folder: Path, count: int) -> None:
    """Measure runs on an array in a file."""
    file = folder / "x.npy"
    write_array(file, count)
    drop_page_cache(file)
    name = f".npy of {count * np.prod(ARRAY_SHAPE) / 1e9:.1f} GB"
    settings = ("dataset=npz", FEW_TESTS)
    run(folder, f"{name}, first time", *settings, f"dataset.path={file}", "epochs=1")
    run(folder, f"{name}, second time", *settings, f"dataset.path={file}", "epochs=1")
    part = np.load(file, mmap_mode="r")[: count // 4]
    np.save(folder / "part.npy", part)
    np.savez(folder / "part.npz", images=part)
    del part
    file.unlink()
    mapped = run(folder, f"{name}, a quarter", *settings, f"dataset.path={folder / 'part.npy'}", "epochs=3")
    stored = run(folder, f"{name}, a quarter in memory", *settings, f"dataset.path={folder / 'part.npz'}", "epochs=3")
    compare(name, mapped, stored)


if __name__ == "__main__":
    main()
