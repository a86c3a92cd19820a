"""Checks with known answers, one function each. To add a check, write a function below and add it to CHECKS.

A check returns a description of its result. It raises CheckFailed if the result is not the known answer, and
CheckSkipped if the check cannot be done on this machine.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, distributions, nn

from aetrain import api
from aetrain.data.digits import Digits
from aetrain.model.codes import GaussianCode
from aetrain.model.layers import TiedLinear
from aetrain.model.records import Forward
from aetrain.objective.contractive import Contractive
from aetrain.objective.importance import log_weights
from aetrain.objective.penalties import KL
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.selfcheck.expect import CheckSkipped, expect
from aetrain.selfcheck.fingerprint import fingerprint
from aetrain.selfcheck.resume import check_resume
from aetrain.storage.hashing import sha256
from aetrain.training.pretraining.rbm import RBM

DIGITS = ("dataset=digits", "device=cpu", "views=none")
DIGITS_SHA256 = "d3fdcebc521d2d149103d3ddd19d54443cfbec6c384ae4a6bae7a0cea2c01d5f"
NUM_ESTIMATES = 32  # of each bound of the log-likelihood
MAX_STANDARD_ERRORS = 5  # distance of a Monte Carlo estimate from the exact value
MAX_GRADIENT_GAP = 1e-2  # between devices, relative


@dataclass(frozen=True)
class CheckContext:
    """The folders of a check."""

    folder: Path  # for its files
    data_dir: str  # with the downloaded archives


Check = Callable[[CheckContext], str]


def components_of(*overrides: str) -> Components:
    """Return the components of a config on the embedded digits."""
    config, _, all_overrides = api.compose_config([*DIGITS, *overrides])
    return build(entry.check(config, all_overrides))


def digits(count: int, device: str = "cpu") -> Tensor:
    """Return the first of the embedded digits, [count, 1, 8, 8] in [0, 1]."""
    return Digits().read()[0].pixels[:count].to(torch.float32).div(255).to(device)


def expect_close(name: str, value: float, known: float, tolerance: float) -> str:
    """Return a description of a value; raise CheckFailed if it is further than `tolerance` from the known answer."""
    text = f"{name} {value:.6g}, known {known:.6g}"
    expect(math.isfinite(value) and abs(value - known) <= tolerance, text)
    return text


def linear_is_pca(context: CheckContext) -> str:
    """Check that a linear autoencoder with the exact solution has the error and the directions of PCA."""
    overrides = ["model=linear", "likelihood=gaussian", "pretrain=pca", "epochs=0", "model.code_dim=8"]
    run = api.run([*DIGITS, *overrides, f"hydra.run.dir='{context.folder / 'pca'}'"])
    angle = run.metrics["test/pca_angle"]
    expect(angle < 1, f"the angle to the principal directions is {angle} degrees")
    return expect_close("SSE", run.metrics["test/sse"], run.metrics["test/pca_sse"], 1e-3)


def tied_weights_are_shared(_: CheckContext) -> str:
    """Check that after optimizer steps the decoder still uses the encoder's weights."""
    components = components_of("model=tied")
    components.model.train()
    for _step in range(3):
        components.optimizer_steps[0](digits(32))
    layers = [layer for layer in components.model.modules() if isinstance(layer, TiedLinear)]
    addresses = {weight.data_ptr() for weight in components.model.parameters()}
    is_shared = bool(layers) and all(layer.source.weight.data_ptr() in addresses for layer in layers)
    expect(is_shared, "the decoder has a copy of the weights")
    h = torch.randn(4, layers[0].source.out_features)
    gap = (layers[0](h) - (h @ layers[0].source.weight + layers[0].bias)).abs().max().item()
    return expect_close(f"{len(layers)} layers on shared weights, gap", gap, 0, 1e-5)


def kl_is_monte_carlo(_: CheckContext) -> str:
    """Check KL(q || p) in closed form against the mean of log q - log p over samples of q."""
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(1, 4, generator=generator), torch.randn(1, 4, generator=generator)
    code = GaussianCode(z=mean, mean=mean, log_var=log_var)
    model = components_of("model=vae").model
    exact = KL()(model, Forward(x=mean, x_in=mean, hidden=(), code=code, decoded=mean)).item()
    std = (0.5 * log_var).exp()
    q, p = distributions.Normal(mean, std), distributions.Normal(0.0, 1.0)
    z = mean + std * torch.randn(200_000, 4, generator=generator)
    estimates = (q.log_prob(z) - p.log_prob(z)).sum(1)
    standard_error = estimates.std().item() / math.sqrt(len(estimates))
    return expect_close("KL", exact, estimates.mean().item(), MAX_STANDARD_ERRORS * standard_error)


