"""The metrics that the README and the documents promise, on the real MNIST. Skipped where there is no data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import aetrain
from aetrain.config.paths import groups
from aetrain.data.examples import in_order
from aetrain.data.mnist import Mnist
from aetrain.evaluation import evaluator, image_errors
from aetrain.model.pca import PCA

pytestmark = [pytest.mark.data, pytest.mark.slow]

Run = Callable[..., Path]


@pytest.fixture
def full(run: Run, data_dir: Path) -> Run:
    """Return a function that runs an experiment in full, on the real data, without pictures."""

    def full(*overrides: str, name: str = "run") -> Path:
        return run(*overrides, f"data_dir={data_dir}", "device=cpu", "views=none", name=name)

    return full


def metrics(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "metrics.json").read_text())
    return content


def history(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def test_known_answers_on_mnist(data_dir: Path) -> None:
    """PCA-30, the mean image and the entropy of the pixels fix the units of all other metrics."""
    dataset = Mnist(path=str(data_dir))
    splits = dataset.load()
    train = in_order(splits.train, 8192, dataset.prepare)
    pca = PCA.fit(train, 30)
    x = torch.cat(list(in_order(splits.test, 10_000, dataset.prepare)))
    assert abs(evaluator.sse(pca.reconstruct(x), x).mean() - 13.866) < 0.01
    mean = pca.mean.view(1, 1, 28, 28).expand_as(x)
    assert abs(evaluator.sse(mean, x).mean() - 52.897) < 0.01
    assert abs(image_errors.bce(mean, x).mean() - 205.80) < 0.05
    assert abs(image_errors.entropy(x).mean() - 45.535) < 0.01


def test_linear_autoencoder_reaches_the_error_of_pca(full: Run) -> None:
    directory = full("experiment=linear_is_pca")
    final = metrics(directory)
    assert abs(final["test/pca_sse"] - 13.866) < 0.001
    assert final["test/sse"] < 1.01 * final["test/pca_sse"]
    assert final["test/pca_angle"] < 5
    assert history(directory)[-1]["train/nll"] > 14.2, "no affine map of rank 30 is better than PCA"


def test_pretrain_pca_is_exact(full: Run) -> None:
    final = metrics(full("experiment=linear_is_pca", "pretrain=pca", "epochs=0"))
    assert abs(final["test/sse"] - final["test/pca_sse"]) < 1e-3
    assert final["test/pca_angle"] < 0.1


def test_vae_reaches_the_published_elbo(full: Run) -> None:
    epochs = history(full("experiment=vae"))
    assert epochs[7]["test/neg_elbo"] <= 107
    assert epochs[10]["test/neg_elbo"] <= 106.5


def test_deep_sigmoid_halves_the_error_of_pca_2_and_keeps_the_digits(full: Run) -> None:
    directory = full("experiment=deep_sigmoid")
    assert metrics(directory)["test/sse"] <= 43.6 / 2
    # A classifier of raw pixels recognises the digit in the reconstruction.
    trained = aetrain.load(directory)
    dataset = Mnist(path=trained.config.data_dir)
    splits = dataset.load()
    train = dataset.prepare(splits.train.pixels[:20_000]).flatten(1)
    x = dataset.prepare(splits.test.pixels[:1000])
    reconstructions = trained.reconstruct(x).flatten(1)
    nearest = torch.cdist(reconstructions, train).argmin(1)
    assert (splits.train.classes[nearest] == splits.test.classes[:1000]).float().mean() > 0.9


def test_sparse_units_have_the_target_activity_and_become_strokes(full: Run) -> None:
    sparse = full("experiment=sparse_kl_crops", name="kl")
    plain = full("experiment=sparse_kl_crops", "sparsity=none", name="none")
    assert 0.008 < metrics(sparse)["test/code_mean"] < 0.012
    # A stroke is smooth: neighbouring pixels are similar. The weights of a unit that copies pixels are noise.
    assert smoothness(sparse) > smoothness(plain) + 0.3


def smoothness(directory: Path) -> float:
    """Return the correlation of neighbouring pixels in the weights of the first layer, mean over units."""
    weights = aetrain.load(directory).model.first_layer_weights().detach()[:, 0]
    weights = weights - weights.mean((1, 2), keepdim=True)
    return float(((weights[:, :, 1:] * weights[:, :, :-1]).sum((1, 2)) / weights.square().sum((1, 2))).mean())


def test_denoising_has_a_lower_error_than_a_plain_autoencoder(full: Run) -> None:
    denoising = metrics(full("experiment=denoising_masking", name="noise"))
    plain = full("experiment=denoising_masking", "noise=none", name="plain")
    aetrain.run(["mode=eval", f"run={plain}", "noise=masking", "noise.p=0.3"])
    (directory,) = (plain / "eval").iterdir()
    assert denoising["test/noisy_sse"] < 0.7 * metrics(directory)["test/noisy_sse"]


@pytest.mark.usefixtures("small_figures")
@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_runs(name: str, run: Run, data_dir: Path) -> None:
    """One epoch on a few images, with all pictures; docs/experiments.md has the results of full runs."""
    from omegaconf import DictConfig, OmegaConf

    from aetrain.config.paths import CONFIG_DIR

    experiment = OmegaConf.load(CONFIG_DIR / "experiment" / f"{name}.yaml")
    assert isinstance(experiment, DictConfig)
    path = []
    if {"override /dataset": "newsgroups"} in experiment.get("defaults", []):
        path = [f"dataset.path={data_dir / 'text' / '20newsgroups.csv.gz'}"]
    pretraining = ["pretrain.epochs=1"] if OmegaConf.select(experiment, "pretrain.epochs") is not None else []
    directory = run(
        *(f"experiment={name}", f"data_dir={data_dir}", "epochs=1", "measures=none"),
        *("dataset.subset=500", "dataset.test_subset=300"),
        *pretraining,
        *path,
    )
    assert metrics(directory)["status"] == "finished"
    if aetrain.load(directory).dataset.kind == "image":
        assert (directory / "figures" / "reconstructions.png").is_file()
    benchmarks = Path(__file__).resolve().parent.parent / "benchmarks"
    pages = [*(benchmarks / "published").glob("*.py"), benchmarks / "likelihood.py"]
    has_claim = (benchmarks / "claims" / f"{name}.py").is_file()
    is_in_a_table = any(f'"experiment={name}"' in page.read_text() for page in pages)
    assert has_claim or is_in_a_table, "an experiment needs a claim or a row of a table"
