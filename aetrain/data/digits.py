"""The digits of scikit-learn: a small data set without a download, for a first run and for tests."""

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.data.image_dataset import ImageDataset
from aetrain.utils.compat import scikit_learn_file


@final
@dataclass(kw_only=True)
class Digits(ImageDataset):
    """Handwritten digits of the UCI repository (Alpaydin & Kaynak 1998), as scikit-learn ships them: 1797 of 8x8.

    Grey values 0..16 become 0..255. Every fifth image of a class is for testing: 1438 to train on, 359 to test with.
    """

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 8, 8)."""
        return 1, 8, 8

    def read(self) -> tuple[Examples, Examples]:
        """Return the training and test images in scikit-learn's order, which mixes the classes."""
        pixels, labels = _load()
        images = Examples(pixels, labels, rows=torch.arange(len(pixels)))
        is_test = torch.zeros(len(pixels), dtype=torch.bool)
        # Every fifth in the order of classes. In the stored order the classes have a period of about ten, so that every
        # fifth image would put 21 zeros and 52 threes into the test set.
        is_test[labels.argsort(stable=True)[4::5]] = True
        return images[~is_test], images[is_test]


@cache
def _load() -> tuple[Tensor, Tensor]:
    """Return the pixels [1797, 1, 8, 8] and labels [1797] of scikit-learn's file: 64 grey values and a label a line.

    They are those of `sklearn.datasets.load_digits`, whose import takes longer than a small run.
    """
    table = torch.from_numpy(np.loadtxt(scikit_learn_file("digits.csv.gz"), delimiter=","))  # [1797, 65] float64
    grey = table[:, :-1].reshape(-1, 1, 8, 8)
    return grey.mul(255 / 16).round().to(torch.uint8), table[:, -1].long()
