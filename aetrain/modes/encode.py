"""`mode=encode`: write the codes of a data set's images as arrays for other tools."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aetrain.config.settings import Settings
from aetrain.data.images import Images
from aetrain.evaluation.measures.measure import encode_all
from aetrain.modes.evaluate import load_trained, output_directory
from aetrain.runs.build import Components
from aetrain.runs.request import RunRequest
from aetrain.runs.train import load_data, log_data
from aetrain.storage import atomic
from aetrain.storage.run_directory import display_path
from aetrain.training.backend.setup import backend

log = logging.getLogger("aetrain")

FILE = "codes.npz"
SPLITS = ("train", "validation", "test")


@torch.no_grad()
def encode(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Write codes.npz: for each split with images its codes [N, D], and the classes and file names where known.

    `train`, `validation` and `test` are the codes as `aetrain.load(run).encode` returns them (the mean of a random
    code), in the order of the data set. `train_labels` and so on are the numbers of the classes, `class_names` their
    names where they have any, `train_factors` the generative factors, `train_files` the paths below dataset.path.
    """
    source, components, epoch = load_trained(request, settings, "encode")
    splits = load_data(components)
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        images: Images = getattr(splits, name)
        if not len(images):
            continue
        with backend():
            arrays[name] = encode_all(components.model, images, components.dataset.prepare).cpu().numpy()  # [N, D]
        if images.labels is not None:
            arrays[f"{name}_labels"] = images.labels.cpu().numpy()
        if images.factors is not None:
            arrays[f"{name}_factors"] = images.factors.cpu().numpy()
    arrays |= {f"{name}_files": files for name, files in file_names(components).items() if name in arrays}
    if splits.train.class_names:
        arrays["class_names"] = np.array(splits.train.class_names, dtype=np.str_)
    with output_directory(request, source, epoch):
        log_data(components, splits)
        file = request.run_dir.path / FILE
        save_arrays(file, arrays)
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        log.info("%s after %d epochs: %s: %s", source, epoch, display_path(file), shapes)
    return {"codes": str(file)}


def file_names(components: Components) -> dict[str, Any]:
    """Return the file names of the images of each split, in their order; empty where they have none."""
    files = components.dataset.files()
    if files is None:
        return {}
    # Split the row numbers as the images are split.
    rows = components.dataset.split_images(*(Images(torch.arange(len(names))) for names in files))
    train, test, *validation = files
    sources = (train, validation[0] if validation else train, test)
    names_by_split = {}
    for split, names, images in zip(SPLITS, sources, rows, strict=True):
        names_by_split[split] = np.array([names[row] for row in images.pixels.tolist()], dtype=np.str_)
    return names_by_split


def save_arrays(file: Path, arrays: dict[str, Any]) -> None:
    """Replace an .npz file as a whole."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic.replace(file, content.getvalue())
