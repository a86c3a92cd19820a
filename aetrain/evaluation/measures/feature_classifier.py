"""A small classifier of a data set, whose features measure generated images. It is trained once and then cached."""

import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.data.examples import Examples, Prepare, in_order
from aetrain.data.mapped_rows import MappedRows
from aetrain.storage import atomic
from aetrain.storage.hashing import digest
from aetrain.storage.locks import exclusive_work_folder

log = logging.getLogger("aetrain")

NUM_STEPS, BATCH_SIZE = 1500, 128  # 3 epochs of MNIST
LEARNING_RATE = 2e-3  # of the first step; it falls linearly to 0
SEED = 0
RECIPE_VERSION = 1  # increase it with every change of the architecture or the training
NUM_FEATURES = 64


class FeatureClassifier(nn.Module):
    """Two convolutions with stride 2, a layer of 64 rectified units (the features), and a linear layer of classes."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        map_height, map_width = -(-height // 4), -(-width // 4)
        self.maps = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        )
        self.units = nn.Linear(32 * map_height * map_width, NUM_FEATURES)
        self.classes = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the features [B, 64] of pixels [B, C, H, W]."""
        return F.relu(self.units(F.relu(self.maps(x)).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes, [B, classes]."""
        return self.classes(self.features(x))


def load_or_train_classifier(images: Examples, prepare: Prepare, folder: Path) -> FeatureClassifier:
    """Return the classifier of these training images, in evaluation mode on their device.

    It is read from `folder`; otherwise it is trained and, if `folder` can be written to, saved there.
    """
    classes, labels = images.classes.unique(return_inverse=True)  # labels from 0
    (x,) = in_order(images[:1], 1, prepare)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        classifier = FeatureClassifier(cast(tuple[int, int, int], tuple(x.shape[1:])), len(classes))
    file = folder / f"{classifier_digest(images, prepare)}.safetensors"
    if not load_weights(classifier, file):
        with ExitStack() as stack:
            work_folder = None
            try:
                work_folder = stack.enter_context(exclusive_work_folder(folder))
            except OSError as error:
                log.info("measures.frechet: cannot write to %s (%s): the classifier is not saved", folder, error)
            # Another process may have saved it while this one waited for the lock.
            if work_folder is None or not load_weights(classifier, file):
                log.info("measures.frechet: training a classifier of this data set, once, to compare images by")
                train_classifier(classifier.to(images.device), Examples(images.values, labels), prepare)
                if work_folder is not None:
                    save_weights(classifier, work_folder, file)
    return classifier.to(images.device).eval()


def classifier_digest(images: Examples, prepare: Prepare) -> str:
    """Return a digest of everything that determines the classifier: its recipe, the images and their preparation."""
    values = images.values
    content = values.content() if isinstance(values, MappedRows) else (images.pixels,)
    recipe = (RECIPE_VERSION, NUM_STEPS, BATCH_SIZE, LEARNING_RATE, SEED)
    return digest(recipe, prepare, *content, images.classes)[:24]


def train_classifier(classifier: FeatureClassifier, images: Examples, prepare: Prepare) -> None:
    """Train with Adam on the cross-entropy for NUM_STEPS random batches, with a generator of its own."""
    generator = torch.Generator(images.device).manual_seed(SEED)
    optimizer = torch.optim.Adam(classifier.parameters(), LEARNING_RATE)
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / NUM_STEPS)
        index = torch.randint(len(images), (BATCH_SIZE,), generator=generator, device=images.device)
        with torch.enable_grad():
            loss = F.cross_entropy(classifier(prepare(images.values[index], generator)), images.classes[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()


def load_weights(classifier: FeatureClassifier, file: Path) -> bool:
    """Load the weights from a file. Return False if there is no file, or if it is damaged or does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        classifier.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError, ValueError):
        return False
    return True


def save_weights(classifier: FeatureClassifier, work_folder: Path, file: Path) -> None:
    """Save the weights completely or not at all, by way of `work_folder`. An error such as a full disk is ignored."""
    from safetensors.torch import save

    weights = {name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    with suppress(OSError):
        partial = work_folder / file.name
        atomic.write(partial, save(weights))
        partial.replace(file)
