"""What claims need to know of trained runs: the data they saw, and what is measured beside what is in their metrics."""

from collections.abc import Callable

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

from aetrain.api import Trained
from aetrain.data.dataset import Dataset
from aetrain.data.images import Images, Splits
from aetrain.data.noise import Noise
from aetrain.evaluation import evaluator
from aetrain.model.pca import PCA
from aetrain.storage.run_directory import RunDirectory
from aetrain.views.images import interleave_classes

COUNT = 2000  # test images that are measured


def dataset_of(config: DictConfig) -> Dataset:
    """The data set that a config names, unread. The global generator is left alone, so a claim may draw from it."""
    return instantiate(config.dataset, _convert_="all")


def splits_of(run: Trained) -> Splits:
    """The images that a run was trained and tested on, as they are stored."""
    return dataset_of(run.config).load()


def pixels(images: Images, count: int | None = None) -> Tensor:
    """The first stored images, or all, whole: [count, C, H, W] in [0, 1]."""
    return images.pixels[:count].to(torch.float32) / 255


def unseen(run: Trained, count: int = COUNT) -> Tensor:
    """The first test images as the run's model is shown them, [N, C, H, W]; the same ones at every call."""
    dataset = dataset_of(run.config)
    return dataset.prepare(dataset.load().test[:count].pixels, torch.Generator().manual_seed(1))


def one_of_each_class(images: Images, count: int = 10) -> Tensor:
    """The first image of each class, in the classes' order, [count, C, H, W] in [0, 1]."""
    return pixels(images[interleave_classes(images.labels, len(images))[:count]])


def noise_of(run: Trained) -> Noise:
    """The noise that a run was trained with."""
    return instantiate(run.config.noise, _convert_="all")


def corrupted(noise: Noise, x: Tensor) -> Tensor:
    """The same noisy images at every call."""
    return noise(x, torch.Generator().manual_seed(2))


def setting(run: Trained, key: str) -> float:
    """A number from a run's config."""
    return float(OmegaConf.select(run.config, key))


def curve(run: Trained, name: str) -> list[float]:
    """A figure at every epoch, the model before training first."""
    return [line[name] for line in RunDirectory(run.directory).history()]


def sse(a: Tensor, b: Tensor) -> float:
    """Squared error summed over an image's pixels, mean over the images."""
    return evaluator.sse(a, b).mean().item()


def pca_of(images: Images, k: int) -> PCA:
    """The first k principal directions of whole images."""
    return PCA.fit(pixels(images).split(8192), k)


def pca_sse(data: Splits, k: int) -> float:
    """Test error of PCA with k components."""
    x = pixels(data.test)
    return sse(pca_of(data.train, k).reconstruct(x), x)


def knn_accuracy(encode: Callable[[Tensor], Tensor], data: Splits, k: int = 10) -> float:
    """Share of test images whose k nearest training codes (Euclidean) vote for their class."""
    from sklearn.neighbors import KNeighborsClassifier

    assert data.train.labels is not None
    assert data.test.labels is not None
    code, test_code = (encode(pixels(images)).numpy() for images in (data.train, data.test))
    classifier = KNeighborsClassifier(min(k, len(code))).fit(code, data.train.labels.numpy())
    return float(classifier.score(test_code, data.test.labels.numpy()))


def strokes(x: Tensor, reach: int = 1) -> Tensor:
    """Where there is ink (above one half) or a pixel beside it, as bools like x."""
    return F.max_pool2d((x > 0.5).float(), 2 * reach + 1, stride=1, padding=reach) > 0


def smoothness(weights: Tensor, apart: int = 1) -> float:
    """Mean over units of the correlation between weights so many pixels apart, [units, C, h, w].

    0 for noise, towards 1 for strokes and blots that are wider than that.
    """
    w = weights - weights.mean((2, 3), keepdim=True)
    along = (w[..., :, apart:] * w[..., :, :-apart]).flatten(1).mean(1)
    down = (w[..., apart:, :] * w[..., :-apart, :]).flatten(1).mean(1)
    return float(((along + down) / 2 / w.square().flatten(1).mean(1).clamp_min(1e-12)).mean())
