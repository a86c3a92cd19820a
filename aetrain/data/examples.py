"""Examples: stored as they are, in memory or in a mapped file, prepared for a model one batch at a time.

An example is an image [C, H, W], or a vector of D features [1, 1, D], in which NaN stands for a missing value.
Shapes: N examples, B batch, C channels, H height, W width, D features.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aetrain.data.mapped_rows import MappedRows
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.user_files import abbreviate
from aetrain.model.records import Kind

MAX_BATCH_VALUES = 2**23  # of a batch in evaluation, which bounds the memory of large images

Values = Tensor | SparseRows | MappedRows  # [N, C, H, W]: uint8 of images, float32 of vectors


@dataclass(frozen=True)
class Examples:
    """Stored examples, and their classes, generative factors and names of features where these are known."""

    values: Values  # [N, C, H, W]
    labels: Tensor | None = None  # [N] int64
    class_names: tuple[str, ...] = ()  # of the classes 0, 1, ...; empty where the classes are numbers only
    factors: Tensor | None = None  # [N, F] float32: the values from which each image was generated
    factor_names: tuple[str, ...] = ()  # of the F factors
    rows: Tensor | None = None  # [N] int64: the place of each image in the order of its data set (data/rows.py)
    file_names: tuple[str, ...] = ()  # of all rows of the data set; empty where the examples have no names
    kind: Kind = "image"
    feature_names: tuple[str, ...] = ()  # of the D features of a vector, such as words; empty for images
    targets: Values | None = None  # [N, C, H, W] what reconstructions are compared with; None for the values themselves

    @property
    def pixels(self) -> Tensor:
        """All values in memory: of images uint8 [N, C, H, W], of other examples float32 [N, 1, 1, D]."""
        return self.values if isinstance(self.values, Tensor) else self.values.dense()

    @property
    def classes(self) -> Tensor:
        """The labels [N] of images that have them."""
        assert self.labels is not None
        return self.labels

    @property
    def names(self) -> list[str]:
        """The file name of each image; empty where the images have no names."""
        return [] if self.rows is None or not self.file_names else [self.file_names[row] for row in self.rows.tolist()]

    @property
    def num_classes(self) -> int:
        """The number of classes that have a name or an image; 0 without labels."""
        return 0 if self.labels is None else len(self.class_names) or len(self.labels.unique())

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where it has no name."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def device(self) -> torch.device:
        """The device of the values."""
        return self.values.device

    def __getitem__(self, index: Tensor | slice) -> "Examples":
        labels = None if self.labels is None else self.labels[index]
        factors = None if self.factors is None else self.factors[index]
        rows = None if self.rows is None else self.rows[index]
        targets = None if self.targets is None else self.targets[index]
        return replace(self, values=self.values[index], labels=labels, factors=factors, rows=rows, targets=targets)

    def to(self, device: torch.device) -> "Examples":
        """Return the images on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        factors = None if self.factors is None else self.factors.to(device)
        rows = None if self.rows is None else self.rows.to(device)  # an index on the device selects rows, too
        targets = None if self.targets is None else self.targets.to(device)
        values = self.values.to(device)
        return replace(self, values=values, labels=labels, factors=factors, rows=rows, targets=targets)


