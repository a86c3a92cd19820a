"""Measures for speed change no result: products by another library, bfloat16, compiled steps, late imports."""

import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from command import process
from conftest import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.paths import groups
from aetrain.data.examples import Batches, Examples, Prepare, Values
from aetrain.evaluation import evaluator, image_errors
from aetrain.model.layers import Scheduled
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.training.backend import compile, matmul, precision
from aetrain.training.backend.compile import compile_steps
from aetrain.training.backend.denormals import flush_denormals
from aetrain.training.loop import TrainState, fit
from aetrain.training.optimizers import LBFGS
from aetrain.utils.compat import cpu_has, without_compiler

BFLOAT16 = cpu_has("avx512_bf16") or cpu_has("amx_tile")
needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="this processor has no bfloat16 arithmetic")


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


# --- Products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(128, 784, 400), (400, 128, 784), (1000, 400, 20), (7, 30, 250)])
def test_products_by_onednn_are_as_exact(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b, bias = (torch.rand(*size, generator=generator) - 0.3 for size in ((m, k), (n, k), (n,)))
    exact = a.double() @ b.double().T
    scale = (a.double().abs() @ b.double().abs().T).max()  # the unit of rounding errors
    with matmul.matmul_by_onednn() as used:
        if not used:
            pytest.skip("MKL is fast on this processor, or there is a GPU")
        stacked = torch.bmm(a.expand(3, -1, -1), b.T.expand(3, -1, -1))
        products = [a @ b.T, F.linear(a, b, bias) - bias, stacked[1]]
    assert all((product.double() - exact).abs().max() < 1e-6 * scale for product in products)


def test_library_that_rounds_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(matmul, "accelerator", lambda: None)
    matmul_of_torch = torch.Tensor.__matmul__

    def rounded(a: Tensor, b: Tensor) -> Tensor:
        double = a.dtype == torch.float64
        return matmul_of_torch(a, b) if double else matmul_of_torch(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    with matmul.matmul_by_onednn() as used:
        assert not used
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("slow", "cuda"), [(False, False), (True, True)])
def test_matmul_precision_is_unchanged_where_onednn_is_not_faster(
    slow: bool, cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: slow)
    monkeypatch.setattr(matmul, "accelerator", lambda: torch.device("cuda") if cuda else None)
    with matmul.matmul_by_onednn() as used:
        assert not used
        assert torch.get_float32_matmul_precision() == before


def test_training_restores_the_matmul_precision_of_the_user(tiny: Callable[..., Path]) -> None:
    before = torch.get_float32_matmul_precision()
    tiny("model=linear")
    assert torch.get_float32_matmul_precision() == before


# --- Precision --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_bfloat16
@pytest.mark.parametrize("model", groups()["model"])
def test_precision_fast_trains_every_model_close_to_float32(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_why_float32", lambda device, model: "")  # also where it is slow
    losses = []
    for option in ("float32", "fast"):
        components = build_components(f"model={model}", f"precision={option}")
        x = torch.rand(32, *components.model.image_shape, generator=torch.Generator().manual_seed(0))
        components.model.train()
        torch.manual_seed(1)
        step = components.optimizer_steps[0]
        losses.append([step(x)["loss"].item() for _ in range(3)])
        assert all(weight.dtype == torch.float32 for weight in components.model.parameters())
    exact, fast = losses
    assert fast != exact, "precision=fast has no effect"
    assert fast == pytest.approx(exact, rel=0.05)


@needs_bfloat16
def test_metrics_are_in_float32_after_training_in_bfloat16(tiny: Callable[..., Path]) -> None:
    run = api.load(tiny("model=deep", "precision=fast"))
    x = build(entry.check(run.config, [])).dataset.load().test.pixels.to(torch.float32).div(255)
    assert run.reconstruct(x).dtype == torch.float32
    assert run.metrics["test/sse"] == pytest.approx(evaluator.sse(run.reconstruct(x), x).mean().item(), rel=1e-5)


@needs_bfloat16
def test_run_with_precision_fast_resumes_exactly(tiny: Callable[..., Path]) -> None:
    overrides = ("model=vae", "precision=fast", "noise=masking")
    uninterrupted = fingerprint(tiny(*overrides, "epochs=3", name="uninterrupted"))
    tiny(*overrides, "epochs=1", name="resumed")
    assert not differences(uninterrupted, fingerprint(tiny(*overrides, "epochs=3", name="resumed")))


def test_precision_fast_without_bfloat16_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "cpu_has", lambda feature: False)
    build_components("precision=fast")
    assert "precision=fast is float32 here" in caplog.text


def test_precision_fast_on_a_gpu_is_bfloat16_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_components("model=conv").model
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported, **_: supported)
        forward = precision.forward_pass("fast", torch.device("cuda"), model)
        assert isinstance(forward, precision.AutocastForward) == supported
        assert (forward is model) == (not supported)


