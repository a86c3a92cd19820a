"""The digits that come with scikit-learn: no download, small, for a first run and for tests."""

from dataclasses import dataclass
from typing import final

import torch

from aetrain.data.dataset import Dataset, Images


@final
@dataclass(kw_only=True)
class Digits(Dataset):
    """Handwritten digits of the UCI repository (Alpaydin & Kaynak 1998), as scikit-learn ships them: 1797 of 8x8.

    Grey values 0..16 become 0..255. Every fifth image of a class is for the test: 1438 to train on, 359 to test with.
    """

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 8, 8)."""
        return 1, 8, 8

    def read(self) -> tuple[Images, Images]:
        """The images in scikit-learn's order, in which the classes are well mixed."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = torch.from_numpy(digits.images)  # [1797, 8, 8] float64
        pixels = grey.mul(255 / 16).round().to(torch.uint8).unsqueeze(1)  # [1797, 1, 8, 8]
        labels = torch.from_numpy(digits.target).long()
        images = Images(pixels, labels)
        test = torch.zeros(len(pixels), dtype=torch.bool)
        # Every fifth in the order of classes: the images come in a rhythm of ten, so that counting through them as
        # they are would test with 21 zeros and 52 threes.
        test[labels.argsort(stable=True)[4::5]] = True
        return images[~test], images[test]
