"""`compile=true`: compile the loss of a batch and its gradients into one program, and log when that pays."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aetrain.model.layers import is_stateful
from aetrain.model.records import LossDict
from aetrain.training.loop import EpochLoader
from aetrain.training.step import OptimizerStep
from aetrain.utils.devices import keep_random_state, wait_for

log = logging.getLogger("aetrain")

TIMING_REPEATS = 10  # the fastest counts
MAX_REASON_LENGTH = 200  # characters


class CompiledStep:
    """The losses of an optimizer step and their gradients, for batches of one size.

    torch traces the operations of a forward and backward pass with the weights in place and compiles the trace: no
    graph is built at each step, and operations are fused. Random numbers come from torch's generators, which an epoch
    seeds, as without compilation. Batches of another size, such as an epoch's last, use autograd, so an epoch remains
    a function of its initial state in every process.

    On a GPU the program is recorded as a CUDA graph: launching the kernels of a small network one by one takes longer
    than computing them.
    """

    def __init__(self, step: OptimizerStep, x: Tensor) -> None:
        self.backward = step.backward
        self.batch_size = len(x)
        graph, self.weights = trace_forward_backward(step, x)
        self.program = _compile_graph(graph, x.is_cuda)

    def __call__(self, x: Tensor) -> LossDict:
        """Return the losses of a batch and leave the gradients in the weights."""
        if len(x) != self.batch_size:
            return self.backward(x)
        with torch.no_grad():
            if x.is_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            gradients, losses = self.program(x)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        # The next replay of a CUDA graph overwrites its results: gradients are used by then, losses are kept.
        return {name: value.clone() for name, value in losses.items()} if x.is_cuda else losses


def trace_forward_backward(step: OptimizerStep, x: Tensor) -> tuple[torch.fx.GraphModule, list[nn.Parameter]]:
    """Return the operations from a batch like x to gradients and losses, and the weights that have a gradient."""
    from torch.fx.experimental.proxy_tensor import make_fx  # late, because it takes long

    weights = [weight for weight in step.parameters() if weight.requires_grad]
    with_gradient: list[nn.Parameter] = []

    def forward_backward(x: Tensor) -> tuple[list[Tensor], LossDict]:
        losses = step.losses(x)
        gradients = torch.autograd.grad(losses["loss"], weights, allow_unused=True)
        pairs = [(weight, grad) for weight, grad in zip(weights, gradients, strict=True) if grad is not None]
        with_gradient[:] = [weight for weight, _ in pairs]
        return [_match_strides(*pair) for pair in pairs], {name: value.detach() for name, value in losses.items()}

    graph = make_fx(forward_backward)(x)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, with_gradient


def _match_strides(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the weight's strides, which fused optimizers assume."""
    return gradient if gradient.stride() == weight.stride() else torch.empty_like(weight).copy_(gradient)


def _compile_graph(graph: torch.fx.GraphModule, cuda: bool) -> Callable[[Tensor], tuple[list[Tensor], LossDict]]:
    options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": cuda}
    program: Any = torch.compile(graph, dynamic=False, options=options)
    return program


def compile_steps(steps: Sequence[OptimizerStep], modules: Sequence[nn.Module], loader: EpochLoader) -> None:
    """Compile the optimizer steps of `modules` before training begins, and log the time that it saves.

    No weight, buffer, gradient or random number of the training is changed.
    """
    for module in modules:
        module.train()
    if stateful := find_stateful(modules):
        log.info("compile=true is ignored: %s keeps state in Python, which a compiled step would not", stateful)
        return
    x = next(iter(loader))
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    for step in steps:
        with keep_random_state(x.device):
            log.info("%s", _compile_step(step, x, len(loader)))
        step.optimizer.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)


def find_stateful(modules: Sequence[nn.Module]) -> str:
    """Return the class name of the first module that declares Python state between steps; an empty string for none."""
    for module in modules:
        for part in module.modules():
            if is_stateful(part):
                return type(part).__name__
    return ""


def _compile_step(step: OptimizerStep, x: Tensor, steps_per_epoch: int) -> str:
    """Compile one optimizer step for batches like x, and return a sentence about the result."""
    start = time.perf_counter()
    try:
        compiled = CompiledStep(step, x)
        compiled(x)
        seconds = time.perf_counter() - start
        before, after = (_fastest(gradients, step, x) for gradients in (step.backward, compiled))
    except Exception as error:  # any that a compiler raises
        cause = getattr(error, "inner_exception", error)  # the exception of a backend, without torch's explanation
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        return f"compile=true is ignored: torch cannot compile this here: {reason.strip()[:MAX_REASON_LENGTH]}"
    step.gradients = compiled
    return describe_speedup(seconds, before, after, steps_per_epoch)


def describe_speedup(seconds: float, before: float, after: float, steps_per_epoch: int) -> str:
    """Describe what compiling cost in seconds, and what it saves of a step that took `before` seconds."""
    text = f"compiled in {seconds:.1f} s: loss and gradients of a batch take {after * 1e3:.2f} ms instead of "
    saved = (before - after) * steps_per_epoch
    if saved <= 0:
        return f"{text}{before * 1e3:.2f} ms: compilation is not repaid here"
    return f"{text}{before * 1e3:.2f} ms: compilation is repaid after {math.ceil(seconds / saved)} epochs"


def _fastest(gradients: Callable[[Tensor], LossDict], step: OptimizerStep, x: Tensor) -> float:
    """Return the least time of several evaluations of a batch's loss and gradients, in seconds."""
    return min(_timed(gradients, step, x) for _ in range(TIMING_REPEATS))


def _timed(gradients: Callable[[Tensor], LossDict], step: OptimizerStep, x: Tensor) -> float:
    step.optimizer.zero_grad(set_to_none=True)
    wait_for(x.device)
    start = time.perf_counter()
    gradients(x)
    wait_for(x.device)
    return time.perf_counter() - start
