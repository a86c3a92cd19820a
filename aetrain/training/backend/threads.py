"""The number of threads of a run: what the process may use, and no more than the network needs."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aetrain.config.settings import Settings
from aetrain.model.autoencoder import Autoencoder
from aetrain.storage.checkpoint_state import CheckpointState
from aetrain.utils.cores import Limit, usable_cores, user_threads
from aetrain.utils.processes import world_size

log = logging.getLogger("aetrain")

# The multiply-adds in the forward pass of a batch for which one more thread is worth its cost (docs/speed.md).
MULTIPLY_ADDS_PER_THREAD = 10_000_000


@contextmanager
def num_threads(limit: Limit | None) -> Iterator[None]:
    """Let torch use a number of threads inside, its own number for None, and log the number with its reason."""
    before = torch.get_num_threads()
    try:
        if limit is not None:
            log.info("threads: %d (%s)", *limit)
            if limit.number != before:
                torch.set_num_threads(limit.number)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def choose_threads(settings: Settings, model: Autoencoder, resumed: CheckpointState | None = None) -> Limit:
    """Return the number of threads of a run, and the reason.

    A number in `threads` is taken as it is. Otherwise a run that is resumed keeps the number in its checkpoint, since
    another one would add the same numbers in another order; with another number of processes it counts as new. The
    number of a new run, and of one of 0.1, follows the environment of the user, or else the cores; that of a new run
    also follows the size of the network.
    """
    if settings.threads != "auto":
        return Limit(settings.threads, f"threads={settings.threads}")
    if resumed is not None and resumed.processes != world_size():
        resumed = None  # the cores are shared in another way
    if resumed is not None and resumed.threads is not None:
        return Limit(resumed.threads, "as the run began; another number would change the last digits of its results")
    available = available_threads()
    if available.number == 1 or resumed is not None or user_threads() is not None:
        return available
    return _limit_by_size(available, count_multiply_adds(model, settings.batch_size))


def _limit_by_size(available: Limit, multiply_adds: int) -> Limit:
    """Return the number of threads for a network whose batch takes some number of multiply-adds."""
    needed = max(1, multiply_adds // MULTIPLY_ADDS_PER_THREAD)
    if needed >= available.number:
        return available
    millions = multiply_adds / 1e6
    return Limit(needed, f"a batch takes {millions:.1f} million multiply-adds, too few for {available.number} threads")


def available_threads() -> Limit:
    """Return the number of threads that this process may use: the user's, or one for each of its cores.

    torch's own number, which a calling program may have set, is never exceeded: it leaves out the second threads of
    the same core.
    """
    limit = user_threads() or usable_cores()
    own = torch.get_num_threads()
    return limit if limit.number <= own else Limit(own, "torch's number of threads")


def count_multiply_adds(model: Autoencoder, batch_size: int) -> int:
    """Return the number of multiply-adds in the products of a batch's forward pass."""
    device = next(model.parameters()).device
    x = torch.zeros(1, *model.image_shape, device=device)
    training = model.training
    with torch.no_grad(), _MultiplyAdds() as counter:
        model.eval()(x, x)
    model.train(training)
    return counter.total * batch_size


class _MultiplyAdds(TorchFunctionMode):
    """Count the multiply-adds of the products and convolutions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch and add its multiply-adds."""
        result = func(*args, **(kwargs or {}))
        count = COUNTS.get(getattr(func, "__name__", ""))
        self.total += count(result, *args) if count else 0
        return result


def _count_lstm(_result: Any, x: Tensor, _state: Any, weights: Sequence[Tensor], *_options: Any) -> int:
    return sum(weight.numel() for weight in weights if weight.dim() > 1) * x.numel() // x.shape[-1]


# By name of the function, from its result and its first arguments.
COUNTS: dict[str, Callable[..., int]] = {
    "linear": lambda result, x, weight, *_: x.numel() * len(weight),
    "conv2d": lambda result, x, weight, *_: result.numel() * weight[0].numel(),
    "conv_transpose2d": lambda result, x, weight, *_: x.numel() * weight[0].numel(),
    "matmul": lambda result, x, *_: result.numel() * x.shape[-1],
    "__matmul__": lambda result, x, *_: result.numel() * x.shape[-1],
    "bmm": lambda result, x, *_: result.numel() * x.shape[-1],
    "lstm": _count_lstm,
}
