"""Training and evaluation on a CUDA device, skipped where there is none: `pytest -m cuda`."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import command, process
from conftest import TINY
from PIL import Image

import aetrain
from aetrain.config.paths import groups
from aetrain.data.mapped_rows import MappedArray, MappedRows
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.selfcheck.known_answers import gpu_and_cpu_agree
from aetrain.storage import checkpoint

DEVICE = "cuda"
GPU = f"device={DEVICE}"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

MODELS = groups()["model"]
DETERMINISTIC = ("linear", "deep", "tied", "conv", "conv_unpool", "conv_upsample", "conv_layers", "contractive", "lstm")
RBM = ("model.activation=sigmoid", "pretrain.epochs=1")
# An override of each setting that changes the path of a batch or of a step, with a model that allows it.
SETTINGS: Sequence[tuple[str, ...]] = (
    *((f"noise={option}", "model=conv") for option in groups()["noise"] if option not in ("none", "sequence")),
    *((f"penalty={option}", "model=vae") for option in groups()["penalty"] if option not in ("none", "contractive")),
    *((f"sparsity={option}", "model=deep") for option in groups()["sparsity"] if option != "none"),
    *((f"optimizer={option}", "model=vae") for option in groups()["optimizer"]),
    *((f"schedule={option}", "model=deep") for option in groups()["schedule"]),
    ("pretrain=mean", "model=deep"),
    ("pretrain=pca", "model=linear", "likelihood=gaussian"),
    ("pretrain=layerwise", "pretrain.epochs=1", "model=deep"),
    ("pretrain=rbm", *RBM, "model=deep"),
    ("augment=affine", "model=conv"),
    ("likelihood=gaussian", "model=conv_vae"),
    ("dataset.binarize=dynamic", "model=vae"),
    ("dataset=toy", "model=linear", "model.code_dim=2"),
    ("ema=0.9", "model=vae"),
    ("clip_grad_norm=1", "accumulate_grad_batches=2", "model=vae"),
    ("precision=fast", "model=conv_vae"),
    ("compile=true", "model=conv_vae"),
    ("compile=true", "precision=fast", "ema=0.9", "model=vae"),
)


class Stop(KeyboardInterrupt):
    """The interruption of a run after an epoch."""


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets the next run end after the checkpoint of an epoch."""
    save = checkpoint.save

    def after(epoch: int) -> None:
        def save_and_stop(*arguments: Any, **named: Any) -> None:
            save(*arguments, **named)
            if arguments[3].epoch == epoch:
                monkeypatch.setattr(checkpoint, "save", save)
                raise Stop

        monkeypatch.setattr(checkpoint, "save", save_and_stop)

    return after


def metrics(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "metrics.json").read_text())


def history(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if "second" not in name}


def check_exact_resume(
    run: Callable[..., Path], interrupt: Callable[[int], None], overrides: Sequence[str]
) -> tuple[Path, Path]:
    """Check that a run equals one that was interrupted after its first epoch and resumed; return both."""
    overrides = (*TINY, "epochs=3", *overrides, GPU)
    whole = run(*overrides, name="whole")
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        run(*overrides, name="resumed")
    resumed = run(*overrides, name="resumed")
    assert not differences(fingerprint(whole), fingerprint(resumed))
    return whole, resumed


@pytest.mark.parametrize("model", MODELS)
def test_model_trains_and_resumes_exactly(
    model: str, run: Callable[..., Path], interrupt: Callable[[int], None]
) -> None:
    whole, _ = check_exact_resume(run, interrupt, [f"model={model}", "views=default"])
    on_gpu = history(whole)
    assert len(on_gpu) == 4
    # The weights before training are drawn on the CPU, so both devices compute the same metrics from them.
    (on_cpu,) = history(run(*TINY, f"model={model}", "device=cpu", "epochs=0", name="cpu"))
    for name in ("test/nll", "test/sse"):
        assert on_gpu[0][name] == pytest.approx(on_cpu[name], rel=1e-4), name
    if model not in ("sparse_coding", "vqvae"):  # their losses do not fall in each of the first epochs
        assert on_gpu[-1]["train/loss"] < on_gpu[1]["train/loss"]


@pytest.mark.parametrize("overrides", SETTINGS, ids=" ".join)
def test_setting_trains_and_resumes_exactly(
    overrides: Sequence[str], run: Callable[..., Path], interrupt: Callable[[int], None]
) -> None:
    check_exact_resume(run, interrupt, overrides)