@pytest.mark.parametrize(
    ("features", "model_name", "is_bfloat16"),
    [
        (set(), "deep", False),
        ({"avx512_bf16"}, "deep", True),
        ({"avx512_bf16"}, "conv", False),
        ({"avx512_bf16", "amx_tile"}, "conv", True),
    ],
)
def test_precision_fast_on_a_cpu_is_bfloat16_where_that_is_faster(
    features: set[str], model_name: str, is_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has", lambda feature: feature in features)
    model = build_components(f"model={model_name}").model
    forward = precision.forward_pass("fast", torch.device("cpu"), model)
    assert isinstance(forward, precision.AutocastForward) == is_bfloat16
    assert (forward is model) == (not is_bfloat16)


# --- Compiled ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the traced operations without compiling them to C++."""
    monkeypatch.setattr(compile, "_compile_graph", lambda graph, cuda: graph)


def take_steps(components: Components, compiled: bool, batches: list[Tensor]) -> list[Tensor]:
    """Return the losses, the weights and the buffers of a few steps."""
    if compiled:
        compile_steps(components.optimizer_steps, (components.model, components.objective), batches)
    components.model.train()
    torch.manual_seed(1)
    losses: list[Tensor] = []
    for number, x in enumerate(batches):
        for step in components.optimizer_steps:
            step.set_progress(number / len(batches))
            losses += step(x).values()
    return [*losses, *components.model.state_dict().values(), *components.objective.state_dict().values()]


def is_flushed() -> bool:
    small = torch.full((3,), 1e-20)
    return not (small * small).any()


@pytest.mark.parametrize("before", [False, True])
def test_results_below_1e_38_are_zero_inside_and_the_state_of_the_thread_returns(before: bool) -> None:
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot replace such results by zero")
    try:
        with flush_denormals():
            assert is_flushed()
        assert is_flushed() == before
        with pytest.raises(RuntimeError), flush_denormals():
            raise RuntimeError
        assert is_flushed() == before
    finally:
        torch.set_flush_denormal(False)


PRINT_SHARES_OF_DENORMALS = """
import torch, aetrain
from aetrain.runs import train

def fit(state, steps, *others):
    small = torch.full((1 << 18,), 1.2e-38) / 2  # by two threads, half of the numbers each
    print(*[float((half != 0).double().mean()) for half in small.chunk(2)], torch.get_num_threads())

train.fit = fit
aetrain.run(["dataset=digits", "model=deep", "device=cpu", "threads=2", "epochs=0", "views=none"])
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_all_threads_of_a_run_replace_results_below_1e_38(threads: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", PRINT_SHARES_OF_DENORMALS]
    outcome = process([], tmp_path, program=program, OMP_NUM_THREADS=threads)
    assert "0.0 0.0 2" in outcome.out, outcome


def test_adam_has_no_denormal_means_after_gradients_vanish() -> None:
    weight = torch.nn.Parameter(torch.ones(50))
    optimizer = torch.optim.Adam([weight], fused=True)
    with flush_denormals():
        for step in range(1200):
            weight.grad = torch.full((50,), 1e-3 if step == 0 else 0.0)
            optimizer.step()
    mean = optimizer.state[weight]["exp_avg"]
    assert not ((mean != 0) & (mean.abs() < torch.finfo(torch.float32).tiny)).any()


# Models that keep Python state, or that torch cannot trace on every machine.
UNCOMPILED = {"categorical", "vqvae", "lstm"}


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler")
@pytest.mark.parametrize(
    "overrides",
    [
        *([f"model={name}"] for name in groups()["model"]),
        ["sparsity=wta", "noise=masking", "augment=affine"],
        ["sparsity=topk", "sparsity.k=3"],
        ["optimizer=lbfgs", "optimizer.max_iter=3"],
    ],
    ids=" ".join,
)
def test_compiled_steps_equal_those_of_autograd(overrides: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Except for rounding, and with the same random numbers; the last batch has another size than the compiled one."""
    results = []
    for compiled in (False, True):
        components = build_components(*overrides)
        generator = torch.Generator().manual_seed(0)
        shape = components.model.image_shape
        batches = [torch.rand(count, *shape, generator=generator) for count in (8, 8, 8, 5)]
        with caplog.at_level("INFO"):
            results.append(take_steps(components, compiled, batches))
    if overrides[0].removeprefix("model=") not in UNCOMPILED:
        assert caplog.text.count("compiled in") == len(components.optimizer_steps), caplog.text
    for by_autograd, by_program in zip(*results, strict=True):
        torch.testing.assert_close(by_program, by_autograd, rtol=1e-5, atol=1e-5)


def test_only_batches_of_the_compiled_size_use_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record_sizes(graph: torch.fx.GraphModule, cuda: bool) -> Callable[[Tensor], object]:
        def program(x: Tensor) -> object:
            sizes.append(len(x))
            return graph(x)

        return program

    monkeypatch.setattr(compile, "_compile_graph", record_sizes)
    components = build_components("model=linear")
    batches = [torch.rand(count, *components.model.image_shape) for count in (8, 5, 8)]
    compile_steps(components.optimizer_steps, (components.model, components.objective), batches)
    assert all(weight.grad is None for weight in components.model.parameters())
    sizes.clear()
    for x in batches:
        components.optimizer_steps[0](x)
    assert sizes == [8, 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv", "conv_unpool", "aae"])
def test_gradients_of_a_program_have_the_strides_of_the_weights(name: str) -> None:
    """A fused optimizer reads both in one order. Weights of pooling networks are in channels-last order."""
    components = build_components(f"model={name}")
    components.model.train()
    for step in components.optimizer_steps:
        graph, weights = compile.trace_forward_backward(step, torch.rand(4, *components.model.image_shape))
        gradients, _ = graph(torch.rand(4, *components.model.image_shape))
        assert [gradient.stride() for gradient in gradients] == [weight.stride() for weight in weights]


class Stateful(nn.Module):
    """A module that declares Python state."""

    stateful = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Schedule(Scheduled):
    """A scheduled module that declares nothing, and is stateful by default."""

    def set_progress(self, progress: float) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x


class StatelessSchedule(Schedule):
    """A scheduled module that declares that it keeps no state."""

    stateful = False


def log_of_compiling(components: Components, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Compile the steps of components, take one, and return the log lines of it."""
    caplog.clear()
    with caplog.at_level("INFO"):
        take_steps(components, True, [torch.rand(8, *components.model.image_shape)])
    return [record.getMessage() for record in caplog.records]


@pytest.mark.usefixtures("_no_compiler")
@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["sparsity=topk", "sparsity.start=20"], "TopK"),
        (["sparsity=topk", "sparsity.k=5", "sparsity.start=6", "sparsity.anneal=1"], "TopK"),
        (["model=vqvae"], "Quantized"),
    ],
)
def test_model_with_python_state_is_left_uncompiled_with_one_log_line(
    overrides: list[str], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    components = build_components(*overrides)
    (line,) = log_of_compiling(components, caplog)
    assert line.startswith(f"compile=true is ignored: {name} keeps state in Python")
    assert all(step.gradients == step.backward for step in components.optimizer_steps)


@pytest.mark.usefixtures("_no_compiler")
@pytest.mark.parametrize("module", [Stateful(), Schedule()], ids=["declared", "scheduled"])
def test_module_from_outside_that_is_stateful_is_left_uncompiled(
    module: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    components = build_components("model=deep")
    components.model.code_transform[0] = module
    (line,) = log_of_compiling(components, caplog)
    assert line.startswith(f"compile=true is ignored: {type(module).__name__} keeps state in Python")
    assert all(step.gradients == step.backward for step in components.optimizer_steps)


@pytest.mark.usefixtures("_no_compiler")
@pytest.mark.parametrize("override", ["sparsity.start=null", "sparsity.start=10"])
def test_topk_with_a_constant_k_is_compiled(override: str, caplog: pytest.LogCaptureFixture) -> None:
    components = build_components("sparsity=topk", "sparsity.k=10", override)
    (line,) = log_of_compiling(components, caplog)
    assert line.startswith("compiled in")
    assert all(isinstance(step.gradients, compile.CompiledStep) for step in components.optimizer_steps)


@pytest.mark.usefixtures("_no_compiler")
def test_scheduled_module_that_declares_no_state_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    components = build_components("model=deep")
    components.model.code_transform[0] = StatelessSchedule()
    (line,) = log_of_compiling(components, caplog)
    assert line.startswith("compiled in")


class CachedTable(nn.Module):
    """A module that computes a table in its first pass and keeps it."""

    @cached_property
    def table(self) -> Tensor:
        return torch.full((), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table


@pytest.mark.usefixtures("_no_compiler")
def test_module_that_caches_a_constant_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    results = []
    for compiled in (False, True):
        components = build_components("model=deep")
        components.model.code_transform[0] = CachedTable()
        x = torch.rand(8, *components.model.image_shape, generator=torch.Generator().manual_seed(0))
        with caplog.at_level("INFO"):
            results.append(take_steps(components, compiled, [x, x]))
    assert "compiled in" in caplog.text
    torch.testing.assert_close(*results)


class MovingMean(nn.Module):
    """A module that declares a state: it replaces a buffer by another tensor, which a program would not do."""

    stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


@pytest.mark.usefixtures("_no_compiler")
def test_compiling_changes_no_buffer_of_a_stateful_module(caplog: pytest.LogCaptureFixture) -> None:
    components = build_components("model=deep")
    components.model.code_transform[0] = module = MovingMean()
    before = module.mean
    with caplog.at_level("INFO"):
        compile_steps(components.optimizer_steps, [components.model], [torch.rand(8, *components.model.image_shape)])
    assert "MovingMean keeps state in Python" in caplog.text
    assert module.mean is before
    assert module.mean == 0


class StepCount(nn.Module):
    """A module with a buffer that changes in place, which is no Python state."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x


@pytest.mark.usefixtures("_no_compiler")
def test_compiling_restores_a_buffer_that_changes_in_place(caplog: pytest.LogCaptureFixture) -> None:
    components = build_components("model=deep")
    components.model.code_transform[0] = module = StepCount()
    x = torch.rand(8, *components.model.image_shape)
    with caplog.at_level("INFO"):
        compile_steps(components.optimizer_steps, [components.model], [x])
    assert "compiled in" in caplog.text
    assert module.count == 0
    for number in (1, 2):
        components.optimizer_steps[0](x)
        assert module.count == number


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler")
def test_compiling_changes_nothing_of_the_training(tiny: Callable[..., Path]) -> None:
    overrides = ("model=vae", "noise=gaussian", "epochs=2", "batch_size=20", "dataset.subset=50")
    plain, compiled = (fingerprint(tiny(*overrides, f"compile={word}", name=word)) for word in ("false", "true"))
    assert not differences(plain, compiled)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler")
def test_compiled_run_resumes_exactly(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    overrides = ("model=vae", "compile=true", "augment=affine", "batch_size=20")
    with caplog.at_level("INFO"):
        uninterrupted = fingerprint(tiny(*overrides, "epochs=3", name="uninterrupted"))
        tiny(*overrides, "epochs=1", name="resumed")
        assert not differences(uninterrupted, fingerprint(tiny(*overrides, "epochs=3", name="resumed")))
    assert caplog.text.count("compiled in") == 3


def test_run_whose_compiler_fails_is_trained_without(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_error(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(compile, "_compile_graph", raise_error)
    with caplog.at_level("INFO"):
        run = tiny("model=linear", "compile=true")
    message = "compile=true is ignored: torch cannot compile this here: No working C++ compiler found"
    assert message in caplog.text
    plain = fingerprint(tiny("model=linear", name="plain"))
    assert not differences(plain, fingerprint(run))


@pytest.mark.parametrize("cuda", [False, True])
def test_program_is_a_cuda_graph_on_a_gpu(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda graph, **arguments: calls.append(arguments))
    compile._compile_graph(torch.fx.GraphModule({}, torch.fx.Graph()), cuda)
    assert [arguments["options"]["triton.cudagraphs"] for arguments in calls] == [cuda]


def test_log_line_states_when_compiling_pays() -> None:
    faster = compile.describe_speedup(10.0, before=3e-3, after=1e-3, steps_per_epoch=500)
    assert faster.endswith("compilation is repaid after 10 epochs")
    slower = compile.describe_speedup(10.0, before=1e-3, after=3e-3, steps_per_epoch=500)
    assert slower.endswith("compilation is not repaid here")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiler_of_torch_gives_the_steps_of_autograd(caplog: pytest.LogCaptureFixture) -> None:
    """With the C++ that it writes, and the random numbers of a run without it."""
    overrides = ["model=vae", "model.hidden=[16]", "augment=affine", "noise=gaussian"]
    batches = [torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    with caplog.at_level("INFO"):
        results = [take_steps(build_components(*overrides), compiled, batches) for compiled in (False, True)]
    if "compiled in" not in caplog.text:
        pytest.skip(caplog.text)
    for by_autograd, by_program in zip(*results, strict=True):
        torch.testing.assert_close(by_program, by_autograd, rtol=1e-4, atol=1e-5)


# --- Start ------------------------------------------------------------------------------------------------------------

# Modules that take longer to import than a small run takes to train, and that a run on the digits does not need.
HEAVY_MODULES = (
    *("torch._dynamo", "torch._inductor", "sympy", "torchmetrics", "torchvision", "matplotlib", "pandas", "scipy"),
    "sklearn.base",
)


@pytest.mark.slow
@pytest.mark.parametrize(("views", "needed"), [("none", set()), ("default", {"matplotlib"})])
def test_training_imports_no_heavy_module_that_it_does_not_need(views: str, needed: set[str], tmp_path: Path) -> None:
    """The figures of the views are drawn by matplotlib, at the end of a run."""
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in HEAVY_MODULES if name not in needed)
    program = f"import sys; {blocked}; from aetrain.cli import main; main()"
    overrides = [*TINY, "model=vae", f"views={views}", "hydra.run.dir=run"]
    completed = subprocess.run(
        [sys.executable, "-c", program, *overrides], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == 0, completed.stderr


OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {  # a class and its arguments
    "adam": (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1}),
    "fused adam": (torch.optim.Adam, {"lr": 1e-2, "fused": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2}),
    "sgd": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    "torch's lbfgs": (torch.optim.LBFGS, {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
    "lbfgs": (LBFGS, {"max_iter": 3}),
}


def optimize(optimizer_class: Any, arguments: dict[str, Any]) -> list[Tensor]:
    """Return the weights of a small model after three steps, with a saved and loaded optimizer state in between."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(16, 5), torch.randn(16, 2)
    optimizer = optimizer_class(model.parameters(), **arguments)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        state = optimizer.state_dict()
        optimizer = optimizer_class(model.parameters(), **arguments)
        optimizer.load_state_dict(state)
    return [weight.detach() for weight in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_without_compiler_takes_the_steps_of_torchs_class(name: str) -> None:
    optimizer_class, arguments = OPTIMIZERS[name]
    subclass = without_compiler(optimizer_class)
    assert issubclass(subclass, optimizer_class)
    assert subclass is not optimizer_class
    weights, expected = optimize(subclass, arguments), optimize(optimizer_class, arguments)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lbfgs"])
def test_every_optimizer_option_takes_the_steps_of_torchs_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for replaced in (True, False):
        with monkeypatch.context() as patch:
            if not replaced:
                patch.setattr("aetrain.runs.build.without_compiler", lambda optimizer_class: optimizer_class)
            components = build_components("model=linear", f"optimizer={name}")
        x = torch.rand(16, *components.model.image_shape, generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            components.optimizer_steps[0](x)
        results.append([*components.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


OPTIMIZER_PROGRAM = """
import sys, torch
from aetrain.training.optimizers import LBFGS
from aetrain.utils.compat import without_compiler

classes = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.LBFGS]
before = {cls: dict(vars(cls)) for cls in (torch.optim.Optimizer, *classes)}
for optimizer_class in (*classes, LBFGS):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = without_compiler(optimizer_class)([weight], lr=0.1)
    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    assert (weight != 1).all()
    optimizer.load_state_dict(optimizer.state_dict())
    if not issubclass(optimizer_class, torch.optim.LBFGS):  # it supports one group
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
assert "torch._dynamo" not in sys.modules, "torch's compiler was imported"
for cls, attributes in before.items():
    assert dict(vars(cls)) == attributes, f"{cls} was changed"
"""


@pytest.mark.slow
def test_optimizer_without_compiler_imports_no_compiler_and_changes_nothing_of_torch() -> None:
    completed = subprocess.run([sys.executable, "-c", OPTIMIZER_PROGRAM], capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr


# --- Metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 31), (1, 8, 8), (1, 5, 9), (2, 4, 4), (1, 3, 3), (1, 2, 2)])
def test_ssim_equals_its_equations(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *shape, generator=generator)
    y = (x + 0.2 * torch.randn(4, *shape, generator=generator)).clamp(0, 1)
    assert image_errors.ssim(y, x) == pytest.approx(ssim_by_pixel(y, x), abs=1e-5)


def test_ssim_of_images_in_parts_equals_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(2, 5, 3, 12, 13, generator=torch.Generator().manual_seed(0))
    whole = image_errors.ssim(y, x)
    for max_pixels in (1, 2 * x[0].numel()):
        monkeypatch.setattr(image_errors, "SSIM_MAX_PIXELS", max_pixels)
        torch.testing.assert_close(image_errors.ssim(y, x), whole)


def ssim_by_pixel(y: Tensor, x: Tensor) -> list[float]:
    """Return SSIM by the equations of the paper: pixel by pixel, each with its own window."""
    side = min(x.shape[2:])
    window = min(11, side - 1 + side % 2)
    radius = window // 2
    sigma = 1.5 if window == 11 else max(window - 1, 1) / 7
    offsets = torch.arange(window, dtype=torch.float64) - radius
    profile = torch.exp(-offsets.square() / (2 * sigma**2)) if window > 3 else torch.ones(window, dtype=torch.float64)
    weights = torch.outer(profile, profile) / profile.sum() ** 2
    a, b = (F.pad(images.double(), [radius] * 4, "reflect") for images in (y, x))
    values = []
    for image in range(len(x)):
        total = 0.0
        for channel in range(x.shape[1]):
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    region = (image, channel, slice(row, row + window), slice(column, column + window))
                    p, q = a[region], b[region]
                    mp, mq = (weights * p).sum(), (weights * q).sum()
                    vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                    covariance = (weights * (p - mp) * (q - mq)).sum()
                    total += float(
                        (2 * mp * mq + 1e-4) * (2 * covariance + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                    )
        values.append(total / x[0].numel())
    return values


# --- The loop ---------------------------------------------------------------------------------------------------------


def test_epoch_makes_no_second_copy_of_the_images() -> None:
    """The data set stays in memory with one byte a pixel; one batch at a time is converted to floats."""
    images = Examples(torch.randint(0, 256, (512, 1, 8, 8), dtype=torch.uint8))
    sizes: list[int] = []

    class RecordingPrepare(Prepare):
        def __call__(self, values: Values, generator: torch.Generator | None = None) -> Tensor:
            sizes.append(values.shape.numel())
            return super().__call__(values, generator)

    batches = Batches(images, 32, RecordingPrepare())
    assert batches.values is images.values
    components = build_components("model=linear")
    fit(TrainState(components.model, 0, 1), components.optimizer_steps, batches)
    assert max(sizes) == 32 * 64
