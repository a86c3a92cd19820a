"""Data sets that are generated for tests: counts, and one-hot vectors. The settings of images change nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples, Prepare
from aetrain.data.image_dataset import ImageDataset
from aetrain.model.records import Kind

NUM_FEATURES = 12
CATEGORIES = (4, 8)  # of two columns


@dataclass(kw_only=True)
class Counts(ImageDataset):
    """Draws from one of two distributions of features, the class."""

    kind: ClassVar[Kind] = "counts"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return 1, 1, NUM_FEATURES

    @property
    def prepare(self) -> Prepare:
        return Prepare()

    def check_examples(self, examples: Sequence[Examples]) -> None:
        pass

    def read(self) -> tuple[Examples, ...]:
        generator = torch.Generator().manual_seed(0)
        return self._examples(120, generator), self._examples(40, generator)

    def _examples(self, count: int, generator: torch.Generator) -> Examples:
        labels = torch.arange(count) % 2
        values = self._values(labels, generator)
        return Examples(values.view(count, 1, 1, NUM_FEATURES), labels, kind=self.kind)

    def _values(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        rates = torch.linspace(0.2, 3, NUM_FEATURES)
        return torch.poisson(torch.stack([rates, rates.flip(0)])[labels], generator=generator)


@dataclass(kw_only=True)
class Categories(Counts):
    """Two columns of categories as one-hot features; the first depends on the class."""

    kind: ClassVar[Kind] = "vector"

    def _values(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        columns = []
        for size in CATEGORIES:
            drawn = torch.randint(size // 2, (len(labels),), generator=generator)
            columns.append(torch.nn.functional.one_hot(labels + 2 * drawn, size).float())
        return torch.cat(columns, 1)


def overrides_of(dataset: type[Dataset]) -> list[str]:
    """Return the overrides that put a data set in the place of an image data set."""
    return [f"dataset._target_=generated_data.{dataset.__name__}"]


# The data set of each likelihood of other data than images.
DATA_OF_LIKELIHOOD = {
    "poisson": overrides_of(Counts),
    "multinomial": overrides_of(Counts),
    "categorical": overrides_of(Categories),
}
