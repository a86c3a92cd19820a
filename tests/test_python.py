"""aetrain from Python: arrays of NumPy, torch and pandas, settings as keywords, the attributes of a run."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.config.keywords import keyword_overrides
from aetrain.config.overrides import normalize, parse
from aetrain.data.arrays import BATCH_SIZE, ImageArray
from aetrain.runs import train
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.loop import TrainState


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> aetrain.Trained:
    """A variational autoencoder of grey 8x8 images, with one picture."""
    directory = tmp_path_factory.mktemp("python") / "vae"
    words = [word for word in TINY if not word.startswith("views")]
    return aetrain.run([*words, "views=samples"], model="vae", directory=directory)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> aetrain.Trained:
    """A linear autoencoder of 6x4 images with three channels."""
    folder = tmp_path_factory.mktemp("colour")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 4), np.uint8)
    np.savez(folder / "images.npz", x_train=pixels[:30], x_test=pixels[30:])
    path: dict[str, Any] = {"dataset.path": folder / "images.npz"}
    return aetrain.run(
        dataset="npz", model="linear", epochs=0, views="none", device="cpu", directory=folder / "run", **path
    )


PIXELS = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8), np.uint8)


def expected(run: aetrain.Trained, pixels: np.ndarray[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes and reconstructions of bytes by the model itself."""
    with torch.no_grad():
        x = torch.from_numpy(pixels) / 255
        return run.model.encode(x).z, run.model.reconstruct(x)


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 8, 8), (5, 64), (5, 8, 8, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
def test_numpy_arrays(vae: aetrain.Trained, shape: tuple[int, ...], dtype: Any) -> None:
    x = PIXELS.reshape(shape)
    x = x if dtype == np.uint8 else (x / 255).astype(dtype)
    z, again = expected(vae, PIXELS)
    tolerance = 2e-3 if dtype == np.float16 else 1e-5
    codes, pixels = vae.encode(x), vae.reconstruct(x)
    assert type(codes) is type(pixels) is np.ndarray
    assert codes.dtype == pixels.dtype == np.float32
    np.testing.assert_allclose(codes, z, atol=tolerance)
    assert pixels.shape == shape
    np.testing.assert_allclose(pixels.ravel(), again.numpy().ravel(), atol=tolerance)
    np.testing.assert_allclose(vae.decode(codes), again, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_tensors(vae: aetrain.Trained, dtype: torch.dtype) -> None:
    x = torch.from_numpy(PIXELS.copy())
    x = x if dtype == torch.uint8 else (x / 255).to(dtype).requires_grad_()
    z, again = expected(vae, PIXELS)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-5)
    codes, pixels = vae.encode(x), vae.reconstruct(x)
    assert codes.dtype == pixels.dtype == torch.float32
    assert not codes.requires_grad
    torch.testing.assert_close(codes, z, atol=tolerance, rtol=0)
    torch.testing.assert_close(pixels, again, atol=tolerance, rtol=0)
    torch.testing.assert_close(vae.decode(codes.double()), again, atol=tolerance, rtol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_a_gpu_stay_there(vae: aetrain.Trained) -> None:
    x = torch.from_numpy(PIXELS.copy()).cuda()
    z, again = expected(vae, PIXELS)
    codes = vae.encode(x)
    assert codes.is_cuda
    torch.testing.assert_close(codes.cpu(), z)
    torch.testing.assert_close(vae.decode(codes).cpu(), again)
    torch.testing.assert_close(vae.reconstruct(x / 255).cpu(), again)


def test_data_frames(vae: aetrain.Trained) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(PIXELS.reshape(5, 64), index=list("abcde"), columns=[f"p{n}" for n in range(64)])
    z, again = expected(vae, PIXELS)
    codes, pixels = vae.encode(frame), vae.reconstruct(frame / 255)
    assert list(codes.index) == list(pixels.index) == list("abcde")
    assert list(codes.columns[:2]) == ["code0", "code1"]
    assert list(pixels.columns) == list(frame.columns)
    np.testing.assert_allclose(codes, z, atol=1e-5)
    np.testing.assert_allclose(pixels, again.flatten(1), atol=1e-5)
    np.testing.assert_allclose(vae.decode(codes), again.flatten(1), atol=1e-5)
    assert list(vae.history.epoch) == [0, 1]
    with pytest.raises(ValueError, match="type int64: use images"):
        vae.encode(frame.astype(int))


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (64,)])
def test_a_single_image_has_a_single_code(vae: aetrain.Trained, shape: tuple[int, ...]) -> None:
    z, again = expected(vae, PIXELS[:1])
    x = PIXELS[0].reshape(shape)
    codes = vae.encode(x)
    assert codes.shape == (z.shape if shape == (1, 8, 8) else z[0].shape)  # [1, 8, 8] is an array of one image
    np.testing.assert_allclose(codes.ravel(), z[0], atol=1e-5)
    np.testing.assert_allclose(vae.reconstruct(x), again.reshape(shape), atol=1e-5)
    assert vae.decode(z[0]).shape == (1, 8, 8)


