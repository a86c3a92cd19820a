"""The processes that train one model together: started by `torchrun`, connected by torch.distributed.

A process that has not joined others is alone: `world_size()` is 1, and nothing else here is called in its training.
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from aetrain.utils.cores import first_number

if TYPE_CHECKING:  # torch takes long to import, and the command line asks here whether it is one of several processes
    from torch import Tensor, nn

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of the environment that a launcher of torch sets
MESSAGES_KEY = "aetrain/messages"  # in the store: the number of processes that had a message for the user
TIMEOUT = timedelta(days=365)  # the others wait while process 0 evaluates; the connections of one that ends are closed


class ProcessLost(RuntimeError):
    """Another process has ended in the middle of the training."""


@dataclass(frozen=True)
class Group:
    """The processes of one training, and the place of this one among them."""

    rank: int  # 0 writes the files of the run
    world_size: int
    store: Any  # torch's key-value store of the launcher


_groups: list[Group] = []  # the group that this process has joined, or none


def are_launched() -> bool:
    """Return whether `torchrun`, or another launcher that sets the same variables, started several processes."""
    return all(name in os.environ for name in VARIABLES) and (first_number(os.environ["WORLD_SIZE"]) or 1) > 1


def is_alone() -> bool:
    """Return whether this process trains alone."""
    return not _groups


@contextmanager
def act_alone() -> Iterator[None]:
    """Let this process train alone inside, without the others."""
    joined, _groups[:] = _groups[:], []
    try:
        yield
    finally:
        _groups[:] = joined


def world_size() -> int:
    """Return the number of processes that train together."""
    return _groups[0].world_size if _groups else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return _groups[0].rank if _groups else 0


def local_rank() -> int:
    """Return the number of this process among those of its machine, from 0."""
    text = os.environ.get("LOCAL_RANK", "0")
    return int(text) if text.isdecimal() else 0


def describe_process() -> str:
    """Return the name of this process in messages."""
    return f"process {rank()} on {socket.gethostname()}"


def join() -> None:
    """Join the processes of the same command. Raise ProcessLost where another one ends before."""
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, own_rank, size = _connected(lambda: next(rendezvous("env://")))
    backend = ",".join(f"{device}:{name}" for device, name in backends().items())
    own_store = PrefixStore("aetrain", store)
    _connected(
        lambda: distributed.init_process_group(
            backend, store=own_store, rank=own_rank, world_size=size, timeout=TIMEOUT
        )
    )
    _groups[:] = [Group(own_rank, size, store)]


def leave() -> None:
    """Close the connections to the other processes, if there are any."""
    if not _groups:
        return
    from torch import distributed

    _groups.clear()
    distributed.destroy_process_group()


def backends() -> dict[str, str]:
    """Return the backend of torch.distributed by kind of device: gloo for the CPU, that of the accelerator if any."""
    from torch import distributed

    from aetrain.utils.devices import accelerator

    device = accelerator()
    own = {} if device is None else {device.type: distributed.get_default_backend_for_device(device)}
    return {"cpu": "gloo", **own}


def command_prefix() -> list[str]:
    """Return the words before the arguments in the command of these processes."""
    if is_alone():
        return ["aetrain"]
    on_this_machine = os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))
    several = [] if on_this_machine == str(world_size()) else ["..."]  # with the flags of the rendezvous
    return ["torchrun", f"--nproc-per-node={on_this_machine}", *several, "-m", "aetrain"]


def write_error_file(text: str) -> None:
    """Give a message to `torchrun`, which shows it in its own report of the failure."""
    if name := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(name).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))


def is_first_message() -> bool:
    """Return whether no process has told the user yet why training ends; True for the first one that asks."""
    if not _groups:
        return True
    try:
        return bool(_groups[0].store.add(MESSAGES_KEY, 1) == 1)
    except RuntimeError:  # process 0 has ended, if it had the store, and not the launcher
        return rank() == 0


def exit_with_message(text: str, quiet_code: int = 1) -> NoReturn:
    """End this process with a message on the console; if another one has had one, without it and with `quiet_code`."""
    first = is_first_message()
    if not is_alone():
        _ignore_signals()
    if first and not is_alone():
        write_error_file(text)
    leave()
    sys.exit(f"aetrain: {text}" if first else quiet_code)


def _connected(function: Callable[[], T]) -> T:
    """Call a function of torch.distributed. Raise ProcessLost where a connection is closed."""
    try:
        return function()
    except RuntimeError as error:  # torch's errors of connections are subclasses
        _ignore_signals()
        raise ProcessLost(_cause(str(error))) from error


def _ignore_signals() -> None:
    """Let no signal interrupt the record of the end: `torchrun` sends SIGTERM to all when one process has ended."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _cause(text: str) -> str:
    """Return the first sentence of a message of torch's, without the place in its source."""
    return re.sub(r"^\[[^\]]*\] ", "", text.partition("\n")[0]).partition(". ")[0]


def broadcast(value: Any) -> Any:
    """Return the object of process 0 in every process; those of the others are not used."""
    from torch import distributed

    if _groups:
        values = [value]
        _connected(lambda: distributed.broadcast_object_list(values, src=0))
        return values[0]
    return value


def gather_objects(value: Any) -> list[Any]:
    """Return the objects of all processes in each of them, in the order of their numbers."""
    from torch import distributed

    values: list[Any] = [value] * world_size()
    if _groups:
        _connected(lambda: distributed.all_gather_object(values, value))
    return values


def gather_rows(x: "Tensor", counts: Sequence[int]) -> "Tensor":
    """Return the rows of all processes [sum(counts), ...] from those of this one [counts[rank], ...], in order."""
    import torch
    from torch import distributed

    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    _connected(lambda: distributed.all_gather(parts, padded))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def sum_over_processes(parameters: Sequence["nn.Parameter"], losses: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Sum the gradients of parameters in place and return the sums of the losses, all in one message.

    Every process has gradients of the same parameters. The sums have the same bits in each.
    """
    import torch
    from torch import distributed

    values = {name: value.detach().clone() for name, value in losses.items()}
    tensors = [parameter.grad for parameter in parameters if parameter.grad is not None] + [*values.values()]
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # one, unless a model of the user mixes them
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in same])
        _connected(lambda flat=flat: distributed.all_reduce(flat))  # type: ignore[misc]
        for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view_as(tensor))
    return values
