"""`compile=true`: the loss of a batch and its gradients as one program, where torch can make it; whether it pays."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.model.layers import Paced
from aetrain.training.fit import EpochOfBatches, Terms, Update

log = logging.getLogger("aetrain")

RUNS = 10  # that are timed of each kind; the fastest counts
PACES = [share / 20 for share in range(1, 20)]  # of training, at which a module must be as at its beginning


class Program:
    """The terms of an update and the gradients of its loss, for batches of one size.

    Torch writes down every operation of the pass there and back, with the weights in place, and compiles the list as a
    whole: no graph is built at each step, and what is done there and back is fused. What is random is drawn as without,
    from torch's generators, which an epoch seeds. Batches of another size (as an epoch's last may be) go by autograd,
    so an epoch remains a function of where it starts, in whatever process it is done.

    On a GPU the program is recorded as a CUDA graph, which launches it as a whole: small networks take longer to
    launch than to compute.
    """

    def __init__(self, update: Update, x: Tensor) -> None:
        self.plain = update.gradients
        self.size = len(x)
        graph, self.weights = written_down(update, x)
        self.run = _compiled(graph, x.is_cuda)

    def __call__(self, x: Tensor) -> Terms:
        """The terms of a batch; the gradients are left in the weights."""
        if len(x) != self.size:
            return self.plain(x)
        with torch.no_grad():
            if x.is_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            gradients, terms = self.run(x)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        # A CUDA graph's results lie where its next run writes: gradients have been used by then, terms are kept.
        return {name: value.clone() for name, value in terms.items()} if x.is_cuda else terms


def written_down(update: Update, x: Tensor) -> tuple[torch.fx.GraphModule, list[nn.Parameter]]:
    """The operations from a batch like x to gradients and terms, and the weights that have a gradient, in order."""
    from torch.fx.experimental.proxy_tensor import make_fx  # late, because it takes long

    weights = [w for group in update.optimizer.param_groups for w in group["params"] if w.requires_grad]
    reached: list[nn.Parameter] = []

    def there_and_back(x: Tensor) -> tuple[list[Tensor], Terms]:
        terms = update.terms(x)
        found = torch.autograd.grad(terms["loss"], weights, allow_unused=True)
        pairs = [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
        reached[:] = [weight for weight, _ in pairs]
        return [_laid_out_like(*pair) for pair in pairs], {name: value.detach() for name, value in terms.items()}

    graph = make_fx(there_and_back)(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, reached


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the weight's strides, which fused optimizers take for granted."""
    return gradient if gradient.stride() == weight.stride() else torch.empty_like(weight).copy_(gradient)


def _compiled(graph: torch.fx.GraphModule, cuda: bool) -> Callable[[Tensor], tuple[list[Tensor], Terms]]:
    options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": cuda}
    program: Any = torch.compile(graph, dynamic=False, options=options)
    return program


def compile_updates(updates: Iterable[Update], parts: Sequence[nn.Module], batches: EpochOfBatches) -> None:
    """Compile the updates of `parts` before training begins, and say what it brings.

    No weight, buffer, gradient or random number of the training is touched.
    """
    for part in parts:
        part.train()
    x = next(iter(batches))
    buffers = [(buffer, buffer.clone()) for part in parts for buffer in part.buffers()]
    for update in updates:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            log.info("%s", _begun(update, parts, x, len(batches)))
        update.optimizer.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)


def _begun(update: Update, parts: Sequence[nn.Module], x: Tensor, steps: int) -> str:
    """Compile one update for batches like x; how it went, in a sentence."""
    began = time.perf_counter()
    try:
        if found := _beyond_a_program(update, parts, x):
            return f"compile=true is left out: {found}, which a program of one step would not do"
        program = Program(update, x)
        program(x)
        seconds = time.perf_counter() - began
        before, after = (min(_timed(way, x, update) for _ in range(RUNS)) for way in (program.plain, program))
    except Exception as error:  # whatever a compiler may stumble over
        cause = getattr(error, "inner_exception", error)  # what a backend has raised, without what torch says of it
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        return f"compile=true is left out, since torch cannot compile this here: {reason.strip()[:200]}"
    update.gradients = program
    return said(seconds, before, after, steps)


def _beyond_a_program(update: Update, parts: Sequence[nn.Module], x: Tensor) -> str:
    """What a module does in a step beside operations on tensors, or else nothing."""
    modules = [module for part in parts for module in part.modules()]
    first = [_kept_by(module) for module in modules]
    written_down(update, x)  # what is made at the first pass and kept for good is no memory
    before = [_kept_by(module) for module in modules]
    written_down(update, x)
    found = [_changed(module, kept) for module, kept in zip(modules, before, strict=True)]
    for module, names, kept in zip(modules, found, first, strict=True):
        _put_back(module, names, kept)
    for module, names in zip(modules, found, strict=True):
        if names:
            return f"{type(module).__name__} remembers ({', '.join(name.strip('_') for name in names)})"
    for module in (module for module in modules if isinstance(module, Paced)):
        module.pace(0)
        kept = _kept_by(module)
        for progress in PACES:
            module.pace(progress)
            if _changed(module, kept):
                return f"{type(module).__name__} changes while training goes on"
    return ""


def _kept_by(module: nn.Module) -> dict[str, Any]:
    """A module's attributes and buffers."""
    return {**vars(module), **module._buffers}


def _changed(module: nn.Module, before: Mapping[str, Any]) -> list[str]:
    """The names of attributes and buffers that are other objects, or other numbers, than before."""
    return [
        name
        for name, value in _kept_by(module).items()
        if value is not (was := before.get(name)) and not (isinstance(value, int | float) and value == was)
    ]


def _put_back(module: nn.Module, names: Sequence[str], before: Mapping[str, Any]) -> None:
    for name in names:
        if name in before:
            setattr(module, name, before[name])
        else:
            delattr(module, name)


def said(seconds: float, before: float, after: float, steps: int) -> str:
    """What compiling cost in seconds, and what it makes of a step that took `before`; `steps` are an epoch's."""
    text = f"compiled in {seconds:.1f} s: loss and gradients of a batch take {after * 1e3:.2f} ms instead of "
    saved = (before - after) * steps
    if saved <= 0:
        return f"{text}{before * 1e3:.2f}, so it does not pay here"
    return f"{text}{before * 1e3:.2f}, which wins that back after {math.ceil(seconds / saved)} epochs"


def _timed(gradients: Callable[[Tensor], Terms], x: Tensor, update: Update) -> float:
    """Seconds that a batch's loss and gradients take."""
    update.optimizer.zero_grad(set_to_none=True)
    if x.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    gradients(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
