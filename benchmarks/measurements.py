"""Data and measurements that several claims need of a trained run, beside the metrics of the run."""

from collections.abc import Callable

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

from aetrain.api import Trained
from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples, Splits
from aetrain.data.noise import Noise
from aetrain.evaluation import evaluator
from aetrain.model.pca import PCA
from aetrain.storage.run_directory import RunDirectory
from aetrain.views.image_grids import interleave_classes

NUM_IMAGES = 2000  # test images of a measurement


def dataset_of(config: DictConfig) -> Dataset:
    """Return the data set that a config names, before it is read. The global generator is not used."""
    return instantiate(config.dataset, _convert_="all")


def splits_of(run: Trained) -> Splits:
    """Return the images of the run's training and test, as they are stored."""
    return dataset_of(run.config).load()


def pixels(images: Examples, count: int | None = None) -> Tensor:
    """Return the first `count` stored images, or all, as pixels [N, C, H, W] in [0, 1], without crops."""
    return images.pixels[:count].to(torch.float32) / 255


def unseen(run: Trained, count: int = NUM_IMAGES) -> Tensor:
    """Return the first test images as the run's model gets them, [N, C, H, W]; the same at every call."""
    dataset = dataset_of(run.config)
    return dataset.prepare(dataset.load().test[:count].pixels, torch.Generator().manual_seed(1))


def one_of_each_class(images: Examples, count: int = 10) -> Tensor:
    """Return the first image of each class, in the order of the classes, [count, C, H, W] in [0, 1]."""
    return pixels(images[interleave_classes(images.labels, len(images))[:count]])


def noise_of(run: Trained) -> Noise:
    """Return the noise of the run's training."""
    return instantiate(run.config.noise, _convert_="all")


def corrupted(noise: Noise, x: Tensor) -> Tensor:
    """Return noisy images of x [N, C, H, W]; the same at every call."""
    return noise(x, torch.Generator().manual_seed(2))


def setting(run: Trained, key: str) -> float:
    """Return a number of the run's config."""
    return float(OmegaConf.select(run.config, key))


def curve(run: Trained, name: str) -> list[float]:
    """Return a metric at every epoch; the first value is that of the model before training."""
    return [line[name] for line in RunDirectory(run.directory).history()]


def sse(a: Tensor, b: Tensor) -> float:
    """Return the squared error summed over an image's pixels, mean over the images."""
    return evaluator.sse(a, b).mean().item()


def pca_of(images: Examples, k: int) -> PCA:
    """Fit the first k principal directions of stored images."""
    return PCA.fit(pixels(images).split(8192), k)


def pca_sse(data: Splits, k: int) -> float:
    """Return the test error of PCA with k components."""
    x = pixels(data.test)
    return sse(pca_of(data.train, k).reconstruct(x), x)


def knn_accuracy(
    encode: Callable[[Tensor], Tensor], data: Splits, k: int = 10, read: Callable[[Examples], Tensor] = pixels
) -> float:
    """Return the fraction of test examples that the k nearest training codes (Euclidean) classify correctly.

    `read` returns the values of stored examples that are encoded.
    """
    from sklearn.neighbors import KNeighborsClassifier

    assert data.train.labels is not None
    assert data.test.labels is not None
    code, test_code = (encode(read(examples)).numpy() for examples in (data.train, data.test))
    classifier = KNeighborsClassifier(min(k, len(code))).fit(code, data.train.labels.numpy())
    return float(classifier.score(test_code, data.test.labels.numpy()))


def strokes(x: Tensor, reach: int = 1) -> Tensor:
    """Return the mask, like x [N, C, H, W], of pixels above one half and of those within `reach` pixels of one."""
    return F.max_pool2d((x > 0.5).float(), 2 * reach + 1, stride=1, padding=reach) > 0


def smoothness(weights: Tensor, apart: int = 1) -> float:
    """Return the correlation between weights [units, C, h, w] that are `apart` pixels from each other, mean over units.

    It is 0 for noise, and near 1 for patterns that are wider than this distance.
    """
    w = weights - weights.mean((2, 3), keepdim=True)
    horizontal = (w[..., :, apart:] * w[..., :, :-apart]).flatten(1).mean(1)
    vertical = (w[..., apart:, :] * w[..., :-apart, :]).flatten(1).mean(1)
    return float(((horizontal + vertical) / 2 / w.square().flatten(1).mean(1).clamp_min(1e-12)).mean())


def rating_errors(run: Trained) -> dict[str, float]:
    """Return the errors of a run and of its baselines on held-out ratings, by their names in tables."""
    titles = {
        "rmse": "RMSE",
        "mae": "MAE",
        "bias_rmse": "RMSE of user + item offsets",
        "mean_rmse": "RMSE of the mean rating",
    }
    return {title: run.metrics[f"test/{name}"] for name, title in titles.items()}


def recommendation_metrics(run: Trained) -> dict[str, float]:
    """Return the recall and the NDCG of a run and of its baselines on held-out users, by their names in tables."""
    titles = {"recall_20": "recall at 20", "recall_50": "recall at 50", "ndcg_100": "NDCG at 100"}
    others = {"": "", "_svd": ", SVD", "_popularity": ", popularity"}
    return {
        f"{title}{other}": run.metrics[f"test/{name}{suffix}"]
        for name, title in titles.items()
        for suffix, other in others.items()
    }
