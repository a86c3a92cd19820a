"""The shard of a batch that one of several processes computes, and the random numbers and tensors of the whole batch.

Every process draws the random numbers of the whole batch and uses those of its own examples, so that an example has the
same ones with any number of processes. A process that trains alone computes whole batches: each function here then does
as little as its first line.

Shapes: B examples of the whole batch, b of the shard.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aetrain.utils import processes

Shape = Sequence[int]


@dataclass(frozen=True)
class Shard:
    """The examples `start` to `stop` of a batch, which one process computes."""

    start: int
    stop: int
    batch_size: int
    counts: Sequence[int]  # the numbers of examples of all processes

    @property
    def size(self) -> int:
        """b, the number of examples."""
        return self.stop - self.start

    def take(self, x: Tensor, dim: int = 0) -> Tensor:
        """Return the shard's part [.., K * b, ..] of a tensor [.., K * B, ..] of K copies of the batch along `dim`."""
        copies = x.shape[dim] // self.batch_size
        if copies == 1:
            return x.narrow(dim, self.start, self.size)
        return x.unflatten(dim, (copies, self.batch_size)).narrow(dim + 1, self.start, self.size).flatten(dim, dim + 1)

    def whole_shape(self, shape: Shape, dim: int = 0) -> list[int]:
        """Return the shape of a tensor of the whole batch from that of the shard, which may have copies of it."""
        copies, rest = divmod(shape[dim], self.size)
        if rest:
            raise ValueError(f"{list(shape)} has no {self.size} examples along dimension {dim}")
        return [*shape[:dim], copies * self.batch_size, *shape[dim + 1 :]]


_shards: list[Shard] = []  # the shard that is computed, or none


def is_shard() -> bool:
    """Return whether the batch that is computed is a shard of one."""
    return bool(_shards)


def split_batch(batch_size: int, world_size: int) -> list[int]:
    """Return the first example of each process's shard, and the batch size last; shards differ by at most 1 in size."""
    return [batch_size * number // world_size for number in range(world_size + 1)]


@contextmanager
def computing(shard: Shard | None) -> Iterator[None]:
    """Let the examples inside be those of a shard, or of the whole batch for None."""
    before, _shards[:] = _shards[:], [] if shard is None else [shard]
    try:
        yield
    finally:
        _shards[:] = before


def sharded(losses: Callable[..., dict[str, Tensor]], *batch: Tensor) -> dict[str, Tensor]:
    """Return `losses(*batch)`, batch means; of several processes, each returns its part of them, which add up to them.

    `batch` are tensors of the whole batch [B, ...]. A process calls `losses` with those of its shard [b, ...]. A batch
    with fewer examples than processes is computed whole by each of them.
    """
    if processes.is_alone():
        return losses(*batch)
    world_size, rank, batch_size = processes.world_size(), processes.rank(), len(batch[0])
    if batch_size < world_size:
        return {name: value / world_size for name, value in losses(*batch).items()}
    bounds = split_batch(batch_size, world_size)
    counts = [stop - start for start, stop in itertools.pairwise(bounds)]
    shard = Shard(bounds[rank], bounds[rank + 1], batch_size, counts)
    with computing(shard):
        parts = losses(*map(shard.take, batch))
    return {name: value * (shard.size / batch_size) for name, value in parts.items()}


def draw(make: Callable[[Shape], Tensor], shape: Shape, dim: int = 0) -> Tensor:
    """Return `make(shape)`, random numbers of the examples along dimension `dim`, which may be there several times.

    Every bottleneck, code and penalty draws its random numbers of training by this function or the next ones, with
    torch's global generator.
    """
    if not _shards:
        return make(shape)
    return _shards[0].take(make(_shards[0].whole_shape(shape, dim)), dim)


def draw_like(x: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `fill(empty)` for an empty tensor like x, whose first dimension is that of the examples."""
    if not _shards:
        return fill(torch.empty_like(x))
    by_channel = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory_format = torch.channels_last if by_channel else torch.contiguous_format  # numbers are drawn in this order

    def make(shape: Shape) -> Tensor:
        return fill(torch.empty(*shape, dtype=x.dtype, device=x.device, memory_format=memory_format))

    return draw(make, x.shape)


def draw_bernoulli(p: Tensor) -> Tensor:
    """Return zeros and ones like p [b, ...], which are 1 with probability p."""
    if not _shards:
        return torch.bernoulli(p)
    shard = _shards[0]
    batch = p.new_zeros(shard.whole_shape(p.shape))
    batch[shard.start : shard.stop] = p  # a number takes one draw, whatever its probability
    return shard.take(torch.bernoulli(batch))


def batch_size_of(x: Tensor) -> int:
    """Return the number of examples of the whole batch of which x [b, ...] are those of the shard."""
    return _shards[0].whole_shape(x.shape)[0] if _shards else len(x)


def gather(x: Tensor) -> Tensor:
    """Return the tensor [B, ...] of the whole batch from the shards x [b, ...] of all processes; x for one process.

    The gradient reaches the own shard alone. It is B / b times as large, so that a term of the loss that every process
    computes from the whole batch counts once in the sum over processes, after `sharded` has scaled it by b / B.
    """
    if not _shards:
        return x
    shard = _shards[0]
    copies = x.shape[0] // shard.size
    rows = x.unflatten(0, (copies, shard.size)).transpose(0, 1)  # [b, copies, ...]
    batch: Any = _Gather.apply(rows, shard)  # [B, copies, ...]
    return batch.transpose(0, 1).flatten(0, 1)


def take_own(x: Tensor) -> Tensor:
    """Return the own part [b, ...] of a tensor [B, ...] of the whole batch; x for one process."""
    return _shards[0].take(x) if _shards else x


class _Gather(torch.autograd.Function):
    """The forward and backward pass of `gather`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shard: Shard) -> Tensor:
        ctx.shard = shard
        return processes.gather_rows(rows.detach(), shard.counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        shard = ctx.shard
        return shard.take(gradient) * (shard.batch_size / shard.size), None