def more_samples_tighten_the_bound(_: CheckContext) -> str:
    """Check ELBO <= IWAE-5 <= IWAE-50 in expectation (Burda et al. 2016, theorem 1), for a briefly trained model.

    Also check that the ELBO with its KL in closed form is IWAE-1. All estimates use independent samples.
    """
    torch.manual_seed(0)
    components, x = components_of("model=vae", "model.hidden=[32]", "model.code_dim=6"), digits(256)
    for _step in range(60):
        components.optimizer_steps[0](x)
    model = components.model.eval()
    code = cast(GaussianCode, model.encode(x))

    def iwae(samples: int) -> Tensor:
        """Return estimates [32] of the bound, each a mean over the images."""
        generator = torch.Generator().manual_seed(samples)
        weights = log_weights(model, x, code, NUM_ESTIMATES * samples, generator).detach().double()
        return weights.unflatten(0, (NUM_ESTIMATES, samples)).logsumexp(1).mean(1) - math.log(samples)

    kl = KL()(model, Forward(x=x, x_in=x, hidden=(), code=code, decoded=x)).mean().item()
    nlls = []
    for seed in range(NUM_ESTIMATES):
        z = model.sample(code, torch.Generator().manual_seed(seed))
        nlls.append(model.likelihood.nll(model.decode(z), x).mean())
    elbo = -torch.stack(nlls).detach().double() - kl
    iwae_1, iwae_5, iwae_50 = iwae(1), iwae(5), iwae(50)
    tolerance = MAX_STANDARD_ERRORS * math.sqrt((iwae_1.var() + elbo.var()).item() / NUM_ESTIMATES)
    expect_close("IWAE-1", iwae_1.mean().item(), elbo.mean().item(), tolerance)
    for lower, upper in ((elbo, iwae_5), (iwae_5, iwae_50)):
        min_gap = MAX_STANDARD_ERRORS * math.sqrt((lower.var() + upper.var()).item() / NUM_ESTIMATES)
        expect((upper - lower).mean().item() > min_gap, "a bound of more samples is not above one of fewer")
    return f"ELBO {elbo.mean():.3f}, IWAE-5 {iwae_5.mean():.3f}, IWAE-50 {iwae_50.mean():.3f} nats"


def contractive_is_autograd(_: CheckContext) -> str:
    """Check ||dz/dx||_F^2 of each image against the Jacobian of torch.autograd."""
    torch.manual_seed(0)
    model, x = components_of("model=deep", "model.hidden=[24]", "model.code_dim=6").model.eval(), digits(2)
    norms = Contractive()(model, model(x))

    def encode_image(image: Tensor) -> Tensor:
        return model.encode(image[None]).z[0]

    jacobians = [torch.autograd.functional.jacobian(encode_image, image) for image in x]
    known = torch.stack([jacobian.square().sum() for jacobian in jacobians])
    return expect_close("norm", norms.sum().item(), known.sum().item(), 1e-4 * known.sum().item())


def topk_has_its_l0(_: CheckContext) -> str:
    """Check that exactly k units of every code are not 0."""
    torch.manual_seed(0)
    model = components_of("model=deep", "sparsity=topk", "sparsity.k=5").model.eval()
    counts = (model.encode(digits(200)).z != 0).sum(1)
    expect(bool((counts == 5).all()), f"L0 from {counts.min()} to {counts.max()}, known 5")
    return "L0 5 of 32 in each of 200 codes"


def unpooling_restores_positions(_: CheckContext) -> str:
    """Check that max-pool indices put each maximum back at its position, and that the decoder uses them."""
    model, x = components_of("model=conv_unpool").model.eval(), digits(16)
    code = model.encode(x)
    expect(bool(code.pool_indices), "the code has no pool indices")
    h = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    pooled, pool_indices = nn.functional.max_pool2d(h, 2, ceil_mode=True, return_indices=True)
    unpooled = nn.functional.max_unpool2d(pooled, pool_indices, (2, 2), output_size=(7, 7))
    expect(bool(((unpooled == h) | (unpooled == 0)).all()), "a value is not at its position")
    expect(int((unpooled != 0).sum()) == pooled.numel(), "values were lost")
    change = model.decode(code).sub(model.decode(code.z)).abs().max().item()
    expect(change > 0, "the decoder ignores the pool indices")
    return f"{pooled.numel()} maxima at their positions, pool indices of {len(code.pool_indices)} layers"


def cd1_is_the_outer_product(_: CheckContext) -> str:
    """Check that the gradient of an RBM's loss is <v h> after one step of Gibbs sampling minus <v h> of the data."""
    torch.manual_seed(0)
    up, v = nn.Linear(12, 5), torch.rand(7, 12)
    rbm = RBM(up, nn.Parameter(torch.randn(12)))
    torch.manual_seed(1)
    rbm.losses(v)["loss"].backward()
    torch.manual_seed(1)
    with torch.no_grad():
        v_sampled = rbm.visible(rbm.sample(v))
        data, sampled = (torch.sigmoid(up(batch)).t() @ batch / len(batch) for batch in (v, v_sampled))
    gap = (cast(Tensor, up.weight.grad) - (sampled - data)).abs().max().item()
    return expect_close("gap of the gradient", gap, 0, 1e-6)


