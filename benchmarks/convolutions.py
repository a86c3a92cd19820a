"""The section `convolutions` of speed.py: where a training step of the convolutional network spends its time.

Each layer computes its output and the gradients of its input and weights on the inputs that it has in the network, in
three ways: as torch does, with channels as the last axis in memory, and as a matrix product with `unfold` or `fold`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from aetrain import api
from aetrain.model.map_layers import ConvTranspose2d
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.training.backend.setup import backend
from aetrain.utils.cores import Limit

Results = dict[str, Any]
Convolution = nn.Conv2d | nn.ConvTranspose2d

BATCH, REPEATS, CALLS = 128, 15, 5
SIDE = 1024  # of the matrix product that shows the rate of the cores
WAYS = ("torch", "channels last", "product")
NAMES = ("encoder 1", "encoder 2", "dense to code", "dense to maps", "decoder 1", "decoder 2")


def measure_step(overrides: Sequence[str], threads: int) -> Results:
    """Return the milliseconds of a training step, of each layer in each way, and the rate of a matrix product."""
    config, _, full_overrides = api.compose_config(["dataset=mnist", "device=cpu", *overrides])
    components = build(entry.check(config, full_overrides))
    x = torch.rand(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with backend(Limit(threads, "benchmark")):
        step = milliseconds(lambda: components.optimizer_steps[0](x))
        components.model.to(memory_format=torch.channels_last)
        channels_last = milliseconds(lambda: components.optimizer_steps[0](x))
        components.model.to(memory_format=torch.contiguous_format)
        a = torch.randn(SIDE, SIDE)
        peak = 2 * SIDE**3 / milliseconds(lambda: a @ a) / 1e6  # GFLOP/s
        layers = [measure_layer(layer, inputs) for layer, inputs in layers_with_inputs(components, x)]
    results = {"step": step, "channels last": channels_last, "peak": peak, "threads": threads}
    return {**results, "layers": dict(zip(NAMES, layers, strict=True))}


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a call."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter() - start) / CALLS * 1e3)
    return statistics.median(times[1:])


def layers_with_inputs(components: Components, x: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Return each layer with weights, in the order of the forward pass, and its input."""
    layers: list[tuple[nn.Module, Tensor]] = []
    modules = [module for module in components.model.modules() if isinstance(module, Convolution | nn.Linear)]
    hooks = [
        module.register_forward_pre_hook(lambda layer, inputs: layers.append((layer, inputs[0].detach())))
        for module in modules
    ]
    components.model(x)
    for hook in hooks:
        hook.remove()
    return layers


def measure_layer(layer: nn.Module, inputs: Tensor) -> Results:
    """Return the milliseconds of a layer and its gradients in each way, and its millions of operations."""
    needs_gradient = inputs.shape[1] > 1 or inputs.dim() == 2  # not that of the image
    results: Results = {}
    own = partial(by_torch, layer)
    ways: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {"torch": (own, inputs)}
    if isinstance(layer, Convolution):
        ways["channels last"] = (own, inputs.contiguous(memory_format=torch.channels_last))
        ways["product"] = (partial(as_product, layer), inputs)
    for way, (forward, x) in ways.items():
        cast(Any, layer).to(memory_format=torch.channels_last if way == "channels last" else torch.contiguous_format)
        x = x.detach().requires_grad_(needs_gradient)
        torch.testing.assert_close(forward(x), layer(x), rtol=1e-3, atol=1e-4)
        gradient = torch.ones_like(forward(x))

        def step(forward: Callable[[Tensor], Tensor] = forward, x: Tensor = x, gradient: Tensor = gradient) -> None:
            layer.zero_grad()
            x.grad = None
            forward(x).backward(gradient)

        results[way] = milliseconds(step)
        if way == "torch":
            with FlopCounterMode(display=False) as counter:
                step()
            results["mflop"] = counter.get_total_flops() / 1e6
    return results


def by_torch(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a layer as torch computes it."""
    return nn.ConvTranspose2d.forward(layer, x) if isinstance(layer, nn.ConvTranspose2d) else layer(x)


def as_product(layer: Convolution, x: Tensor) -> Tensor:
    """Return the output of a convolution as a product of its weights and the patches that it reads or writes."""
    if isinstance(layer, ConvTranspose2d):
        return layer.product(x)
    kernel, stride, padding = (
        cast(tuple[int, int], value) for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    height, width = layer(x[:1]).shape[2:]
    patches = F.unfold(x, kernel, padding=padding, stride=stride)
    weight = layer.weight.flatten(1).expand(len(x), -1, -1)
    return (torch.bmm(weight, patches) + cast(Tensor, layer.bias)[:, None]).unflatten(2, (height, width))


HEAD = """## Convolutions

A training step of the convolutional network takes {step:.2f} ms, and its layers the milliseconds below: output and
gradients of a batch of {batch}, as torch computes them, with channels as the last axis in memory, and as a product with
`unfold` or `fold`, which the last layer of a decoder of grey images takes. The rate is that of the fastest way, as a
share of the rate of a product of two {side}x{side} matrices, {peak:.0f} GFLOP/s. The rest of the step is activations,
loss, and the optimizer. Threads: {threads}.

| layer | million operations | torch | channels last | product | rate |
|---|---:|---:|---:|---:|---:|"""


def convolutions_text(results: Results) -> list[str]:
    """Return the lines of the section."""
    lines = [HEAD.format(**results, batch=BATCH, side=SIDE)]
    saved = 0.0
    for name, layer in results["layers"].items():
        times = [layer[way] for way in WAYS if way in layer]
        own = layer["product"] if name == NAMES[-1] else layer["torch"]
        saved += own - min(times)
        cells = [f"{layer[way]:.2f}" if way in layer else "-" for way in WAYS]
        rate = layer["mflop"] / min(times) / results["peak"]
        lines.append(f"| {name} | {layer['mflop']:.0f} | {' | '.join(cells)} | {rate:.0%} |")
    fastest = results["step"] - saved
    ratio = results["step"] / fastest
    return [
        *lines,
        "",
        f"With the fastest way of every layer the step would take {fastest:.2f} ms, {ratio:.2f} times fewer, if the",
        "change of the order of axes between layers cost nothing. With channels as the last axis in the whole network,",
        f"the step takes {results['channels last']:.2f} ms.",
        "",
    ]
