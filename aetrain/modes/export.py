"""`mode=export`: write the encoder and the decoder of a run as programs that torch loads without aetrain."""

import json
import logging
import os
import shutil
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.model.autoencoder import Autoencoder
from aetrain.modes.evaluate import load_trained, output_directory
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import display_path

log = logging.getLogger("aetrain")

FOLDER = "export"


class Encode(nn.Module):
    """Map pixels in [0, 1], [B, C, H, W], to codes [B, D]: the mean of a random code."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode(x).z


class Decode(nn.Module):
    """Map codes [B, D] to pixels in [0, 1], [B, C, H, W]. Unpooling uses its rule for a code without pool indices."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        return self.model.decode_pixels(z)


def export(request: RunRequest, settings: Settings) -> dict[str, Any]:
    """Write export/encoder.pt2, export/decoder.pt2 and export/export.json, which describes inputs and outputs."""
    source, components, epoch = load_trained(request, settings, "export")
    model = components.model.cpu().to(memory_format=torch.contiguous_format)  # torch.export.save takes no other format
    x = torch.rand(3, *model.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model.encode(x).z
    programs = {
        "encoder": export_module("encoder", Encode(model), x),
        "decoder": export_module("decoder", Decode(model), z),
    }
    is_image = model.kind == "image"
    values = "pixels" if is_image else "values"
    inputs = {"shape": ["batch", *model.image_shape], "dtype": "float32"}
    description = {
        values: {**inputs, "range": [0, 1]} if is_image else {**inputs, **components.dataset.vector_format.state()},
        "code": {"shape": ["batch", model.code_dim], "dtype": "float32"},
        "encoder": f"{values} to codes; the mean of a random code",
        "decoder": f"codes to {values}, from the code alone: max-pool indices are not among its inputs",
        "load": f"torch.export.load('encoder.pt2').module()({values})",
        "epochs": epoch,
        "torch": torch.__version__,
    }
    with output_directory(request, source, epoch):
        folder = request.run_dir.path / FOLDER
        new = folder.with_name(FOLDER + ".new")
        shutil.rmtree(new, ignore_errors=True)  # left by a killed process
        new.mkdir(parents=True)
        for name, program in programs.items():
            torch.export.save(program, new / f"{name}.pt2")
        (new / "export.json").write_text(json.dumps(description, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(new, folder)
        log.info(
            "%s after %d epochs: %s", source, epoch, ", ".join(display_path(file) for file in sorted(folder.iterdir()))
        )
    return {"export": str(folder)}


def export_module(name: str, module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Export a module for batches of any size. Raise ConfigError where torch cannot, or the program differs."""
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The tensor attributes")  # an LSTM's own list of its weights
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: batch},))
            for count in (1, len(example)):  # 1 is not the size of the example
                expected, actual = module(example[:count]), program.module()(example[:count])
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    except Exception as error:  # any that a user's own model raises while it is traced
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"mode=export: torch.export cannot export this model's {name} ({reason[:200]}): "
            "use aetrain.load(run) in Python instead"
        ) from error
    return program