def same_seed_same_run(context: CheckContext) -> str:
    """Check that the same settings give the same weights twice, and another seed gives other weights."""
    weights = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run_dir = context.folder / name
        overrides = ["model=vae", "noise=masking", "dataset.subset=200", "epochs=1", f"seed={seed}"]
        api.run([*DIGITS, *overrides, f"hydra.run.dir='{run_dir}'"])
        weights.append(fingerprint(run_dir)["weights"])
    expect(weights[0] == weights[1], f"weights {weights[0]} and then {weights[1]}")
    expect(weights[0] != weights[2], "another seed gives the same weights")
    return f"weights {weights[0]} twice, {weights[2]} with another seed"


def resume_is_exact(context: CheckContext) -> str:
    """Check that a killed and resumed run equals an uninterrupted one."""
    overrides = ["model=vae", "noise=gaussian", "schedule=cosine", "dataset.subset=200", "epochs=3"]
    config, _, _ = api.compose_config([*DIGITS, *overrides, "dataset.validation=100", "keep=best"])
    return check_resume(config, context.folder / "resume")


def loading_gives_the_same(context: CheckContext) -> str:
    """Check that a loaded run reconstructs with the error in its metrics."""
    overrides = ["model=conv", "dataset.subset=200", "epochs=1"]
    run_dir = context.folder / "load"
    api.run([*DIGITS, *overrides, f"hydra.run.dir='{run_dir}'"])
    run = api.load(run_dir)
    x = components_of(*overrides).dataset.load().test.pixels.to(torch.float32).div(255)
    sse = (run.reconstruct(x) - x).square().flatten(1).sum(1).mean().item()
    return expect_close("SSE", sse, run.metrics["test/sse"], 1e-3)


def data_is_as_published(context: CheckContext) -> str:
    """Check the MD5 of the downloaded archives against the published ones, and the SHA-256 of the embedded digits."""
    import torchvision.datasets

    digest = sha256(b"".join(images.pixels.numpy().tobytes() for images in Digits().read()))
    expect(digest == DIGITS_SHA256, f"the digits have SHA-256 {digest}")
    checked = ["digits"]
    for name in ("MNIST", "FashionMNIST"):
        for archive, published in getattr(torchvision.datasets, name).resources:
            file = Path(context.data_dir).expanduser() / name / "raw" / archive
            if file.is_file():
                md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
                expect(md5 == published, f"{file} has MD5 {md5}, published {published}")
                checked.append(f"{name} {archive}")
    return f"{len(checked)} files as published: {', '.join(checked)}"


def gpu_and_cpu_agree(_: CheckContext) -> str:
    """Check that the GPU and the CPU compute the same loss and gradients."""
    _require_gpu()
    return compare_devices("cuda", "cpu")


def compare_devices(device: str, reference: str) -> str:
    """Check that a device computes the loss and gradients of a reference device, up to rounding in float32."""
    loss, gradients = _loss_and_gradients(device)
    reference_loss, reference_gradients = _loss_and_gradients(reference)
    gap = ((gradients - reference_gradients).norm() / reference_gradients.norm()).item()
    expect(gap < MAX_GRADIENT_GAP, f"the gradients differ by {gap:.2g} of their norm")
    return expect_close("loss", loss, reference_loss, 1e-3 * abs(reference_loss))


def _loss_and_gradients(device: str) -> tuple[float, Tensor]:
    """Return the loss and all gradients, flattened, of one model on one batch."""
    components = components_of("model=conv", f"device={device}")  # drawn on the CPU, so that all devices have the same
    model = components.model.eval()
    loss = components.objective(model, model(digits(64, device)))["loss"]
    loss.backward()
    gradients = [weight.grad.flatten().cpu() for weight in model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(gradients)


def resume_is_exact_on_gpu(context: CheckContext) -> str:
    """Check that a killed and resumed run on the GPU equals an uninterrupted one."""
    _require_gpu()
    config, _, _ = api.compose_config([*DIGITS, "model=conv", "device=cuda", "dataset.subset=200", "epochs=3"])
    return check_resume(config, context.folder / "resume on gpu")


def _require_gpu() -> None:
    if not torch.cuda.is_available():
        raise CheckSkipped("torch finds no CUDA device here")


CHECKS: Mapping[str, Check] = {
    "linear = PCA": linear_is_pca,
    "tied weights": tied_weights_are_shared,
    "KL = Monte Carlo": kl_is_monte_carlo,
    "ELBO <= IWAE-5 <= IWAE-50": more_samples_tighten_the_bound,
    "contractive = autograd": contractive_is_autograd,
    "L0 of top-k": topk_has_its_l0,
    "unpooling": unpooling_restores_positions,
    "CD-1 = outer product": cd1_is_the_outer_product,
    "same seed, same run": same_seed_same_run,
    "resume": resume_is_exact,
    "loading": loading_gives_the_same,
    "data": data_is_as_published,
    "GPU = CPU": gpu_and_cpu_agree,
    "resume on the GPU": resume_is_exact_on_gpu,
}
