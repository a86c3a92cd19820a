"""Modes that use a finished run: mode=export, whose programs need no aetrain, and mode=encode."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import command
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
    suffixes = ("", "_labels", "_rows")
    assert set(saved) == {f"{name}{suffix}" for name in ("train", "validation", "test") for suffix in suffixes}
    for name, images in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        z = aetrain.load(directory).encode(images.pixels.float() / 255)
        np.testing.assert_allclose(saved[name], z.numpy(), rtol=1e-5, atol=1e-6)
        assert images.labels is not None
        np.testing.assert_array_equal(saved[f"{name}_labels"], images.labels.numpy())


def write_images(folder: Path, count: int) -> dict[str, Any]:
    """Write random images of 8x8 into two folders; return their pixels by path below `folder`, in no order."""
    images = {}
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        file = folder / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        images[file.relative_to(folder).as_posix()] = pixels
    return images


def codes_of(directory: Path) -> Any:
    (file,) = directory.glob("eval/*/codes.npz")
    assert json.loads((file.parent / "metrics.json").read_text())["status"] == "finished"
    saved = np.load(file)
    shutil.rmtree(file.parent)
    return saved


def test_encode_of_other_images_has_all_rows_in_order(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("model=deep")
    images = write_images(tmp_path / "mine", 12)
    command_line = [f"run={directory}", "mode=encode", "dataset=folder", "dataset.size=8"]
    run = aetrain.load(directory)
    pixels = np.stack([images[name] for name in sorted(images)])
    expected = run.encode(torch.from_numpy(pixels).float().div(255)[:, None]).numpy()
    paths = {count: tmp_path / f"folder{count}" for count in (1, 3, 12)}
    for count, folder in paths.items():
        for name in sorted(images)[:count]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "mine" / name, folder / name)
        api.run([*command_line, f"dataset.path='{folder}'"])
        saved = codes_of(directory)
        np.testing.assert_allclose(saved["codes"], expected[:count], rtol=1e-5, atol=1e-6)
        assert saved["files"].tolist() == sorted(images)[:count]
        assert saved["rows"].tolist() == [*range(count)]
    assert set(saved) == {"codes", "files", "labels", "rows", "class_names"}
    assert [saved["class_names"][label] for label in saved["labels"]] == [name[0] for name in sorted(images)]
    assert set(codes_of_subset(directory, command_line, paths[12], "dataset.classes=[b]", "dataset.subset=4")) <= {
        name for name in images if name.startswith("b")
    }


def codes_of_subset(directory: Path, command_line: list[str], folder: Path, *settings: str) -> list[str]:
    """Return the names of the encoded files, whose rows are checked, with settings that select images."""
    api.run([*command_line, f"dataset.path='{folder}'", *settings])
    saved = codes_of(directory)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert saved["rows"].tolist() == sorted(saved["rows"].tolist())
    assert [names[row] for row in saved["rows"]] == saved["files"].tolist()
    assert len(saved["codes"]) == 4
    return list(saved["files"])


def test_evaluations_of_two_files_have_directories_of_their_own(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("epochs=0")
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 8, 8), np.uint8)
        np.savez(tmp_path / f"{seed}.npz", x=pixels)
        api.run([f"run={directory}", "mode=eval", "dataset=npz", f"dataset.path={tmp_path / f'{seed}.npz'}"])
    errors = [json.loads(file.read_text())["test/sse"] for file in (directory / "eval").glob("*/metrics.json")]
    assert len(set(errors)) == 2


def test_encode_of_other_images_keeps_the_scale_of_the_run(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("dataset.scale=[-1,1]", "likelihood=gaussian", "epochs=0")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    np.savez(tmp_path / "own.npz", x=pixels)
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    option = "# An option that lists no other setting.\n_target_: aetrain.data.npz.Npz\npath: own.npz\n"
    (tmp_path / "mine" / "dataset" / "own.yaml").write_text(option)
    api.run([f"run={directory}", "mode=encode", "dataset=npz", f"dataset.path={tmp_path / 'own.npz'}"])
    outcome = command(["--config-dir", "mine", f"run={directory}", "mode=encode", "dataset=own"], tmp_path)
    assert outcome.code == 0, outcome.err
    files = [*(directory / "eval").glob("*/codes.npz")]
    assert len(files) == 2
    codes = aetrain.load(directory).encode(torch.from_numpy(pixels)[:, None] / 255).numpy()
    for file in files:
        np.testing.assert_allclose(np.load(file)["codes"], codes, rtol=1e-5, atol=1e-5)


def test_encode_of_the_own_npz_has_rows_and_of_another_one_ignores_the_selection_of_the_run(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "own.npz", x=pixels, y=np.arange(20) % 2 + 3)
    np.savez(tmp_path / "other.npz", x_train=pixels[:9], x_test=pixels[9:])
    np.savez(tmp_path / "single.npz", x=pixels[:1])
    settings = ("dataset=npz", f"dataset.path={tmp_path / 'own.npz'}", "dataset.subset=7", "dataset.validation=4")
    directory = run("model=linear", "model.code_dim=2", "epochs=0", "views=none", "device=cpu", *settings)
    trained = aetrain.load(directory)
    expected = trained.encode(torch.from_numpy(pixels).float().div(255)[:, None]).numpy()
    api.run([f"run={directory}", "mode=encode"])
    saved = np.load(directory / "codes.npz")
    rows = [saved[f"{name}_rows"] for name in ("train", "validation", "test")]
    assert [len(part) for part in rows] == [7, 4, 2]
    assert len({*np.concatenate(rows).tolist()}) == 13
    for name, part in zip(("train", "validation", "test"), rows, strict=True):
        np.testing.assert_allclose(saved[name], expected[part], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(saved[f"{name}_labels"], part % 2)
    for name, count in (("own", 20), ("other", 20), ("single", 1)):  # the same images in the same order
        api.run([f"run={directory}", "mode=encode", f"dataset.path={tmp_path / name}.npz"])
        saved = codes_of(directory)
        np.testing.assert_allclose(saved["codes"], expected[:count], rtol=1e-5, atol=1e-6)
        assert saved["rows"].tolist() == [*range(count)]


def test_encode_of_the_own_folder_has_file_names_of_each_split(run: Callable[..., Path], tmp_path: Path) -> None:
    images = write_images(tmp_path / "mine", 12)
    settings = ("dataset=folder", f"dataset.path='{tmp_path / 'mine'}'", "dataset.size=8", "dataset.validation=3")
    directory = run("model=linear", "model.code_dim=2", "epochs=0", "views=none", "device=cpu", *settings)
    api.run([f"run={directory}", "mode=encode"])
    saved, trained = np.load(directory / "codes.npz"), aetrain.load(directory)
    names: list[str] = []
    for split in ("train", "validation", "test"):
        files = [str(name) for name in saved[f"{split}_files"]]
        assert files == [sorted(images)[row] for row in saved[f"{split}_rows"]]
        assert files == ["ab"[label] + name[1:] for label, name in zip(saved[f"{split}_labels"], files, strict=True)]
        x = torch.from_numpy(np.stack([images[name] for name in files])).float().div(255)[:, None]
        np.testing.assert_allclose(saved[split], trained.encode(x).numpy(), rtol=1e-5, atol=1e-6)
        names += files
    assert sorted(names) == sorted(images)


def test_a_single_image_is_evaluated_and_searched_but_not_trained_on(
    tiny: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tiny("model=vae")
    (name, pixels), *_ = write_images(tmp_path / "mine", 1).items()
    data = ["dataset=folder", f"dataset.path='{tmp_path / 'mine'}'", "dataset.size=8"]
    api.run([f"run={directory}", "mode=eval", *data])
    (file,) = directory.glob("eval/*/metrics.json")
    metrics = json.loads(file.read_text())
    x = torch.from_numpy(pixels).float().div(255)[None, None]
    sse = (aetrain.load(directory).reconstruct(x) - x).square().sum().item()
    assert metrics["test/sse"] == pytest.approx(sse, rel=1e-5)
    assert all(np.isfinite(value) for name, value in metrics.items() if name.startswith("test/"))
    assert "test/pca_sse" not in metrics
    outcome = command(["mode=search", f"run={directory}", f"query={tmp_path / 'mine' / name}", *data], tmp_path)
    assert outcome.code == 0, outcome.err
    assert name in outcome.out
    for setting in ("measures=probes", "measures=retrieval"):
        with pytest.raises(ConfigError, match="needs training images"):
            api.run([f"run={directory}", "mode=eval", setting, *data])
    run_dir = f"hydra.run.dir='{tmp_path / 'new'}'"
    np.savez(tmp_path / "single.npz", x=pixels[None])
    for single in (data, ["dataset=npz", f"dataset.path='{tmp_path / 'single.npz'}'"]):
        with pytest.raises(ConfigError, match=r"dataset\.path=.*only 1 image there, 2 are needed"):
            api.run([*single, "model=linear", "views=none", run_dir])
    assert not (tmp_path / "new").exists()
