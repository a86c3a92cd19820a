"""A small classifier of a data set's own images, whose features judge pictures. Trained once, then read from a file."""

import hashlib
import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.data.archives import alone_in
from aetrain.data.batches import in_order
from aetrain.data.dataset import Images, Prepare

log = logging.getLogger("aetrain")

STEPS, BATCH, SEED = 1500, 128, 0  # of its training; 1500 are 3 epochs of MNIST
RECIPE = "1"  # to be changed with whatever changes what it becomes


class Judge(nn.Module):
    """Two convolutions that halve the picture, a layer of 64 rectified units, the classes."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        sizes = (-(-height // 4), -(-width // 4))
        self.maps = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        )
        self.units = nn.Linear(32 * sizes[0] * sizes[1], 64)
        self.classes = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pixels [B, C, H, W] to the activations [B, 64] from which the classes are read."""
        return F.relu(self.units(F.relu(self.maps(x)).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """The classes' logits [B, classes]."""
        return self.classes(self.features(x))


def judge_of(images: Images, prepare: Prepare, folder: Path) -> Judge:
    """The judge of these training images: from `folder`, or trained now and kept there, if it can be written to."""
    known, number = images.classes.unique(return_inverse=True)  # classes from 0
    (x,) = in_order(images[:1], 1, prepare)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        judge = Judge(cast(tuple[int, int, int], tuple(x.shape[1:])), len(known))
    file = folder / f"{digest(images, prepare)}.safetensors"
    if not read(file, judge):
        with ExitStack() as stack:
            work = None
            try:
                work = stack.enter_context(alone_in(folder))
            except OSError as error:
                log.info("measures.frechet: %s cannot be written to (%s): its classifier is not kept", folder, error)
            if work is None or not read(file, judge):  # nobody else has made it while this process waited
                log.info("measures.frechet: training a classifier of these images, once, to judge pictures by")
                train(judge.to(images.pixels.device), Images(images.pixels, number), prepare)
                if work is not None:
                    keep(judge, work, file)
    return judge.to(images.pixels.device).eval()


def digest(images: Images, prepare: Prepare) -> str:
    """What a judge is made from, as a name: the pixels, the classes, how they are shown, the recipe."""
    sum_ = hashlib.sha256(f"{RECIPE} {STEPS} {BATCH} {SEED} {prepare} {list(images.pixels.shape)}".encode())
    for values in (images.pixels, images.classes):
        sum_.update(values.cpu().contiguous().numpy().data)
    return sum_.hexdigest()[:24]


def train(judge: Judge, images: Images, prepare: Prepare) -> None:
    """Adam on the cross-entropy for STEPS batches, drawn with a generator of its own."""
    generator = torch.Generator(images.pixels.device).manual_seed(SEED)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
        chosen = torch.randint(len(images), (BATCH,), generator=generator, device=images.pixels.device)
        with torch.enable_grad():
            loss = F.cross_entropy(judge(prepare(images.pixels[chosen], generator)), images.classes[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()


def read(file: Path, judge: Judge) -> bool:
    """Fill the judge from a file; whether there is one that fits and is whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        judge.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError, ValueError):
        return False
    return True


def keep(judge: Judge, work: Path, file: Path) -> None:
    """Write the file whole or not at all; a full disk costs the file, not the measure."""
    from safetensors.torch import save

    with suppress(OSError):
        new = work / file.name
        with new.open("wb") as stream:
            stream.write(save({name: tensor.cpu().contiguous() for name, tensor in judge.state_dict().items()}))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, file)