@pytest.mark.parametrize("model", DETERMINISTIC)
def test_training_reaches_the_metrics_of_the_cpu(model: str, run: Callable[..., Path]) -> None:
    """One batch is the whole set, since its order comes from the generator of the device."""
    overrides = (*TINY, f"model={model}", "batch_size=64", "epochs=5")
    cpu, gpu = (metrics(run(*overrides, device, name=device)) for device in ("device=cpu", GPU))
    assert gpu.keys() == cpu.keys()
    for name in ("test/loss", "test/nll", "test/sse", "test/psnr", "test/pca_sse", "test/shuffled_sse"):
        # Adam divides the small gradients of saturated units by their size, which enlarges rounding.
        tolerance = 5e-3 if model == "contractive" else 1e-3
        assert gpu[name] == pytest.approx(cpu[name], rel=tolerance), name


# Max-unpooling writes each value to a place of its own, but torch has no form of it that is marked as deterministic.
@pytest.mark.parametrize("model", [model for model in MODELS if model != "conv_unpool"])
def test_no_operation_of_training_depends_on_the_order_of_threads(model: str, run: Callable[..., Path]) -> None:
    """torch raises an error for an operation that has no deterministic form."""
    torch.use_deterministic_algorithms(True)
    try:
        run(*TINY, f"model={model}", GPU)
    finally:
        torch.use_deterministic_algorithms(False)


