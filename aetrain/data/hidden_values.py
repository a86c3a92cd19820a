"""Values that are hidden from a model, to measure how well it fills them in: the setting `dataset.missing`."""

from dataclasses import replace

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare
from aetrain.data.sparse_rows import SparseRows


def check_share(missing: float) -> None:
    """Raise ValueError where the share of hidden values is not in [0, 1)."""
    if not 0 <= missing < 1:
        raise ValueError(f"missing={missing} is no share of values: use a number from 0 to below 1")


def hide_values(
    examples: Examples, share: float, prepare: Prepare, seed: int, is_training: bool, groups: Tensor | None = None
) -> Examples:
    """Return examples of which a random `share` of the values is NaN, the same ones for the same `seed`.

    `groups` [D] numbers the values of an example: those of one group are hidden together, as the features of a
    category, each of which would tell the others. The values become floats, those of images in [0, 1].

    All known values of test and validation examples are their targets;
    training examples have no targets but the values that are left.
    """
    if isinstance(examples.values, SparseRows):
        raise ValueError(f"missing={share} needs dense values, but these are sparse: use missing=0")
    complete = prepare(examples.values)
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        hidden = torch.rand(complete.shape, generator=generator) < share
    else:
        num_groups = int(groups.max()) + 1
        hidden = (torch.rand(len(complete), 1, 1, num_groups, generator=generator) < share)[..., groups]
    values = complete.masked_fill(hidden, torch.nan)
    targets = examples.targets if examples.targets is not None else complete
    return replace(examples, values=values, targets=None if is_training else targets)
