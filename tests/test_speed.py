"""What makes it fast changes no result: products by another library, bfloat16, compiled steps, late imports."""

import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.paths import groups
from aetrain.evaluation import evaluator
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.training.backend import compile, matmul, precision
from aetrain.training.backend.compile import compile_updates
from aetrain.training.loop import Run, fit

BFLOAT16 = precision.cpu_has("avx512_bf16") or precision.cpu_has("amx_tile")
fast_here = pytest.mark.skipif(not BFLOAT16, reason="this processor has no bfloat16 arithmetic")


def build_components(*overrides: str) -> Components:
    config, _, overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, overrides))


# --- Products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(128, 784, 400), (400, 128, 784), (1000, 400, 20), (7, 30, 250)])
def test_products_by_the_other_library_are_as_exact(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b, one = (torch.rand(*size, generator=generator) - 0.3 for size in ((m, k), (n, k), (n,)))
    exact = a.double() @ b.double().T
    scale = (a.double().abs() @ b.double().abs().T).max()  # what rounding is measured by
    with matmul.matmul_by_onednn() as taken:
        if not taken:
            pytest.skip("MKL is fast on this processor, or there is a GPU")
        found = [a @ b.T, F.linear(a, b, one) - one, torch.bmm(a.expand(3, -1, -1), b.T.expand(3, -1, -1))[1]]
    assert all((one.double() - exact).abs().max() < 1e-6 * scale for one in found)


def test_a_library_that_rounds_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    by_torch = torch.Tensor.__matmul__

    def rounded(a: Tensor, b: Tensor) -> Tensor:
        double = a.dtype == torch.float64
        return by_torch(a, b) if double else by_torch(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    with matmul.matmul_by_onednn() as taken:
        assert not taken
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("slow", "cuda"), [(False, False), (True, True)])
def test_where_it_would_do_no_good_nothing_is_changed(slow: bool, cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(matmul, "_mkl_is_slow", lambda: slow)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with matmul.matmul_by_onednn() as taken:
        assert not taken
        assert torch.get_float32_matmul_precision() == before


def test_how_the_user_multiplies_is_left_as_it_was(tiny: Callable[..., Path]) -> None:
    before = torch.get_float32_matmul_precision()
    tiny("model=linear")
    assert torch.get_float32_matmul_precision() == before


# --- Precision --------------------------------------------------------------------------------------------------------


@fast_here
@pytest.mark.parametrize("model", groups()["model"])
def test_fast_trains_every_model_near_to_float32(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_why_not", lambda device, model: "")  # also where it is slow
    losses = []
    for word in ("float32", "fast"):
        parts = build_components(f"model={model}", f"precision={word}")
        x = torch.rand(32, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
        parts.model.train()
        torch.manual_seed(1)
        losses.append([terms["loss"].item() for terms in (parts.optimizer_steps[0].step(x) for _ in range(3))])
        assert all(weight.dtype == torch.float32 for weight in parts.model.parameters())
    exact, fast = losses
    assert fast != exact, "precision=fast changes nothing"
    assert fast == pytest.approx(exact, rel=0.05)


@fast_here
def test_figures_are_in_float32_however_it_trained(tiny: Callable[..., Path]) -> None:
    run = api.load(tiny("model=deep", "precision=fast"))
    x = build(train.checked(run.config, [])).dataset.load().test.pixels.to(torch.float32).div(255)
    assert run.reconstruct(x).dtype == torch.float32
    assert run.metrics["test/sse"] == pytest.approx(evaluator.sse(run.reconstruct(x), x).mean().item(), rel=1e-5)


@fast_here
def test_fast_run_goes_on_exactly(tiny: Callable[..., Path]) -> None:
    said = ("model=vae", "precision=fast", "noise=masking")
    whole = fingerprint(tiny(*said, "epochs=3", name="whole"))
    tiny(*said, "epochs=1", name="parts")
    assert not differences(whole, fingerprint(tiny(*said, "epochs=3", name="parts")))


def test_fast_where_there_is_no_bfloat16_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "cpu_has", lambda feature: False)
    build_components("precision=fast")
    assert "precision=fast is float32 here" in caplog.text


def test_on_a_gpu_fast_is_bfloat16_where_it_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for offered, chosen in ((True, precision.forward_autocast), (False, precision.exactly)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda offered=offered, **_: offered)
        assert precision.forward_precision("fast", torch.device("cuda"), nn.Conv2d(1, 1, 1)) is chosen


@pytest.mark.parametrize(
    ("has", "layer", "chosen"),
    [
        (set(), nn.Linear, precision.exactly),
        ({"avx512_bf16"}, nn.Linear, precision.forward_autocast),
        ({"avx512_bf16"}, nn.Conv2d, precision.exactly),
        ({"avx512_bf16", "amx_tile"}, nn.Conv2d, precision.forward_autocast),
    ],
)
def test_on_a_cpu_fast_is_bfloat16_where_that_is_faster(
    has: set[str], layer: Callable[..., nn.Module], chosen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has", lambda feature: feature in has)
    model = nn.Sequential(layer(*[1] * (2 if layer is nn.Linear else 3)))
    assert precision.forward_precision("fast", torch.device("cpu"), model) is chosen


# --- Compiled ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that does what it is told, operation by operation, and writes no C++."""
    monkeypatch.setattr(compile, "_compiled", lambda graph, cuda: graph)


def stepped(parts: Components, compiled: bool, batches: list[Tensor]) -> list[Tensor]:
    """LossDict, weights and buffers of a few steps."""
    if compiled:
        compile_updates(parts.optimizer_steps, (parts.model, parts.objective), batches)
    parts.model.train()
    torch.manual_seed(1)
    found = []
    for number, x in enumerate(batches):
        for update in parts.optimizer_steps:
            for hook in update.before_step:
                hook(number / len(batches))
            found += update.step(x).values()
    return [*found, *parts.model.state_dict().values(), *parts.objective.state_dict().values()]


# Models with a step that does more than compute, or that torch cannot write down on every machine.
NO_PROGRAM = {"vqvae", "lstm"}


@pytest.mark.usefixtures("_written_down")
@pytest.mark.parametrize(
    "said",
    [
        *([f"model={name}"] for name in groups()["model"]),
        ["sparsity=wta", "noise=masking", "augment=affine"],
        ["sparsity=topk", "sparsity.k=3"],
        ["optimizer=lbfgs", "optimizer.max_iter=3"],
    ],
    ids=" ".join,
)
def test_program_takes_the_steps_that_autograd_takes(said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """But for rounding, what is drawn at random included; the last batch is smaller than what was compiled for."""
    found = []
    for compiled in (False, True):
        parts = build_components(*said)
        generator = torch.Generator().manual_seed(0)
        batches = [torch.rand(count, *parts.model.image_shape, generator=generator) for count in (8, 8, 8, 5)]
        with caplog.at_level("INFO"):
            found.append(stepped(parts, compiled, batches))
    if said[0].removeprefix("model=") not in NO_PROGRAM:
        assert caplog.text.count("compiled in") == len(parts.optimizer_steps), caplog.text
    for plain, program in zip(*found, strict=True):
        torch.testing.assert_close(program, plain, rtol=1e-5, atol=1e-5)


def test_only_batches_of_the_size_that_was_compiled_use_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(graph: torch.fx.GraphModule, cuda: bool) -> Callable[[Tensor], object]:
        return lambda x: seen.append(len(x)) or graph(x)

    monkeypatch.setattr(compile, "_compiled", watched)
    parts = build_components("model=linear")
    batches = [torch.rand(count, *parts.model.image_shape) for count in (8, 5, 8)]
    compile_updates(parts.optimizer_steps, (parts.model, parts.objective), batches)
    assert all(weight.grad is None for weight in parts.model.parameters())
    seen.clear()
    for x in batches:
        parts.optimizer_steps[0].step(x)
    assert seen == [8, 8]


@pytest.mark.parametrize("name", ["conv", "conv_unpool", "aae"])
def test_gradients_of_a_program_lie_as_the_weights_do(name: str) -> None:
    """A fused optimizer goes through both in one order. Pooling networks have their channels side by side."""
    parts = build_components(f"model={name}")
    parts.model.train()
    for update in parts.optimizer_steps:
        graph, weights = compile.trace_forward_backward(update, torch.rand(4, *parts.model.image_shape))
        gradients, _ = graph(torch.rand(4, *parts.model.image_shape))
        assert [g.stride() for g in gradients] == [w.stride() for w in weights]


@pytest.mark.usefixtures("_written_down")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["sparsity=topk", "sparsity.start=20"], "TopK changes while training goes on"),
        (["sparsity=topk", "sparsity.k=5", "sparsity.start=6", "sparsity.anneal=1"], "TopK changes while training"),
        (["model=vqvae"], "Quantized remembers (seen)"),
    ],
)
def test_what_a_step_does_beside_computing_is_not_lost(
    said: list[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = build_components(*said)
    with caplog.at_level("INFO"):
        stepped(parts, True, [torch.rand(8, *parts.model.image_shape)])
    assert reason in caplog.text
    assert all(update.gradients == update.by_autograd for update in parts.optimizer_steps)


class Lazy(nn.Module):
    """Makes a table at its first pass, and keeps it."""

    @cached_property
    def table(self) -> Tensor:
        return torch.full((), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table


@pytest.mark.usefixtures("_written_down")
def test_what_is_made_once_and_kept_is_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    found = []
    for compiled in (False, True):
        parts = build_components("model=deep")
        parts.model.code_transform[0] = Lazy()
        x = torch.rand(8, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
        with caplog.at_level("INFO"):
            found.append(stepped(parts, compiled, [x, x]))
    assert "compiled in" in caplog.text
    torch.testing.assert_close(*found)


class Remembering(nn.Module):
    """Keeps a moving mean the way that a program does not: by another tensor under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


def test_a_buffer_that_is_replaced_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    parts = build_components("model=deep")
    parts.model.code_transform[0] = memory = Remembering()
    before = memory.mean
    with caplog.at_level("INFO"):
        compile_updates(parts.optimizer_steps, [parts.model], [torch.rand(8, *parts.model.image_shape)])
    assert "Remembering remembers (mean)" in caplog.text
    assert memory.mean is before
    assert memory.mean == 0


@pytest.mark.usefixtures("_written_down")
def test_compiling_touches_nothing_of_the_training(tiny: Callable[..., Path]) -> None:
    said = ("model=vae", "noise=gaussian", "epochs=2", "batch_size=20", "dataset.subset=50")
    plain, compiled = (fingerprint(tiny(*said, f"compile={word}", name=word)) for word in ("false", "true"))
    assert not differences(plain, compiled)


@pytest.mark.usefixtures("_written_down")
def test_compiled_run_goes_on_exactly(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    said = ("model=vae", "compile=true", "augment=affine", "batch_size=20")
    with caplog.at_level("INFO"):
        whole = fingerprint(tiny(*said, "epochs=3", name="whole"))
        tiny(*said, "epochs=1", name="parts")
        assert not differences(whole, fingerprint(tiny(*said, "epochs=3", name="parts")))
    assert caplog.text.count("compiled in") == 3


def test_what_cannot_be_compiled_is_trained_as_it_is(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(compile, "_compiled", refuse)
    with caplog.at_level("INFO"):
        run = tiny("model=linear", "compile=true")
    assert (
        "compile=true is left out, since torch cannot compile this here: No working C++ compiler found" in caplog.text
    )
    plain = fingerprint(tiny("model=linear", name="plain"))
    assert not differences(plain, fingerprint(run))


@pytest.mark.parametrize("cuda", [False, True])
def test_on_a_gpu_the_program_is_a_cuda_graph(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda graph, **said: asked.append(said))
    compile._compiled(torch.fx.GraphModule({}, torch.fx.Graph()), cuda)
    assert [said["options"]["triton.cudagraphs"] for said in asked] == [cuda]


def test_when_it_pays_is_said() -> None:
    assert compile.said(10.0, before=3e-3, after=1e-3, steps=500).endswith("wins that back after 10 epochs")
    assert compile.said(10.0, before=1e-3, after=3e-3, steps=500).endswith("so it does not pay here")


@pytest.mark.filterwarnings("ignore")
def test_torchs_compiler_does_what_autograd_does(caplog: pytest.LogCaptureFixture) -> None:
    """With the C++ that it writes, and the random numbers of a run without."""
    said = ["model=vae", "model.hidden=[16]", "augment=affine", "noise=gaussian"]
    batches = [torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    with caplog.at_level("INFO"):
        found = [stepped(build_components(*said), compiled, batches) for compiled in (False, True)]
    if "compiled in" not in caplog.text:
        pytest.skip(caplog.text)
    for plain, program in zip(*found, strict=True):
        torch.testing.assert_close(program, plain, rtol=1e-4, atol=1e-5)


# --- Start ------------------------------------------------------------------------------------------------------------

# What takes longer to import than a small run to train, and no run of the digits' kind needs.
LATE = ("torch._dynamo", "torch._inductor", "sympy", "torchmetrics", "torchvision", "matplotlib", "pandas")


def test_training_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in LATE)
    program = f"import sys; {blocked}; from aetrain.cli import main; main()"
    said = [*TINY, "model=vae", "views=default", "hydra.run.dir=run"]
    done = subprocess.run(
        [sys.executable, "-c", program, *said], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_optimizers_step_as_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left without torch's wrapping, an optimizer does the same."""
    for name in ("adam", "adamw", "sgd", "lbfgs"):
        found = []
        for wrapped in (False, True):
            with monkeypatch.context() as patch:
                if wrapped:
                    patch.setattr("aetrain.training.loop.step_of", lambda optimizer: optimizer.step)
                parts = build_components("model=linear", f"optimizer={name}")
            x = torch.rand(16, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
            for _ in range(3):
                parts.optimizer_steps[0].step(x)
            found.append([*parts.model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), name


# --- Metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 31), (1, 8, 8), (1, 5, 9), (2, 4, 4), (1, 3, 3), (1, 2, 2)])
def test_ssim_is_what_its_equations_say(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *shape, generator=generator)
    y = (x + 0.2 * torch.randn(4, *shape, generator=generator)).clamp(0, 1)
    assert evaluator.ssim(y, x) == pytest.approx(known_ssim(y, x), abs=1e-5)


def known_ssim(y: Tensor, x: Tensor) -> list[float]:
    """Pixel by pixel, each with its own window, as the paper's equations say."""
    side = min(x.shape[2:])
    window = min(11, side - 1 + side % 2)
    reach = window // 2
    sigma = 1.5 if window == 11 else max(window - 1, 1) / 7
    offsets = torch.arange(window, dtype=torch.float64) - reach
    line = torch.exp(-offsets.square() / (2 * sigma**2)) if window > 3 else torch.ones(window, dtype=torch.float64)
    weights = torch.outer(line, line) / line.sum() ** 2
    a, b = (F.pad(images.double(), [reach] * 4, "reflect") for images in (y, x))
    values = []
    for image in range(len(x)):
        total = 0.0
        for channel in range(x.shape[1]):
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    here = (image, channel, slice(row, row + window), slice(column, column + window))
                    p, q = a[here], b[here]
                    mp, mq = (weights * p).sum(), (weights * q).sum()
                    vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                    both = (weights * (p - mp) * (q - mq)).sum()
                    total += float(
                        (2 * mp * mq + 1e-4) * (2 * both + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                    )
        values.append(total / x[0].numel())
    return values


# --- The loop ---------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_no_second_copy_of_the_images() -> None:
    """The data set stays as it is stored, one byte a pixel: a batch at a time becomes floats."""
    from aetrain.data.images import Batches, Images, Prepare

    images = Images(torch.randint(0, 256, (512, 1, 8, 8), dtype=torch.uint8))
    sizes: list[int] = []

    class Watched(Prepare):
        def __call__(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
            sizes.append(pixels.numel())
            return super().__call__(pixels, generator)

    batches = Batches(images, 32, Watched())
    assert batches.pixels.data_ptr() == images.pixels.data_ptr()
    parts = build_components("model=linear")
    fit(Run(parts.model, 0, 1), parts.optimizer_steps, batches)
    assert max(sizes) == 32 * 64