def test_compiled_step_draws_the_same_random_numbers(
    run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    overrides = (*TINY, "model=vae", "noise=masking", "epochs=3", GPU)
    with caplog.at_level("INFO", "aetrain"):
        plain, compiled = run(*overrides, name="plain"), run(*overrides, "compile=true", name="compiled")
    assert "compiled in" in caplog.text
    for one, other in zip(history(plain), history(compiled), strict=True):
        assert other["test/loss"] == pytest.approx(one["test/loss"], rel=1e-3)


def test_precision_fast_is_near_float32(run: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    overrides = (*TINY, "model=conv", "epochs=5", GPU)
    exact, fast = run(*overrides, name="float32"), run(*overrides, "precision=fast", name="fast")
    assert "precision=fast is float32" not in caplog.text
    assert metrics(fast)["test/loss"] == pytest.approx(metrics(exact)["test/loss"], rel=0.02)
    assert fingerprint(fast)["weights"] != fingerprint(exact)["weights"]


@pytest.mark.parametrize("model", ["vae", "conv_unpool", "vqvae", "lstm", "categorical", "sparse_coding"])
def test_all_views_are_drawn(model: str, run: Callable[..., Path]) -> None:
    overrides = (*TINY, f"model={model}", "views=all", "noise=masking", "epochs=1")
    gpu, cpu = (run(*overrides, device, name=device) for device in (GPU, "device=cpu"))
    names = [sorted(file.name for file in (directory / "figures").iterdir()) for directory in (gpu, cpu)]
    assert names[0] == names[1]
    assert len(names[0]) > 5


# Measures of data of another kind or of other classes than the images of these runs.
OTHER_MEASURES = ("none", "anomaly", "imputation", "recommendation")


@pytest.mark.parametrize("measure", [name for name in groups()["measures"] if name not in OTHER_MEASURES])
def test_measures_are_near_those_of_the_cpu(measure: str, run: Callable[..., Path]) -> None:
    """Both devices evaluate weights that no epoch has trained, and the random numbers of measures differ."""
    overrides = ("dataset=digits", "dataset.subset=500", "model=vae", "epochs=0", "views=none", f"measures={measure}")
    gpu, cpu = (metrics(run(*overrides, device, name=device)) for device in (GPU, "device=cpu"))
    assert gpu.keys() == cpu.keys()
    for name, value in cpu.items():
        if "second" not in name and isinstance(value, float):
            assert gpu[name] == pytest.approx(value, rel=0.25, abs=15 if "probe" in name else 1), name


def test_modes_use_a_run_of_a_gpu(tmp_path: Path) -> None:
    run = [*TINY, "model=conv_vae", "views=reconstructions", GPU, "hydra.run.dir=run"]
    assert command(run, tmp_path).code == 0
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / "query.png")
    for mode in ("eval", "encode", "export", "search"):
        more = ["query=query.png"] if mode == "search" else []
        for device in (GPU, "device=cpu"):
            outcome = command([f"mode={mode}", "run=run", device, *more, f"hydra.run.dir={mode}"], tmp_path)
            assert outcome.code == 0, outcome.err


def test_run_of_a_gpu_is_loaded_and_resumed_on_the_cpu(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert command([*TINY, "model=vae", "epochs=2", GPU, "hydra.run.dir=run"], tmp_path).code == 0
    x = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    trained = aetrain.load(directory)
    assert trained.device.type == "cpu"
    expected = trained.encode(x)
    on_gpu = trained.model.to(DEVICE)
    np.testing.assert_allclose(on_gpu.encode(torch.from_numpy(x).to(DEVICE)).z.detach().cpu(), expected, atol=1e-5)
    assert command(["resume=run", "device=cpu", "epochs=3"], tmp_path).code == 0
    assert command(["resume=run", GPU, "epochs=4"], tmp_path).code == 0
    assert len(history(directory)) == 5


def test_python_interface_takes_and_returns_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    trained = aetrain.run([*TINY, "model=vae", GPU], directory=tmp_path / "run")
    codes = trained.encode(pixels)
    trained.model.to(DEVICE)
    np.testing.assert_allclose(trained.encode(pixels), codes, atol=1e-5)
    assert trained.decode(codes).shape == (5, 1, 8, 8)
    assert trained.sample(3).shape == (3, 1, 8, 8)
    on_gpu = trained.encode(torch.from_numpy(pixels).to(DEVICE))
    assert on_gpu.device.type == DEVICE
    np.testing.assert_allclose(on_gpu.cpu(), codes, atol=1e-5)


def test_estimator_fits_and_transforms() -> None:
    from aetrain.sklearn import Autoencoder

    rows = np.random.default_rng(0).random((64, 12))
    estimator = Autoencoder(code_dim=2, epochs=1, device=DEVICE).fit(rows)
    assert estimator.transform(rows).shape == (64, 2)
    assert np.isfinite(estimator.score(rows))


@pytest.mark.parametrize("launcher", ["packed", "basic"])
def test_sweep_trains_its_runs_on_the_gpu(launcher: str, run: Callable[..., Path], tmp_path: Path) -> None:
    common = [*TINY, "model=vae", "epochs=2", GPU]
    arguments = ["-m", *common, "seed=0,1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    outcome = process(arguments, tmp_path, program=[sys.executable, "-m", "aetrain"])
    assert outcome.code == 0, outcome.err
    assert ("as one pack" in outcome.out) == (launcher == "packed"), outcome.out
    for seed in range(3):
        alone = run(*common, f"seed={seed}", name=f"alone{seed}")
        in_sweep = tmp_path / "sweep" / f"seed={seed}"
        if launcher == "basic":
            assert not differences(fingerprint(alone), fingerprint(in_sweep))
        for name in ("test/loss", "test/sse", "train/loss"):
            if name in metrics(alone):
                assert metrics(in_sweep)[name] == pytest.approx(metrics(alone)[name], rel=1e-3), name


def test_checks_of_the_gpu_pass(tmp_path: Path) -> None:
    from aetrain.selfcheck.known_answers import CheckContext, resume_is_exact_on_gpu

    context = CheckContext(tmp_path, "data")
    assert gpu_and_cpu_agree(context)
    assert "3 kills" in resume_is_exact_on_gpu(context)


def test_images_are_copied_to_the_gpu_once(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch of training is copied from the host: all that an epoch uses is on the device."""
    from aetrain.data.examples import Batches

    devices = []
    iterate = Batches.__iter__

    def record(self: Batches) -> Iterator[torch.Tensor]:
        devices.append(self.values.device.type)
        return iterate(self)

    monkeypatch.setattr(Batches, "__iter__", record)
    run(*TINY, "model=deep", "epochs=2", GPU)
    assert devices == [DEVICE, DEVICE]


def test_images_in_a_file_are_on_the_gpu_where_they_fit_and_train_alike(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "own.npy", images)
    np.savez(tmp_path / "own.npz", images=images)
    settings = ("dataset=npz", "dataset.subset=null", "model=vae", "epochs=2", GPU)
    losses = []
    for suffix, share in (("npz", 0.5), ("npy", 0.5), ("npy", 0.0)):
        monkeypatch.setattr("aetrain.data.mapped_rows.MAX_SHARE_OF_DEVICE", share)
        values = MappedRows.of(MappedArray(images[:, None], ""), (1, 8, 8)).to(torch.device(DEVICE))
        assert isinstance(values, torch.Tensor) == (share > 0)
        name = f"{suffix}{share}"
        run = tiny(*settings, f"dataset.path='{tmp_path / f'own.{suffix}'}'", name=name)
        losses.append(json.loads((run / "metrics.json").read_text())["test/loss"])
    assert losses[0] == losses[1] == losses[2]
