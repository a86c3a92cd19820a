"""The selection of classes: `dataset.classes` for all images, `dataset.train_classes` for training images alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aetrain.data.examples import Examples
from aetrain.model.records import noun_of

Class = int | str  # its number in the data set, or its name


@dataclass(frozen=True)
class ClassSelection:
    """The classes to keep in all images and in training images; None keeps all of them.

    Raise ValueError where a selection is empty.
    """

    classes: Sequence[Class] | None = None
    train_classes: Sequence[Class] | None = None

    def __post_init__(self) -> None:
        for setting, classes in self._settings():
            if not classes:
                raise ValueError(f"{setting}=[] keeps no examples: name at least one class, or use null for all")

    @property
    def is_active(self) -> bool:
        """Tell whether any class is left out or renumbered."""
        return bool(self._settings())

    def check_labels(self, images: Examples) -> None:
        """Raise ValueError where classes are selected from images without labels."""
        for setting, classes in self._settings():
            if images.labels is None:
                noun = noun_of(images.kind)
                raise ValueError(
                    f"{setting}={_format(classes)} needs {noun}s with classes, but these have none: use null"
                )

    def select(self, images: Sequence[Examples]) -> list[Examples]:
        """Return the kept images of each split, with new class numbers.

        The splits are training, test and, where the source has it, validation, which keeps the classes of training.
        With `classes` the numbers 0..K-1 follow its order; without it they stay. Raise ValueError where the images have
        no labels, a class is unknown or named twice, or an image set would be empty.
        """
        self.check_labels(images[0])
        names = known_classes(*images)
        kept = list(names) if self.classes is None else class_numbers("classes", self.classes, names)
        train_kept = kept
        if self.train_classes is not None:
            train_kept = class_numbers("train_classes", self.train_classes, names)
            self._check_subset(train_kept, kept, names)
        kept_of_splits = {"training": train_kept, "test": kept, "validation": train_kept}
        selected = []
        for (split, split_kept), split_images in zip(kept_of_splits.items(), images, strict=False):
            rows = torch.isin(split_images.classes, torch.tensor(split_kept)).nonzero().flatten()
            if not len(rows):
                settings = " and ".join(f"{setting}={_format(classes)}" for setting, classes in self._settings())
                noun = noun_of(split_images.kind)
                raise ValueError(f"{settings} leaves no {split} {noun}s: use classes that have some")
            selected.append(split_images[rows])
        if self.classes is None:
            return selected
        kept_names = tuple(names[number] for number in kept)
        return [renumber(split_images, kept, kept_names) for split_images in selected]

    def _settings(self) -> list[tuple[str, Sequence[Class]]]:
        """Return the names and values of the settings that are not null."""
        settings = (("classes", self.classes), ("train_classes", self.train_classes))
        return [(setting, classes) for setting, classes in settings if classes is not None]

    def _check_subset(self, train_kept: Sequence[int], kept: Sequence[int], names: dict[int, str]) -> None:
        """Raise ValueError where training would have a class that `classes` leaves out."""
        left_out = [names[number] for number in train_kept if number not in kept]
        if left_out:
            raise ValueError(
                f"train_classes={_format(self.train_classes or ())}: {', '.join(left_out)} not in "
                f"classes={_format(self.classes or ())}: add to classes, or remove from train_classes"
            )


def known_classes(*splits: Examples) -> dict[int, str]:
    """Return the names of a data set's classes by number; classes without names are those that have images."""
    if splits[0].class_names:
        return dict(enumerate(splits[0].class_names))
    numbers = torch.cat([images.classes for images in splits]).unique().tolist()
    return {number: str(number) for number in numbers}


def class_numbers(setting: str, classes: Sequence[Class], names: dict[int, str]) -> list[int]:
    """Return the numbers of classes named by number or name; ValueError where one is unknown or named twice.

    Where all names are integers, such as the values of labels, an integer is a name.
    """
    values = integer_names(names)
    integers = {number: number for number in names} if values is None else values
    by_name: dict[Class, int] = {name: number for number, name in names.items()}
    by_name.update((integer, number) for integer, number in integers.items())
    numbers = []
    for number_or_name in classes:
        number = by_name.get(number_or_name)
        if number is None:
            choices = ", ".join(_describe(number, name, values) for number, name in names.items())
            raise ValueError(
                f"{setting}={_format(classes)}: no class {number_or_name!r} in this data set: use {choices}"
            )
        if number in numbers:
            raise ValueError(f"{setting}={_format(classes)} has {names[number]} twice: remove one")
        numbers.append(number)
    return numbers


def integer_names(names: dict[int, str]) -> dict[int, int] | None:
    """Return the numbers of classes by their names as integers; None where not every name is another integer."""
    try:
        values = {int(name): number for number, name in names.items()}
    except ValueError:
        return None
    return values if len(values) == len(names) else None


def renumber(images: Examples, kept: Sequence[int], names: tuple[str, ...]) -> Examples:
    """Return images with the classes `kept` numbered 0..K-1 under `names`; images without labels are unchanged."""
    if images.labels is None:
        return images
    order = torch.tensor(kept)
    ascending = order.argsort()
    labels: Tensor = ascending[torch.searchsorted(order[ascending], images.labels)]  # [N]
    return replace(images, labels=labels, class_names=names)


def _format(classes: Sequence[Class]) -> str:
    return f"[{','.join(map(str, classes))}]"


def _describe(number: int, name: str, values: dict[int, int] | None) -> str:
    return name if values is not None else f"{number} ({name})"
