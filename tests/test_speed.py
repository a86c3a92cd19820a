"""What makes it fast changes no result: products by another library, bfloat16, compiled steps, late imports."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import experiment, library
from aetrain.build import Parts, build
from aetrain.checks.fingerprint import differences, fingerprint
from aetrain.config.paths import groups
from aetrain.evaluation import ruler
from aetrain.model import linear
from aetrain.training import compiling, precision
from aetrain.training.compiling import Compiled
from aetrain.training.fit import Run, fit

by_torch = torch.compile
fast_here = pytest.mark.skipif(not precision._cpu_has_bfloat16(), reason="this processor has no bfloat16 arithmetic")


def parts_of(*overrides: str) -> Parts:
    config, _, said = library.composed([*TINY, *overrides])
    return build(experiment.checked(config, said))


# --- Products ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where MKL is slow, for layers of any size."""
    monkeypatch.setattr(linear, "MKL_IS_SLOW", True)
    monkeypatch.setattr(linear, "LARGE", 0)


def layer_and_images(dtype: torch.dtype = torch.float32) -> tuple[linear.Linear, Tensor]:
    torch.manual_seed(0)
    return linear.Linear(300, 40).to(dtype), torch.randn(64, 300, dtype=dtype, requires_grad=True)


@pytest.mark.usefixtures("_by_onednn")
def test_product_and_gradients_are_as_exact_as_torchs_own() -> None:
    layer, x = layer_and_images()
    y = layer(x)
    assert type(y.grad_fn).__name__ == "_ByOneDNNBackward", "the other library was not asked"
    weights = torch.randn_like(y)
    ours = [y, *torch.autograd.grad((y * weights).sum(), [x, layer.weight, layer.bias])]
    exact, at = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    known = F.linear(at, exact.weight, exact.bias)
    gradients = torch.autograd.grad((known * weights).sum(), [at, exact.weight, exact.bias])
    for one, other in zip(ours, [known, *gradients], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("_by_onednn")
def test_tied_weights_get_both_gradients() -> None:
    layer, x = layer_and_images()
    (both,) = torch.autograd.grad(linear.linear(layer(x), layer.weight.t(), None).square().sum(), layer.weight)
    known = F.linear(F.linear(x, layer.weight, layer.bias), layer.weight.t()).square().sum()
    torch.testing.assert_close(both, torch.autograd.grad(known, layer.weight)[0], rtol=1e-4, atol=1e-2)


@pytest.mark.usefixtures("_by_onednn")
def test_gradient_of_a_gradient() -> None:
    """What the contractive penalty takes, also for many directions at once."""
    layer, x = layer_and_images()
    rows = torch.eye(40)[:3, None].expand(-1, 64, -1)
    found = []
    for forward in (layer, nn.Linear.forward):
        y = torch.tanh(forward(x) if forward is layer else F.linear(x, layer.weight, layer.bias))
        (moved,) = torch.autograd.grad(y, x, rows, create_graph=True, is_grads_batched=True)
        found.append(torch.autograd.grad(moved.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_by_onednn")
def test_what_the_other_library_does_not_know_is_left_to_torch() -> None:
    layer, x = layer_and_images()
    many = torch.func.vmap(lambda one: layer(one))(torch.stack([x, x]))
    torch.testing.assert_close(many[0], F.linear(x, layer.weight, layer.bias))
    exact, at = layer_and_images(torch.float64)
    assert type(exact(at).grad_fn).__name__ == "AddmmBackward0"
    rows = torch.randn(2, 3, 300)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias))


@pytest.mark.usefixtures("_by_onednn")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_program_has_torchs_own_product() -> None:
    """Torch's compiler refuses the other library's with weights that are trained."""
    layer, x = layer_and_images()
    seen: list[str] = []

    def look(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch.compile(layer, backend=look)(x)
    assert len(seen) == 1
    assert "linear" in seen[0]
    assert "autograd_function" not in seen[0]


# --- Precision --------------------------------------------------------------------------------------------------------


@fast_here
@pytest.mark.parametrize("model", groups()["model"])
def test_fast_trains_every_model_near_to_float32(model: str) -> None:
    losses = []
    for word in ("float32", "fast"):
        parts = parts_of(f"model={model}", f"precision={word}")
        x = torch.rand(32, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
        parts.model.train()
        torch.manual_seed(1)
        losses.append([terms["loss"].item() for terms in (parts.updates[0].step(x) for _ in range(3))])
        assert all(weight.dtype == torch.float32 for weight in parts.model.parameters())
    exact, fast = losses
    assert fast != exact, "precision=fast changes nothing"
    assert fast == pytest.approx(exact, rel=0.05)


@fast_here
def test_figures_are_in_float32_however_it_trained(tiny: Callable[..., Path]) -> None:
    run = library.load(tiny("model=deep", "precision=fast"))
    x = build(experiment.checked(run.config, [])).dataset.load().test.pixels.to(torch.float32).div(255)
    assert run.reconstruct(x).dtype == torch.float32
    assert run.metrics["test/sse"] == pytest.approx(ruler.sse(run.reconstruct(x), x).mean().item(), rel=1e-5)


@fast_here
def test_fast_run_goes_on_exactly(tiny: Callable[..., Path]) -> None:
    said = ("model=vae", "precision=fast", "noise=masking")
    whole = fingerprint(tiny(*said, "epochs=3", name="whole"))
    tiny(*said, "epochs=1", name="parts")
    assert not differences(whole, fingerprint(tiny(*said, "epochs=3", name="parts")))


def test_fast_where_there_is_no_bfloat16_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aetrain.training.precision._cpu_has_bfloat16", lambda: False)
    parts_of("precision=fast")
    assert "precision=fast is float32 here" in caplog.text


def test_on_a_gpu_fast_is_bfloat16_where_it_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for offered, chosen in ((True, precision.in_bfloat16), (False, precision.exactly)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda offered=offered, **_: offered)
        assert precision.arithmetic("fast", torch.device("cuda")) is chosen


# --- Compiled ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that hands back what it is given."""
    monkeypatch.setattr(compiling, "_program", lambda terms, parts, cuda: terms)


@pytest.mark.usefixtures("_pretended")
def test_compiling_touches_nothing_of_the_training(tiny: Callable[..., Path]) -> None:
    said = ("model=vae", "noise=gaussian", "epochs=2", "batch_size=20", "dataset.subset=50")
    plain, compiled = (fingerprint(tiny(*said, f"compile={word}", name=word)) for word in ("false", "true"))
    assert not differences(plain, compiled)


@pytest.mark.usefixtures("_pretended")
def test_only_batches_of_the_size_that_was_compiled_use_the_program() -> None:
    seen: list[int] = []
    layer = nn.Linear(3, 1)

    def terms(x: Tensor) -> dict[str, Tensor]:
        return {"loss": layer(x).square().mean()}

    compiled = Compiled(terms, [layer])
    compiled.begin(torch.ones(8, 3), steps=1)
    compiled.program = lambda x: seen.append(len(x)) or terms(x)
    for size in (8, 5, 8):
        compiled(torch.ones(size, 3))
    assert seen == [8, 8]
    assert layer.weight.grad is None


def test_what_cannot_be_compiled_is_trained_as_it_is(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(compiling, "_program", refuse)
    with caplog.at_level("INFO"):
        run = tiny("model=linear", "compile=true")
    assert (
        "compile=true is left out, since torch cannot compile this here: No working C++ compiler found" in caplog.text
    )
    plain = fingerprint(tiny("model=linear", name="plain"))
    assert not differences(plain, fingerprint(run))


@pytest.mark.parametrize(("cuda", "mode"), [(False, "default"), (True, "reduce-overhead")])
def test_on_a_gpu_the_program_is_a_cuda_graph(cuda: bool, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda terms, **said: asked.append(said))
    compiling._program(dict, [], cuda)
    assert asked == [{"dynamic": False, "mode": mode}]


def test_when_it_pays_is_said() -> None:
    assert compiling.said(10.0, before=3e-3, after=1e-3, steps=500).endswith("wins that back after 10 epochs")
    assert compiling.said(10.0, before=1e-3, after=3e-3, steps=500).endswith("so it does not pay here")


@pytest.mark.filterwarnings("ignore")
def test_compiled_loss_and_gradients_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's compiler but for the last stage, which writes C++ and takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda terms, mode, **said: by_torch(terms, backend="aot_eager", **said))
    parts = parts_of("model=vae", "model.hidden=[16]", "compile=true", "sparsity=topk", "sparsity.k=4")
    compiled = parts.updates[0].terms
    assert isinstance(compiled, Compiled)
    x = torch.rand(32, *parts.model.image_shape)
    parts.model.train()
    told = compiled.begin(x, steps=10)
    if compiled.program is None:
        pytest.skip(told)
    found = []
    for terms in (compiled, compiled.plain):
        torch.manual_seed(0)
        parts.model.eval()  # nothing drawn at random: a program draws other numbers
        loss = terms(x)["loss"]
        found.append((loss, *torch.autograd.grad(loss, list(parts.model.parameters()), allow_unused=True)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


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
                    patch.setattr("aetrain.training.fit.step_of", lambda optimizer: optimizer.step)
                parts = parts_of("model=linear", f"optimizer={name}")
            x = torch.rand(16, *parts.model.image_shape, generator=torch.Generator().manual_seed(0))
            for _ in range(3):
                parts.updates[0].step(x)
            found.append([*parts.model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), name


# --- Figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 31), (1, 8, 8), (1, 5, 9), (2, 4, 4), (1, 3, 3), (1, 2, 2)])
def test_ssim_is_what_its_equations_say(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *shape, generator=generator)
    y = (x + 0.2 * torch.randn(4, *shape, generator=generator)).clamp(0, 1)
    assert ruler.ssim(y, x) == pytest.approx(known_ssim(y, x), abs=1e-5)


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
    from aetrain.data.batches import Batches
    from aetrain.data.dataset import Images, Prepare

    images = Images(torch.randint(0, 256, (512, 1, 8, 8), dtype=torch.uint8))
    sizes: list[int] = []

    class Watched(Prepare):
        def __call__(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
            sizes.append(pixels.numel())
            return super().__call__(pixels, generator)

    batches = Batches(images, 32, Watched())
    assert batches.pixels.data_ptr() == images.pixels.data_ptr()
    parts = parts_of("model=linear")
    fit(Run(parts.model, 0, 1), parts.updates, batches)
    assert max(sizes) == 32 * 64