@dataclass(frozen=True)
class Splits:
    """Sets of images: for training, for choices among runs (may be empty), for the final metrics.

    They are disjoint, but with `single_set` the test images are training images, too.
    """

    train: Examples
    validation: Examples
    test: Examples
    single_set: bool = False

    @property
    def held_out(self) -> tuple[str, Examples]:
        """The name and the images of the set evaluated during training: validation where there is one, else test."""
        return ("validation", self.validation) if len(self.validation) else ("test", self.test)

    def to(self, device: torch.device) -> "Splits":
        """Return the sets on a device."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )

    def describe(self) -> str:
        """Return the number of images of each split, their shape and the number of their classes, as a sentence."""
        counts = [f"{len(self.train):,} training"]
        if len(self.validation):
            counts.append(f"{len(self.validation):,} validation")
        examples = self.train
        shape = "x".join(map(str, examples.values.shape[1:]))
        noun = (
            f"images of {shape}" if examples.kind == "image" else f"examples of {examples.values.shape[-1]:,} features"
        )
        num_classes = max(self.train.num_classes, self.test.num_classes)
        classes = f"{num_classes:,} {'class' if num_classes == 1 else 'classes'}" if num_classes else "no classes"
        if self.train.class_names not in ((), tuple(map(str, range(num_classes)))):
            classes += f" ({abbreviate(self.train.class_names)})"
        return f"{', '.join(counts)} and {len(self.test):,} test {noun}, {classes}"


@dataclass(frozen=True)
class Prepare:
    """Convert stored examples to a model's input: floats; pixels in [0, 1], cropped and binarised where these are set.

    `dynamic` draws every pixel from its grey value at each call (Salakhutdinov & Murray 2008).
    """

    random_crop: int | None = None
    dynamic: bool = False

    @property
    def random(self) -> bool:
        """Tell whether a call draws random numbers."""
        return self.random_crop is not None or self.dynamic

    def __call__(self, values: Values, generator: torch.Generator | None = None) -> Tensor:
        """Return floats [B, C, h, w] for `values` [B, C, H, W]; draw from the global generator by default."""
        if not isinstance(values, Tensor):
            values = values.dense()
        if self.random_crop is not None:
            values = random_crops(values, self.random_crop, generator)
        x = values.to(torch.float32)
        if values.dtype == torch.uint8:
            x.div_(255)
        return torch.bernoulli(x, generator=generator) if self.dynamic else x


def random_crops(images: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return one square of `size` pixels from a random position of each image: [B, C, H, W] to [B, C, size, size]."""
    count, _, height, width = images.shape
    top = torch.randint(height - size + 1, (count, 1, 1), generator=generator, device=images.device)
    left = torch.randint(width - size + 1, (count, 1, 1), generator=generator, device=images.device)
    span = torch.arange(size, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    return images[index, :, top + span[None, :, None], left + span[None, None, :]].permute(0, 3, 1, 2)


class Batches:
    """An epoch of shuffled batches of prepared examples [B, C, H, W]; the last one may be smaller.

    The order comes from the global generator, which the training loop seeds from (seed, epoch), so that an epoch can be
    repeated. Raise ValueError where `batch_size` is below 1.
    """

    def __init__(self, images: Examples, batch_size: int, prepare: Prepare) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is too small: use 1 or more")
        self.values = images.values
        self.batch_size = batch_size
        self.prepare = prepare

    def __len__(self) -> int:
        return num_batches(len(self.values), self.batch_size)

    @property
    def num_images(self) -> int:
        """The number of images in an epoch."""
        return len(self.values)

    def __iter__(self) -> Iterator[Tensor]:
        for index in shuffled_rows(self.values).split(self.batch_size):
            # index_select copies whole rows, and is faster than indexing.
            yield self.prepare(self.values.index_select(0, index))


def shuffled_rows(values: Values, generator: torch.Generator | None = None) -> Tensor:
    """Return the rows of values in a random order [N], drawn on their device, to index the values with."""
    order = torch.randperm(len(values), generator=generator, device=values.device)
    # Rows that stay outside of the device are indexed on the CPU: once an epoch, so that no batch waits for its index.
    return order if isinstance(values, Tensor) else order.cpu()


def in_order(images: Examples, batch_size: int, prepare: Prepare, seed: int = 0) -> Iterator[Tensor]:
    """Yield the images once, in order, as batches [B, C, H, W] for evaluation; batches of large images are smaller.

    The random numbers of `prepare` come from a generator of their own with seed `seed`.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    for values in images.values.split(evaluation_batch_size(images, batch_size)):
        yield prepare(values, generator)


def with_targets(images: Examples, batch_size: int, prepare: Prepare) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the examples once, in order, as inputs and targets [B, C, H, W]; both are one tensor without `targets`."""
    inputs = in_order(images, batch_size, prepare)
    if images.targets is None:
        yield from ((x, x) for x in inputs)
    else:
        targets = images.targets.split(evaluation_batch_size(images, batch_size))
        yield from zip(inputs, map(prepare, targets), strict=True)


def chosen_with_targets(images: Examples, index: Tensor, batch_size: int, prepare: Prepare) -> tuple[Tensor, Tensor]:
    """Return the inputs and the targets of the examples at `index` [K], [K, C, H, W] each, as `with_targets` has them.

    Where `prepare` draws random numbers, all batches are prepared, so that the draws are the same.
    """
    if not prepare.random:
        return next(with_targets(images[index], len(index), prepare))
    parts, start = [], 0
    for x_in, x in with_targets(images, batch_size, prepare):
        places = ((index >= start) & (index < start + len(x))).nonzero().flatten()
        rows = index[places] - start
        parts.append((places, x_in[rows], x[rows]))
        start += len(x)
    places, inputs, targets = map(torch.cat, zip(*parts, strict=True))
    order = places.argsort()
    return inputs[order], targets[order]


def evaluation_batch_size(images: Examples, batch_size: int) -> int:
    """Return the batch size, or the number of examples with MAX_BATCH_VALUES values where they are large."""
    return max(min(batch_size, MAX_BATCH_VALUES // math.prod(images.values.shape[1:])), 1)


def known_mean(batches: Iterable[Tensor]) -> Tensor:
    """Return the mean of the known values of batches [B, C, H, W], [C, H, W]; 0 where none is known."""
    sums, counts = [], []
    for x in batches:
        sums.append(x.nan_to_num(0.0).sum(0))
        counts.append(x.isnan().logical_not_().sum(0))
    return torch.stack(sums).sum(0) / torch.stack(counts).sum(0).clamp_min(1)


def fill_missing(x: Tensor, mean: Tensor) -> Tensor:
    """Return x [B, C, H, W] with the mean, of as many numbers as an example, in place of missing values (NaN)."""
    return torch.where(x.isnan(), mean.view_as(x[:1]), x)


def num_batches(count: int, batch_size: int) -> int:
    """Return the number of batches in an epoch of `count` examples; the last one may be smaller."""
    return -(-count // batch_size)


@dataclass(frozen=True)
class IndexBatches:
    """An epoch of shuffled indices [B], which select images and their classes together."""

    images: Examples
    batch_size: int

    def __len__(self) -> int:
        return num_batches(len(self.images), self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.images), device=self.images.device)
        return iter(order.split(self.batch_size))
