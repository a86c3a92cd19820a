"""`mode=encode`: write the codes of a data set's images as arrays for other tools."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aetrain.config.settings import Settings
from aetrain.data.digests import digest_data
from aetrain.data.examples import Examples, Splits
from aetrain.evaluation.measures.measure import encode_all
from aetrain.modes.evaluate import load_trained, output_directory, separate_changed_data, separate_data
from aetrain.modes.other_data import chooses_data, load_all
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
    """Write codes.npz: the codes [N, D] of images, with their classes, file names and rows.

    The codes are those that `aetrain.load(run).encode` returns (the mean of a random code). The run's own images have
    the arrays `train`, `validation` and `test` in the order of the splits, each with `train_rows` (the row of each
    image in the data set) and, where known, `train_labels` (the numbers of the classes), `train_factors` (the
    generative factors) and `train_files` (the paths below dataset.path). All images of another data set have one array
    `codes`, in the order of their `rows`, with `labels`, `factors` and `files`. `class_names` are the classes' names.
    """
    source, components, epoch = load_trained(request, settings, "encode")
    if chooses_data(request):
        images = load_all(request, components)
        all_images = Splits(images[:0], images[:0], images)
        request = separate_data(request, source, digest_data(all_images))
        parts = {"": images}
    else:
        splits = load_data(components)
        request = separate_changed_data(request, source, splits)
        parts = {f"{name}_": getattr(splits, name) for name in SPLITS}
        log_data(components, splits)
    arrays: dict[str, Any] = {}
    for prefix, images in parts.items():
        if len(images):
            arrays |= encode_images(components, images, prefix)
    with output_directory(request, source, epoch):
        file = request.run_dir.path / FILE
        save_arrays(file, arrays)
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        log.info("%s after %d epochs: %s: %s", source, epoch, display_path(file), shapes)
    return {"codes": str(file)}


def encode_images(components: Components, images: Examples, prefix: str) -> dict[str, Any]:
    """Return the codes of images, their rows, and their labels, factors and file names where known, by name."""
    with backend():
        codes = encode_all(components.model, images, components.dataset.prepare)  # [N, D]
    arrays: dict[str, Any] = {prefix.removesuffix("_") or "codes": codes.cpu().numpy()}
    for name in ("labels", "factors", "rows"):
        values: Tensor | None = getattr(images, name)
        if values is not None:
            arrays[prefix + name] = values.cpu().numpy()
    if images.file_names:
        arrays[f"{prefix}files"] = np.array(images.names, dtype=np.str_)
    if images.class_names:
        arrays["class_names"] = np.array(images.class_names, dtype=np.str_)
    return arrays


def save_arrays(file: Path, arrays: dict[str, Any]) -> None:
    """Replace an .npz file as a whole."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic.replace(file, content.getvalue())