def test_channels_may_come_last(colour: aetrain.Trained) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 3, 6, 4), np.uint8)
    z, again = expected(colour, pixels)
    last = np.moveaxis(pixels, 1, -1)
    np.testing.assert_allclose(colour.encode(last), z, atol=1e-5)
    np.testing.assert_allclose(colour.reconstruct(last), again.movedim(1, -1), atol=1e-5)
    np.testing.assert_allclose(colour.encode(last[0]), z[0], atol=1e-5)
    np.testing.assert_allclose(colour.encode(pixels[0]), z[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"shape \[4, 6, 4\]: use images \[N, 3, 6, 4\] or \[N, 72\], with floats"):
        colour.encode(pixels[:, 0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (PIXELS.astype(np.float64), r"x has values from 0 to 255: use images .*floats in \[0, 1\].*; divide by 255"),
        (PIXELS.astype(np.float32) / 255 - 0.5, r"x has values from -0.5 to 0.5: use images .*uint8 from 0 to 255$"),
        (np.full((1, 64), np.nan), "x has values from nan to nan: use images"),
        (torch.full((1, 64), 1.01), "x has values from 1.01 to 1.01: use images"),
        (PIXELS.astype(np.int64), "x has the type int64: use images"),
        (torch.zeros(1, 64, dtype=torch.int32), "x has the type int32: use images"),
        (PIXELS[:, :, :7], r"shape \[5, 1, 7, 8\]: use images \[N, 1, 8, 8\], \[N, 8, 8\] or \[N, 64\], with floats"),
        (np.array(["a"]), "x has the type <U1: use images"),
        (np.float32(1), r"x has the shape \[\]: use images"),
    ],
)
def test_wrong_arrays_are_refused_with_one_message(vae: aetrain.Trained, x: Any, message: str) -> None:
    for method in (vae.encode, vae.reconstruct):
        with pytest.raises(ValueError, match=message):
            method(x)


def test_wrong_codes_are_refused_with_one_message(vae: aetrain.Trained) -> None:
    for z in (np.zeros((2, 3)), np.zeros((1, 1, vae.model.code_dim)), np.array(["a"] * vae.model.code_dim)):
        with pytest.raises(ValueError, match=rf"use numbers \[N, {vae.model.code_dim}\]$"):
            vae.decode(z)


def test_arrays_are_computed_in_batches(vae: aetrain.Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    to_pixels = ImageArray.to_pixels
    monkeypatch.setattr(ImageArray, "to_pixels", lambda self, x: sizes.append(len(x)) or to_pixels(self, x))  # type: ignore[func-returns-value]
    x = np.broadcast_to(PIXELS[:1], (2 * BATCH_SIZE + 7, 1, 8, 8))  # read-only, and the memory of one image
    codes = vae.encode(x)
    assert sizes == [BATCH_SIZE, BATCH_SIZE, 7]
    np.testing.assert_allclose(codes, np.broadcast_to(codes[:1], codes.shape), atol=1e-5)
    assert vae.encode(x[:0]).shape == (0, vae.model.code_dim)


def test_samples_are_those_of_their_seed(vae: aetrain.Trained, colour: aetrain.Trained) -> None:
    before = torch.get_rng_state()
    first, again, other = vae.sample(4, seed=3), vae.sample(4, seed=3), vae.sample(4, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (4, 1, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    z = torch.randn(4, vae.model.code_dim, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(first, vae.decode(z))
    with pytest.raises(ValueError, match="no prior to draw codes from: use a model with one"):
        colour.sample(2)


def test_history_is_the_file(vae: aetrain.Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where it is not installed
    lines = [json.loads(line) for line in (vae.directory / "history.jsonl").read_text().splitlines()]
    assert vae.history == lines
    assert [line["epoch"] for line in vae.history] == [0, 1]


def test_data_are_the_images_of_the_run(vae: aetrain.Trained) -> None:
    before = torch.get_rng_state()
    assert vae.data.train.pixels.shape == (64, 1, 8, 8)
    assert vae.data.test.pixels.dtype == torch.uint8
    assert vae.data.test.classes.shape == (64,)
    assert vae.data is vae.data
    assert torch.equal(torch.get_rng_state(), before)
    error = (vae.reconstruct(vae.data.test.pixels) - vae.data.test.pixels / 255).square().sum() / 64
    assert float(error) == pytest.approx(vae.metrics["test/sse"], rel=1e-4)


def test_data_that_have_changed_give_a_warning(colour: aetrain.Trained) -> None:
    np.savez(colour.directory.parent / "images.npz", x_train=np.zeros((9, 3, 6, 4)), x_test=np.ones((9, 3, 6, 4)))
    with pytest.warns(UserWarning, match="was trained on other data"):
        assert len(colour.data.train) == 9


def test_a_run_describes_itself(vae: aetrain.Trained, colour: aetrain.Trained) -> None:
    line = repr(vae)
    assert "\n" not in line
    assert f"vae: epochs=1, test/loss={vae.metrics['test/loss']:.4g}, test/sse=" in line
    assert {*vae.figures} == {file.stem for file in (vae.directory / "figures").iterdir()}
    assert "samples" in vae.figures
    html = vae._repr_html_()
    assert html.startswith("<div>")
    assert html.count('<img src="data:image/') == 2  # curves and samples
    assert "test/sse" in html
    assert len(html) < 200_000
    assert colour.figures == {}
    assert "<img" not in colour._repr_html_()


def test_the_public_names() -> None:
    code = "import sys, aetrain; print(*dir(aetrain)); print('torch' in sys.modules); print(aetrain.ConfigError)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, has_torch, error = output.splitlines()
    assert names.split() == ["ConfigError", "Trained", "__version__", "load", "run"]
    assert has_torch == "False"
    assert error == "<class 'aetrain.config.errors.ConfigError'>"
    assert aetrain.ConfigError is ConfigError


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -1, 1e-3, 1e-30, 2.5, float("inf")),
        *("vae", "a,b", "1", "1e-3", "null", "true", "", " x ", "it's", 'a"b', "a\\", "\\'", "[a]", "{a:1}", "a=b"),
        *("choice(a,b)", "~/x", "#", "é", "a\tb", "$HOME", "x:y", "\\\\"),
        *([], [1, 2], ["a,b", "c"], [[1], None], ["1", 1], {}),
    ],
)
def test_keyword_values_arrive_as_they_are(value: Any) -> None:
    (override,) = parse(normalize(keyword_overrides({"key": value})))
    assert not override.is_sweep_override()
    result = override.value()
    assert result == value
    assert type(result) is type(value) or isinstance(result, type(value))


def test_keyword_names_and_types() -> None:
    settings = {"optimizer": {"lr": np.float64(0.5), "betas": (0.9, 0.99)}, "model.hidden": np.array([3, 2])}
    assert keyword_overrides(settings) == ["optimizer.lr=0.5", "optimizer.betas=[0.9,0.99]", "model.hidden=[3,2]"]
    assert keyword_overrides({"model": {"penalties": {"kl": {"weight": 2}}}}) == ["model.penalties.kl.weight=2"]
    assert keyword_overrides({"noise": ["masking", "gaussian"]}) == ["noise=[masking,gaussian]"]
    for name in ("a=b", "", "a b", "a,b"):
        with pytest.raises(ConfigError, match="is not the name of a setting"):
            keyword_overrides({name: 1})
    with pytest.raises(ConfigError, match=r"optimizer\.lr has a value of the type object: use None"):
        keyword_overrides({"optimizer": {"lr": object()}})


@pytest.mark.parametrize("mode", ["lr_find", "check"])
def test_a_mode_that_produces_no_run_is_refused_before_it_begins(mode: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"produces no run to load: use the command `aetrain mode={mode}` instead"):
        aetrain.run([*TINY, f"mode={mode}"], directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["a,b", "it's", "x=1", "$", "a b", "choice(1)", "'q'", "a,."])
def test_keywords_take_any_path(name: str, tmp_path: Path) -> None:
    (override,) = parse(normalize(keyword_overrides({"dataset.path": tmp_path / name})))
    assert override.value() == str(tmp_path / name)
    (override,) = parse(normalize(keyword_overrides({"hydra.run.dir": tmp_path / name})))
    assert override.value() == str(tmp_path / name)


def test_keywords_and_a_list_are_one_command(tmp_path: Path) -> None:
    words, run_dir = [*TINY, "model=vae"], tmp_path / "a, b's"
    run = aetrain.run(words, optimizer={"lr": 2e-3}, noise=["masking", "gaussian"], directory=run_dir, **{"epochs": 0})
    assert run.directory == run_dir
    assert run.config.optimizer.lr == 0.002
    assert run.config.epochs == 0
    assert run.config.noise.order == ["masking", "gaussian"]
    assert RunDirectory(run_dir).overrides()[-3:-1] == ["noise=masking+gaussian", "epochs=0"]
    with pytest.raises(ConfigError, match="epohcs"):
        aetrain.run("dataset=digits", epohcs=3)
    with pytest.raises(ConfigError, match="model is one of"):
        aetrain.run(model=None)


def blocks() -> list[str]:
    """Return the Python blocks of docs/python.md."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.M | re.S)


def cells() -> list[str]:
    """Return the code cells of the notebook."""
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("\n".join(blocks()), names)
    assert capsys.readouterr().out.startswith(f"<aetrain run {Path('my') / 'run'}: epochs=3, test/loss=")
    assert names["z"].shape == (359, 8)
    assert names["again"].shape == (359, 64)
    assert names["one"].shape == (8,)
    assert names["images"].shape == (16, 1, 8, 8)
    np.testing.assert_allclose(names["same"], names["z"], atol=1e-5)
    assert names["X_again"].shape == (1500, 64)
    assert names["accuracy"] > 0.8
    assert names["search"].best_params_ == {"overrides": {"optimizer.lr": 3e-3}}


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    for cell in cells():
        exec(cell, names)
    assert names["errors"].mean() == pytest.approx(names["run"].metrics["test/sse"], rel=1e-4)
    assert names["accuracy"] > 0.8
    assert names["is_outlier"][~names["is_zero"]].mean() > 0.8
    assert names["is_outlier"][names["is_zero"]].mean() < 0.4
    assert "outliers:" in capsys.readouterr().out
    plt.close("all")


def test_a_notebook_has_a_progress_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert train._progress_bar() is None
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    bar = train._progress_bar()
    assert bar is not None
    state = TrainState(torch.nn.Identity(), seed=0, epochs=2)
    assert len(list(bar(Epoch(), state))) == 3
    assert "epoch 1/2" in capsys.readouterr().err


class Epoch:
    """Three batches."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.zeros(1)] * 3)
