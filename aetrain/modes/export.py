"""`mode=export`: encoder and decoder of a run as programs that torch alone can load, without aetrain."""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.attempt import Job
from aetrain.config.errors import ConfigError
from aetrain.directory import shown
from aetrain.model.autoencoder import Autoencoder
from aetrain.modes.evaluate import at_work, trained

log = logging.getLogger("aetrain")

FOLDER = "export"


class Encode(nn.Module):
    """Pixels in [0, 1], [B, C, H, W], to codes [B, D]: the mean where they are random."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode(x).z


class Decode(nn.Module):
    """Codes [B, D] to pixels in [0, 1], [B, C, H, W]. Unpooling goes by its rule for a code without switches."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        return self.model.paint(z)


def export(job: Job) -> dict[str, Any]:
    """Write export/encoder.pt2, export/decoder.pt2 and export/export.json, which says what goes in and comes out."""
    source, parts, epoch = trained(job, "export")
    model = parts.model.cpu().to(memory_format=torch.contiguous_format)  # saving takes no other
    x = torch.rand(3, *model.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model.encode(x).z
    programs = {"encoder": program("encoder", Encode(model), x), "decoder": program("decoder", Decode(model), z)}
    about = {
        "pixels": {"shape": ["batch", *model.image_shape], "range": [0, 1], "dtype": "float32"},
        "code": {"shape": ["batch", model.code_dim], "dtype": "float32"},
        "encoder": "pixels to codes; where a code is drawn from a distribution, its mean",
        "decoder": "codes to pixels, from the code alone: max-pool switches are not among its inputs",
        "load": "torch.export.load('encoder.pt2').module()(pixels)",
        "epochs": epoch,
        "torch": torch.__version__,
    }
    with at_work(job, source, epoch):
        folder = job.directory.path / FOLDER
        new = folder.with_name(FOLDER + ".new")
        shutil.rmtree(new, ignore_errors=True)  # what a killed process has left
        new.mkdir(parents=True)
        for name, made in programs.items():
            torch.export.save(made, new / f"{name}.pt2")
        (new / "export.json").write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(new, folder)
        log.info("%s after %d epochs: %s", source, epoch, ", ".join(listing(folder)))
    return {"export": str(folder)}


def program(name: str, module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The module as a program for batches of any size; a ConfigError where torch cannot make one that does the same."""
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The tensor attributes")  # an LSTM's own list of its weights
            made = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: batch},))
            for count in (1, len(example)):  # a size that the example has not
                ours, theirs = module(example[:count]), made.module()(example[:count])
                torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    except Exception as error:  # whatever a model of the user's own makes of being traced
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"mode=export: torch.export cannot make a program of this model's {name} ({reason[:200]}): "
            "use aetrain.load(run) in Python instead"
        ) from error
    return made


def listing(folder: Path) -> list[str]:
    """The files as a person would type them."""
    return [shown(file) for file in sorted(folder.iterdir())]
