"""The interface of a data set: examples that are read once and split once, and the settings common to all data sets.

Shapes: N examples, C channels, H height, W width, D features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from aetrain.data.class_numbers import classes_without_training_images, number_classes
from aetrain.data.class_selection import ClassSelection
from aetrain.data.columns import Columns
from aetrain.data.examples import Examples, Prepare, Splits
from aetrain.data.hidden_values import check_share, hide_values
from aetrain.data.rows import join_splits, number_rows
from aetrain.data.user_files import abbreviate
from aetrain.data.vector_format import VectorFormat
from aetrain.model.records import Kind, noun_of

# Seeds all that must be equal in every run: the examples held out, the static binarisation, the hidden values.
SPLIT_SEED = 20061107


def fixed_order(count: int) -> Tensor:
    """Return the same shuffled indices [count] in every run, because files are often sorted by class."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


@dataclass(kw_only=True)
class Dataset(ABC):
    """A source of examples. A subclass reads them; the settings below are those of every data set.

    `classes` keeps the examples of these classes and numbers the classes 0..K-1 in this order; `train_classes` keeps
    these classes in training alone. A class is given by its name or by its number in the data set.
    `subset` keeps that many training examples, `test_subset` that many test examples. `validation` holds that many
    training examples out, unless the source has validation examples of its own. `missing` is the share of values, drawn
    once, that are hidden from the model; evaluation compares reconstructions with all values. `single_set` makes all
    examples of the source both the training and the test set, as clustering has it.

    After `load`, `conversions` has sentences about the conversions of the examples, and `warnings` about likely
    mistakes.
    """

    kind: ClassVar[Kind]

    classes: Sequence[int | str] | None = None
    train_classes: Sequence[int | str] | None = None
    subset: int | None = None
    test_subset: int | None = None
    validation: int = 0
    missing: float = 0.0
    single_set: bool = False
    conversions: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    warnings: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._class_selection()
        for name, count in (("subset", self.subset), ("test_subset", self.test_subset)):
            if count is not None and count < 1:
                raise ValueError(f"{name}={count} is too small: use at least 1 {self.noun}, or null for all of them")
        if self.validation < 0:
            raise ValueError(
                f"validation={self.validation} is negative: use the number of {self.noun}s to hold out, or 0"
            )
        check_share(self.missing)
        if self.single_set:
            self._check_single_set()

    def _check_single_set(self) -> None:
        """Raise ValueError for a setting that needs a training and a test set."""
        defaults = {"train_classes": None, "validation": 0, "missing": 0.0}
        for name, default in defaults.items():
            if (value := getattr(self, name)) != default:
                raise ValueError(
                    f"single_set=true has no test {self.noun}s of their own, which {name}={value} needs: leave one out"
                )

    @property
    def noun(self) -> str:
        """The word for an example in messages."""
        return noun_of(self.kind)

    @property
    @abstractmethod
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a stored image, known without reading the images; (1, 1, D) of a vector."""

    @abstractmethod
    def read(self) -> tuple[Examples, ...]:
        """Return all training and all test examples in their original order; third, validation examples of the source.

        Labels may be any integers; those of a source without class names are numbered 0..K-1 by `load`.
        """

    def read_undivided(self) -> tuple[Examples, ...]:
        """Return the examples of `read` for uses without splits; a data set that divides its rows leaves that out."""
        return self.read()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a model's input."""
        return self.stored_shape

    @property
    def scale(self) -> tuple[float, float]:
        """The range of pixels inside the network; (0, 1), without a conversion, for other examples."""
        return 0.0, 1.0

    @property
    def binarize(self) -> str:
        """The binarisation of pixels."""
        return "none"

    @property
    def prepare(self) -> Prepare:
        """The conversion of stored values to a batch."""
        return Prepare()

    @property
    def has_missing(self) -> bool:
        """Tell whether values may be missing (NaN)."""
        return self.missing > 0

    @property
    def has_integers(self) -> bool:
        """Tell whether values are whole numbers, so that counts have a probability: not weights such as tf-idf."""
        return self.kind == "counts"

    @property
    def hidden_together(self) -> Tensor | None:
        """The group [D] of each value of an example: `missing` hides a group as a whole; None for each by itself."""
        return None

    @property
    def vector_format(self) -> VectorFormat:
        """The names and the units of the D features outside of the model."""
        return VectorFormat(Columns.numbered(self.stored_shape[-1]))

    def files(self) -> tuple[Sequence[str], ...] | None:
        """Return the names of the examples of each split in the order of `read`; None where they have no names."""
        return None

    def fitted_state(self) -> Mapping[str, Any]:
        """Return all that has been learnt from the training examples, such as a vocabulary, as JSON; {} for nothing.

        It is saved with a run. `restore` makes a data set that converts new examples in the same way.
        """
        return {}

    @property
    def state_format(self) -> str:
        """The name of the format of `fitted_state`: data sets of one format can restore the state of each other."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027, most data sets learn nothing
        """Take the `fitted_state` of a saved run, so that shapes and conversions are known without its data."""

    def baseline_metrics(self, test: Examples) -> Mapping[str, float]:
        """Return metrics of predictions without a model on loaded test examples, by name; {} for none."""
        return {}

    def load(self) -> Splits:
        """Read the examples, number their classes, split them, and make the conversions that are made once.

        Raise ValueError where classes are selected and the examples have none, or not these.
        """
        self.conversions.clear()
        self.warnings.clear()
        examples = number_rows(self._number_and_check(self.read()), self.files())
        if len(examples[0]) and (missing := classes_without_training_images(examples)):
            self.add_warning(f"test {self.noun}s are of classes without training {self.noun}s: {abbreviate(missing)}")
        self._class_selection().check_labels(examples[0])
        splits = self.split_examples(*examples)
        if self.single_set:  # converted once, so that a random conversion is the same in training and test
            everything = self._convert(splits[0], 0)
            test = self._cut(everything, self.test_subset, "test ", "test_subset")
            return Splits(everything, splits[1], test, single_set=True)
        train, validation, test = (self._convert(split, number) for number, split in enumerate(splits))
        return Splits(train, validation, test)

    def load_all(self) -> Examples:
        """Return all examples in the order of their rows, without a split.

        `classes` selects among them, `subset` keeps that many. Raise ValueError as `load`.
        """
        self.conversions.clear()
        self.warnings.clear()
        examples = join_splits(number_rows(self._number_and_check(self.read_undivided()), self.files()))
        selection = ClassSelection(self.classes)
        selection.check_labels(examples)
        if selection.is_active:
            (examples,) = selection.select([examples])
        return self._convert(self._cut(examples, self.subset, "", "subset"), 0)

    def check_examples(self, examples: Sequence[Examples]) -> None:  # noqa: B027, an option
        """Warn of likely mistakes in the examples of `read`."""

    def convert(self, examples: Examples, split_number: int) -> Examples:
        """Return the examples of a split (training, validation, test) after the conversions that are made once."""
        return examples

    def _convert(self, examples: Examples, split_number: int) -> Examples:
        examples = self.convert(examples, split_number)
        if not self.missing:
            return examples
        seed, groups = SPLIT_SEED + split_number, self.hidden_together
        return hide_values(examples, self.missing, self.prepare, seed, split_number == 0, groups)

    def split_examples(
        self, train: Examples, test: Examples, validation: Examples | None = None
    ) -> tuple[Examples, Examples, Examples]:
        """Return training, validation and test images, after the settings that select classes and numbers of images.

        The arguments are the images of `read`. Raise ValueError where no training image would be left.
        """
        images = [train, test] if validation is None else [train, test, validation]
        selection = self._class_selection()
        if selection.is_active:
            images = selection.select(images)
        if self.single_set:
            everything = self._cut(join_splits(images), self.subset, "", "subset")
            return everything, everything[:0], everything
        train, test = images[:2]
        if validation is not None:
            validation = images[2]
        else:
            train, validation = self._hold_out(train)
        train = self._cut(train, self.subset, "training ", "subset")
        return train, validation, self._cut(test, self.test_subset, "test ", "test_subset")

    def check_own_validation(self, source: str) -> None:
        """Raise ValueError where `validation` is set although the source, a folder or array, has validation images."""
        if self.validation:
            raise ValueError(
                f"validation={self.validation} holds training {self.noun}s out, but {source} has the validation "
                f"{self.noun}s: use 0"
            )

    def _number_and_check(self, splits: Sequence[Examples]) -> list[Examples]:
        """Return the examples of `read` with classes 0..K-1, and warn of likely mistakes."""
        examples = number_classes(splits)
        self.check_examples(examples)
        return examples

    def _hold_out(self, train: Examples) -> tuple[Examples, Examples]:
        """Return the training images that are left after `validation`, and the validation images."""
        if self.validation and self.validation >= len(train):
            raise ValueError(
                f"validation={self.validation} leaves nothing to train on: there are {len(train)} training {self.noun}s"
            )
        order = fixed_order(len(train))
        if not self.validation:
            return train, train[order[:0]]
        return train[order[self.validation :].sort().values], train[order[: self.validation]]

    def _cut(self, images: Examples, count: int | None, split: str, setting: str) -> Examples:
        """Return at most `count` images, the same ones in every run."""
        if count is None or count >= len(images):
            return images
        self.add_conversion(f"dataset.{setting} keeps {count:,} of {len(images):,} {split}{self.noun}s")
        return images[fixed_order(len(images))[:count].sort().values]

    def add_conversion(self, text: str) -> None:
        """Add a sentence about a conversion of the images, or about images that were left out."""
        if text not in self.conversions:
            self.conversions.append(text)

    def add_warning(self, text: str) -> None:
        """Add a sentence about a likely mistake in the images."""
        if text not in self.warnings:
            self.warnings.append(text)

    def _class_selection(self) -> ClassSelection:
        return ClassSelection(self.classes, self.train_classes)
