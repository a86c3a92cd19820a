"""`mode=encode`: the codes of a data set's images, as arrays for any other tool."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aetrain.attempt import Job
from aetrain.build import Parts
from aetrain.data.dataset import Images
from aetrain.directory import shown
from aetrain.evaluation.measures import codes
from aetrain.experiment import load
from aetrain.modes.evaluate import at_work, trained
from aetrain.training import disk

log = logging.getLogger("aetrain")

FILE = "codes.npz"
SPLITS = ("train", "validation", "test")


@torch.no_grad()
def encode(job: Job) -> dict[str, Any]:
    """Write codes.npz: for each split that has images its codes [N, D], and what is known of the images beside them.

    `train`, `validation` and `test` are the codes as `aetrain.load(run).encode` gives them (the mean where they are
    random), in the order in which the data set holds the images. `train_labels` and so on are the classes, and
    `train_files` the paths below dataset.path, where there are any.
    """
    source, parts, epoch = trained(job, "encode")
    splits = load(parts)
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        images: Images = getattr(splits, name)
        if len(images):
            arrays[name] = codes(parts.model, images, parts.dataset.prepare).cpu().numpy()  # [N, D]
            if images.labels is not None:
                arrays[f"{name}_labels"] = images.labels.cpu().numpy()
    arrays |= {f"{name}_files": files for name, files in names(parts).items() if name in arrays}
    with at_work(job, source, epoch):
        file = job.directory.path / FILE
        save(file, arrays)
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        log.info("%s after %d epochs: %s: %s", source, epoch, shown(file), shapes)
    return {"codes": str(file)}


def names(parts: Parts) -> dict[str, Any]:
    """The names of the images of each split, as they were chosen; empty where they have none."""
    found = parts.dataset.files()
    if found is None:
        return {}
    chosen = parts.dataset.split(*(Images(torch.arange(len(files))) for files in found))  # places for pixels
    whole = (found[0], found[0], found[1])
    return {
        name: np.array([files[place] for place in images.pixels.tolist()], dtype=np.str_)
        for name, files, images in zip(SPLITS, whole, chosen, strict=True)
    }


def save(file: Path, arrays: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    disk.replace(file, content.getvalue())
