"""Modes that use a finished run: mode=export, whose programs need no aetrain, and mode=encode."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from torch import Tensor, nn

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups
from aetrain.modes.export import Decode, Encode, export_module
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.training.backend.matmul import matmul_by_onednn

PROGRAM = """
import sys
import torch
class Refuse:
    def find_spec(self, name, *rest):
        assert not name.startswith("aetrain"), name
sys.meta_path.insert(0, Refuse())
x, z = torch.load("in.pt", weights_only=True)
encode, decode = (torch.export.load(f"export/{name}.pt2").module() for name in ("encoder", "decoder"))
outputs = [encode(x), decode(z), encode(x[:1]), decode(z[:1]), decode(encode(x))]
assert "aetrain" not in sys.modules
torch.save(outputs, "out.pt")
"""


def run_exported_programs(directory: Path, x: Tensor, z: Tensor) -> list[Tensor]:
    """Return the outputs of the exported programs for x and z, from a process that cannot import aetrain."""
    torch.save((x, z), directory / "in.pt")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    call = [sys.executable, "-I", "-c", PROGRAM]
    completed = subprocess.run(call, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    outputs: list[Tensor] = torch.load(directory / "out.pt", weights_only=True)
    return outputs


@pytest.mark.slow
def test_exported_programs_give_the_same_outputs_without_aetrain(tiny: Callable[..., Path]) -> None:
    overrides = ("model=conv_unpool", "dataset.scale=[-1,1]", "likelihood=gaussian", "likelihood.output=tanh")
    gaussian = ("model.bottleneck._target_=aetrain.model.bottlenecks.Gaussian", "sparsity=topk", "sparsity.k=3")
    directory = tiny(*overrides, *gaussian)
    api.run([f"run={directory}", "mode=export"])
    run = aetrain.load(directory)
    x = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    z = run.encode(x)
    codes, pixels, one_code, one_image, reconstructions = run_exported_programs(directory, x, z)
    torch.testing.assert_close(codes, z)
    torch.testing.assert_close(pixels, run.decode(z))
    torch.testing.assert_close(one_code, z[:1])
    torch.testing.assert_close(one_image, run.decode(z)[:1])
    torch.testing.assert_close(reconstructions, run.decode(z))
    description = json.loads((directory / "export" / "export.json").read_text())
    assert description["pixels"]["shape"] == ["batch", 1, 8, 8]
    assert description["code"]["shape"] == ["batch", z.shape[1]]
    assert json.loads((directory / "metrics.json").read_text())["status"] == "finished"


SETTINGS = {"sparse_coding": ("model.bottleneck.steps=3",)}  # each step is a part of the program


@pytest.mark.slow
@pytest.mark.parametrize("model", groups()["model"])
def test_every_model_can_be_exported(model: str) -> None:
    config, _, overrides = api.compose_config([*TINY, f"model={model}", *SETTINGS.get(model, ())])
    network = build(entry.check(config, overrides)).model.eval()
    x = torch.rand(4, *network.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = network.encode(x).z
        codes = export_module("encoder", Encode(network), x).module()(x[:2])
        pixels = export_module("decoder", Decode(network), z).module()(z[:2])
    torch.testing.assert_close(codes, z[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pixels, network.decode_pixels(z[:2]), rtol=1e-4, atol=1e-5)


def test_exported_program_names_no_kernel_of_its_machine() -> None:
    with matmul_by_onednn():  # every mode uses it
        exported = export_module("encoder", nn.Linear(784, 400), torch.rand(3, 784))
    assert {node.target.namespace for node in exported.graph.nodes if node.op == "call_function"} == {"aten"}


class Untraceable(nn.Module):
    """A layer that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().numpy().sum())


def test_model_that_torch_cannot_trace_is_refused_with_a_message() -> None:
    with pytest.raises(ConfigError, match=r"mode=export: torch\.export cannot export this model's encoder"):
        export_module("encoder", Untraceable(), torch.ones(3, 2))


def test_images_of_another_size_are_refused_with_their_size(tiny: Callable[..., Path]) -> None:
    directory = tiny()
    with pytest.raises(ConfigError, match=r"another model's weights(.|\n)*these images are 1x1x3"):
        api.run([f"run={directory}", "mode=encode", "dataset=toy"])
    assert not (directory / "eval").exists()


def test_export_needs_a_run() -> None:
    with pytest.raises(ConfigError, match="mode=export needs a run"):
        api.run(["mode=export"])


@pytest.mark.slow
def test_encode_gives_the_codes_of_load_in_the_order_of_the_data_set(tiny: Callable[..., Path]) -> None:
    directory = tiny("model=vae", "model.code_activation=tanh", "dataset.validation=10")
    api.run([f"run={directory}", "mode=encode"])
    saved = np.load(directory / "codes.npz")
    config, _, overrides = api.compose_config([*TINY, "dataset.validation=10"])
    splits = build(entry.check(config, overrides)).dataset.load()
    assert set(saved) == {f"{name}{suffix}" for name in ("train", "validation", "test") for suffix in ("", "_labels")}
    for name, images in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        z = aetrain.load(directory).encode(images.pixels.float() / 255)
        np.testing.assert_allclose(saved[name], z.numpy(), rtol=1e-5, atol=1e-6)
        assert images.labels is not None
        np.testing.assert_array_equal(saved[f"{name}_labels"], images.labels.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["null", "5"])
def test_encode_of_a_folder_saves_the_file_names(subset: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    images = {}
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        file = tmp_path / "mine" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        images[file.relative_to(tmp_path / "mine").as_posix()] = pixels
    directory = tiny("model=deep")
    dataset = [f"dataset.path='{tmp_path / 'mine'}'", "dataset.size=8", f"dataset.subset={subset}"]
    api.run([f"run={directory}", "mode=encode", "dataset=folder", *dataset])
    (file,) = directory.glob("eval/*/codes.npz")
    saved, run = np.load(file), aetrain.load(directory)
    assert json.loads((file.parent / "metrics.json").read_text())["status"] == "finished"
    num_codes = 0
    for name in ("train", "test"):
        codes, files, labels = saved[name], saved[f"{name}_files"], saved[f"{name}_labels"]
        for code, path, label in zip(codes, files, labels, strict=True):
            x = torch.from_numpy(images[str(path)]).float().div(255).view(1, 1, 8, 8)
            np.testing.assert_allclose(code, run.encode(x)[0].numpy(), rtol=1e-5, atol=1e-6)
            assert "ab"[label] == str(path)[0]
            num_codes += 1
    assert num_codes == (12 if subset == "null" else 6)
