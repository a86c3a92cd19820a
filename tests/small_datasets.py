"""Small data sets of vectors, counts and ratings, with names of their features, as options of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from aetrain.data.dataset import Dataset
from aetrain.data.examples import Examples
from aetrain.data.sparse_rows import SparseRows
from aetrain.model.records import Kind

TOPICS = ("space", "cars", "faith")
WORDS = (
    *("orbit", "moon", "launch", "nasa"),
    *("engine", "wheel", "dealer", "brake"),
    *("church", "bible", "prayer", "belief"),
)
COLUMNS = ("height", "weight", "age", "income")
FILMS = tuple(f"The Return of the Film with Quite a Long Title, Part {part} ({1990 + part})" for part in range(8))
NUM_ROWS = 90


def draw(*shape: int, seed: int) -> Tensor:
    """Return numbers from N(0, 1) [shape], the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def topics(count: int) -> Tensor:
    """Return the topics [count] of examples."""
    return torch.arange(count) % len(TOPICS)


def document_counts(count: int = NUM_ROWS, seed: int = 0) -> Tensor:
    """Return counts of words [count, D]; those of a document's topic are more frequent."""
    rates = torch.full((count, len(WORDS)), 0.4)
    for word in range(len(WORDS)):
        rates[topics(count) == word // 4, word] = 3.0
    return torch.poisson(rates, generator=torch.Generator().manual_seed(seed))


def table_values(count: int = NUM_ROWS, seed: int = 0) -> Tensor:
    """Return columns [count, 4] of which the first two rise and fall together, with the third against them."""
    hidden = draw(count, 1, seed=seed) + topics(count)[:, None] - 1
    return hidden * torch.tensor([1.0, 1.0, -1.0, 0.0]) + 0.3 * draw(count, len(COLUMNS), seed=seed + 1)


def star_ratings(count: int = NUM_ROWS, seed: int = 0) -> Tensor:
    """Return ratings [count, D] from 0.5 to 5, about half of them NaN; users like the first or the second half."""
    taste = draw(count, 1, seed=seed).sign() * torch.tensor([1.0] * 4 + [-1.0] * 4)
    ratings = (3 + taste + 0.3 * draw(count, len(FILMS), seed=seed + 1)).clamp(0.5, 5)
    return ratings.masked_fill(draw(count, len(FILMS), seed=seed + 2) < 0, torch.nan)


@dataclass(kw_only=True)
class Words(Dataset):
    """Sparse counts of words in documents of three topics."""

    kind: ClassVar[Kind] = "counts"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, 12)."""
        return 1, 1, len(WORDS)

    def read(self) -> tuple[Examples, Examples]:
        """Return the training and the test documents."""
        from scipy.sparse import csr_array

        splits = []
        for seed in (0, 1):
            rows = SparseRows(csr_array(document_counts(seed=seed).numpy()))
            splits.append(Examples(rows, topics(NUM_ROWS), TOPICS, kind=self.kind, feature_names=WORDS))
        return splits[0], splits[1]


@dataclass(kw_only=True)
class People(Dataset):
    """A table of four columns."""

    kind: ClassVar[Kind] = "vector"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, 4)."""
        return 1, 1, len(COLUMNS)

    def read(self) -> tuple[Examples, Examples]:
        """Return the training and the test rows."""
        splits = []
        for seed in (0, 5):
            values = table_values(seed=seed)[:, None, None]
            splits.append(Examples(values, topics(NUM_ROWS), TOPICS, kind=self.kind, feature_names=COLUMNS))
        return splits[0], splits[1]


@dataclass(kw_only=True)
class Stars(Dataset):
    """Ratings of films by users, half of them missing; those of a test user are held out by a third."""

    kind: ClassVar[Kind] = "ratings"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, 8)."""
        return 1, 1, len(FILMS)

    @property
    def has_missing(self) -> bool:
        """True."""
        return True

    def read(self) -> tuple[Examples, Examples]:
        """Return the users in training and in the test, who have targets."""
        train, complete = star_ratings()[:, None, None], star_ratings(seed=7)[:, None, None]
        hidden = draw(*complete.shape, seed=9) > 0.5
        test = Examples(complete.masked_fill(hidden, torch.nan), kind=self.kind, feature_names=FILMS, targets=complete)
        return Examples(train, kind=self.kind, feature_names=FILMS), test


OPTIONS = {"words": ("counts", "Words"), "people": ("vectors", "People"), "stars": ("ratings", "Stars")}


def write_options(folder: Path) -> Path:
    """Write the data sets as options below a folder for `--config-dir`, and return it."""
    (folder / "dataset").mkdir(parents=True)
    for option, (base, name) in OPTIONS.items():
        text = f"defaults: [/base_{base}@_here_, _self_]\n_target_: small_datasets.{name}\n"
        (folder / "dataset" / f"{option}.yaml").write_text(text)
    return folder
