"""`compile=true`: the loss of a batch and its gradients as one program, where torch can make it; whether it pays."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.model.layers import Paced
from aetrain.training.fit import EpochOfBatches, Terms, Update

log = logging.getLogger("aetrain")

RUNS = 5  # that are timed of each kind; the fastest counts


class Compiled:
    """The terms of an update, compiled for batches of one size.

    Until `begin` has seen that it can be, and wherever a batch has another size (as an epoch's last may), they are
    computed as without. So an epoch remains a function of where it starts, in whatever process it is done.

    On a GPU the program is recorded as a CUDA graph, which launches it as a whole: small networks take longer to
    launch than to compute. What is random draws from torch's generators in either case, which an epoch seeds.
    """

    def __init__(self, terms: Callable[[Tensor], Terms], parts: Sequence[nn.Module]) -> None:
        self.plain = terms
        self.parts = parts
        self.program: Callable[[Tensor], Terms] | None = None
        self.size = 0

    def __call__(self, x: Tensor) -> Terms:
        if self.program is None or len(x) != self.size:
            return self.plain(x)
        if not x.is_cuda:
            return self.program(x)
        torch.compiler.cudagraph_mark_step_begin()
        # The graph's results lie where its next run writes.
        return {name: value.clone() for name, value in self.program(x).items()}

    def begin(self, x: Tensor, steps: int) -> str:
        """Compile for batches like x, and say in a sentence how it went and after how many epochs it has paid.

        No weight, gradient or random number of the training is touched.
        """
        parameters = [p for part in self.parts for p in part.parameters() if p.requires_grad]
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices):
            before = _fastest(self.plain, x, parameters)
            try:
                self.program, self.size = _program(self.plain, self.parts, x.is_cuda), len(x)
                seconds = _timed(self, x, parameters)
                after = _fastest(self, x, parameters)
            except Exception as error:  # whatever a compiler may stumble over
                self.program = None
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                return f"compile=true is left out, since torch cannot compile this here: {reason.strip()[:200]}"
        return said(seconds, before, after, steps)


def said(seconds: float, before: float, after: float, steps: int) -> str:
    """What compiling cost in seconds, and what it makes of a step that took `before`; `steps` are an epoch's."""
    text = f"compiled in {seconds:.1f} s: loss and gradients of a batch take {after * 1e3:.2f} ms instead of "
    saved = (before - after) * steps
    if saved <= 0:
        return f"{text}{before * 1e3:.2f}, so it does not pay here"
    return f"{text}{before * 1e3:.2f}, which wins that back after {math.ceil(seconds / saved)} epochs"


def rehearse(model: nn.Module, updates: Iterable[Update], batches: EpochOfBatches) -> None:
    """Compile the updates that are to be, before training begins, and say what it brings."""
    waiting = [update.terms for update in updates if isinstance(update.terms, Compiled)]
    if not waiting:
        return
    model.train()
    x = next(iter(batches))
    for terms in waiting:
        log.info("%s", terms.begin(x, len(batches)))


def _program(terms: Callable[[Tensor], Terms], parts: Sequence[nn.Module], cuda: bool) -> Callable[[Tensor], Terms]:
    for part in parts:
        for module in part.modules():
            if isinstance(module, Paced):  # what changes with every step would be compiled anew with every step
                module.forward = torch.compiler.disable(module.forward)
    program: Any = torch.compile(terms, dynamic=False, mode="reduce-overhead" if cuda else "default")
    return program


def _fastest(terms: Callable[[Tensor], Terms], x: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    return min(_timed(terms, x, parameters) for _ in range(RUNS))


def _timed(terms: Callable[[Tensor], Terms], x: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    """Seconds that a batch's loss and gradients take."""
    if x.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    torch.autograd.grad(terms(x)["loss"], parameters, allow_unused=True)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
