"""Checks with known answers: one function each. To add one, write it below and put it into CHECKS.

A check says what it has found, raises Wrong where that is not the known answer, and Skipped where there is nothing to
look at on this machine.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, distributions, nn

from aetrain import experiment, library
from aetrain.build import Parts, build
from aetrain.checks.expect import Skipped, expect
from aetrain.checks.replay import interrupted
from aetrain.data.digits import Digits
from aetrain.model.layers import TiedLinear
from aetrain.model.records import Forward, GaussianCode
from aetrain.objective.contractive import Contractive
from aetrain.objective.importance import log_weights
from aetrain.objective.penalties import GaussianKL
from aetrain.training.rbm import RBM

DIGITS = ("dataset=digits", "device=cpu", "views=none")
DIGITS_SHA256 = "d3fdcebc521d2d149103d3ddd19d54443cfbec6c384ae4a6bae7a0cea2c01d5f"


@dataclass(frozen=True)
class Place:
    """Where checks may write, and where the archives are."""

    folder: Path
    data_dir: str


Check = Callable[[Place], str]


def parts_of(*overrides: str) -> Parts:
    """The cast that overrides describe, on the embedded digits."""
    config, _, said = library.composed([*DIGITS, *overrides])
    return build(experiment.checked(config, said))


def digits(count: int, device: str = "cpu") -> Tensor:
    """The first of the embedded digits, [count, 1, 8, 8]."""
    return Digits().read()[0].pixels[:count].to(torch.float32).div(255).to(device)


def near(what: str, ours: float, known: float, tolerance: float) -> str:
    """What was found, where it is as near to the known answer as it should be."""
    text = f"{what} {ours:.6g}, known {known:.6g}"
    expect(math.isfinite(ours) and abs(ours - known) <= tolerance, text)
    return text


def linear_is_pca(place: Place) -> str:
    """A linear autoencoder with the exact solution errs as PCA does, and spans its directions."""
    said = ["model=linear", "likelihood=gaussian", "pretrain=pca", "epochs=0", "model.code_dim=8"]
    run = library.run([*DIGITS, *said, f"hydra.run.dir='{place.folder / 'pca'}'"])
    expect(run.metrics["test/pca_angle"] < 1, f"the directions are {run.metrics['test/pca_angle']} degrees off")
    return near("SSE", run.metrics["test/sse"], run.metrics["test/pca_sse"], 1e-3)


def tied_is_tied(_: Place) -> str:
    """After steps of the optimizer, the decoder still works with the encoder's own weights."""
    parts = parts_of("model=tied")
    parts.model.train()
    for _step in range(3):
        parts.updates[0].step(digits(32))
    layers = [layer for layer in parts.model.modules() if isinstance(layer, TiedLinear)]
    own = {weight.data_ptr() for weight in parts.model.parameters()}
    expect(bool(layers) and all(layer.source.weight.data_ptr() in own for layer in layers), "a copy of the weights")
    h = torch.randn(4, layers[0].source.out_features)
    gap = (layers[0](h) - (h @ layers[0].source.weight + layers[0].bias)).abs().max().item()
    return near(f"{len(layers)} layers on shared weights, gap", gap, 0, 1e-5)


def kl_is_monte_carlo(_: Place) -> str:
    """KL(q || p) in closed form is the mean of log q - log p over draws of q, within five standard errors."""
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(1, 4, generator=generator), torch.randn(1, 4, generator=generator)
    code = GaussianCode(z=mean, mean=mean, log_var=log_var)
    model = parts_of("model=vae").model
    ours = GaussianKL()(model, Forward(x=mean, x_in=mean, hidden=(), code=code, decoded=mean)).item()
    q, p = distributions.Normal(mean, (0.5 * log_var).exp()), distributions.Normal(0.0, 1.0)
    z = mean + (0.5 * log_var).exp() * torch.randn(200_000, 4, generator=generator)
    drawn = (q.log_prob(z) - p.log_prob(z)).sum(1)
    return near("KL", ours, drawn.mean().item(), 5 * drawn.std().item() / math.sqrt(len(drawn)))


def more_draws_are_a_tighter_bound(_: Place) -> str:
    """ELBO <= IWAE-5 <= IWAE-50 in expectation (Burda et al. 2016, theorem 1), each from draws of its own.

    Of a slightly trained model; and -ELBO with its KL in closed form is IWAE-1, within five standard errors.
    """
    torch.manual_seed(0)
    parts, x = parts_of("model=vae", "model.hidden=[32]", "model.code_dim=6"), digits(256)
    for _step in range(60):
        parts.updates[0].step(x)
    model = parts.model.eval()
    code = model.encode(x)
    assert isinstance(code, GaussianCode)

    def iwae(count: int) -> Tensor:
        """32 estimates of the mean over the images."""
        weights = log_weights(model, x, code, 32 * count, torch.Generator().manual_seed(count)).detach().double()
        return weights.unflatten(0, (32, count)).logsumexp(1).mean(1) - math.log(count)

    known = Forward(x=x, x_in=x, hidden=(), code=code, decoded=x)
    drawn = [model.sample(code, torch.Generator().manual_seed(seed)) for seed in range(32)]
    nll = torch.stack([model.likelihood.nll(model.decode(each), x).mean() for each in drawn]).detach().double()
    elbo = -nll - GaussianKL()(model, known).mean().item()
    one, five, fifty = (iwae(count) for count in (1, 5, 50))
    near("IWAE-1", one.mean().item(), elbo.mean().item(), 5 * math.sqrt((one.var() + elbo.var()).item() / 32))
    for lower, upper in ((elbo, five), (five, fifty)):
        error = math.sqrt((lower.var() + upper.var()).item() / 32)
        expect((upper - lower).mean().item() > 5 * error, "a bound of more draws is not above one of fewer")
    return f"ELBO {elbo.mean():.3f}, IWAE-5 {five.mean():.3f}, IWAE-50 {fifty.mean():.3f} nats"


def contractive_is_autograd(_: Place) -> str:
    """||dz/dx||_F^2 is the sum of squares of torch's own Jacobian, image by image."""
    torch.manual_seed(0)
    model, x = parts_of("model=deep", "model.hidden=[24]", "model.code_dim=6").model.eval(), digits(2)
    ours = Contractive()(model, model(x))
    jacobians = [torch.autograd.functional.jacobian(lambda one: model.encode(one[None]).z[0], image) for image in x]
    known = torch.stack([jacobian.square().sum() for jacobian in jacobians])
    return near("norm", ours.sum().item(), known.sum().item(), 1e-4 * known.sum().item())


def topk_has_its_l0(_: Place) -> str:
    """Exactly k units of every code are not zero."""
    torch.manual_seed(0)
    model = parts_of("model=deep", "sparsity=topk", "sparsity.k=5").model.eval()
    counts = (model.encode(digits(200)).z != 0).sum(1)
    expect(bool((counts == 5).all()), f"L0 from {counts.min()} to {counts.max()}, known 5")
    return "L0 5 of 32 in each of 200 codes"


def unpooling_puts_back(_: Place) -> str:
    """The switches that the encoder hands on put each maximum back where it was, and zeros elsewhere."""
    model, x = parts_of("model=conv_unpool").model.eval(), digits(16)
    where = model.encode(x).where
    expect(bool(where), "the encoder hands on no switches")
    h = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    pooled, switches = nn.functional.max_pool2d(h, 2, ceil_mode=True, return_indices=True)
    back = nn.functional.max_unpool2d(pooled, switches, (2, 2), output_size=(7, 7))
    expect(bool(((back == h) | (back == 0)).all()), "a value is not where it was")
    expect(int((back != 0).sum()) == pooled.numel(), "values were lost")
    moved = model.decode(model.encode(x)).sub(model.decode(model.encode(x).z)).abs().max().item()
    expect(moved > 0, "the decoder does not look at the switches")
    return f"{pooled.numel()} maxima at their places, {len(where)} levels of switches"


def cd1_is_the_outer_product(_: Place) -> str:
    """The gradient of a machine's loss is <v h>_1 - <v h>_0: after a step of Gibbs sampling less data."""
    torch.manual_seed(0)
    up, v = nn.Linear(12, 5), torch.rand(7, 12)
    machine = RBM(up, nn.Parameter(torch.randn(12)))
    torch.manual_seed(1)
    machine.terms(v)["loss"].backward()
    torch.manual_seed(1)
    with torch.no_grad():
        last = machine.visible(machine.sample(v))
        means = [torch.sigmoid(up(each)).t() @ each / len(each) for each in (v, last)]
    gap = (cast(Tensor, up.weight.grad) - (means[1] - means[0])).abs().max().item()
    return near("gap of the gradient", gap, 0, 1e-6)


def same_seed_same_run(place: Place) -> str:
    """The same words twice give the same weights; another seed gives others."""
    from aetrain.checks.fingerprint import fingerprint

    weights = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        said = ["model=vae", "noise=masking", "dataset.subset=200", "epochs=1", f"seed={seed}"]
        library.run([*DIGITS, *said, f"hydra.run.dir='{place.folder / name}'"])
        weights.append(fingerprint(place.folder / name)["weights"])
    expect(weights[0] == weights[1], f"{weights[0]} and then {weights[1]}")
    expect(weights[0] != weights[2], "the seed changes nothing")
    return f"{weights[0]} twice, {weights[2]} with another seed"


def resume_is_exact(place: Place) -> str:
    """Killed and gone on with, a run comes to the same."""
    said = ["model=vae", "noise=gaussian", "schedule=cosine", "dataset.subset=200", "epochs=3"]
    config, _, _ = library.composed([*DIGITS, *said])
    return interrupted(config, place.folder / "resume")


def loading_gives_the_same(place: Place) -> str:
    """A loaded run reconstructs with the error that its metrics state."""
    said = ["model=conv", "dataset.subset=200", "epochs=1", f"hydra.run.dir='{place.folder / 'load'}'"]
    library.run([*DIGITS, *said])
    run = library.load(place.folder / "load")
    config, _, words = library.composed([*DIGITS, *said])
    x = build(experiment.checked(config, words)).dataset.load().test.pixels.to(torch.float32).div(255)
    sse = (run.reconstruct(x) - x).square().flatten(1).sum(1).mean().item()
    return near("SSE", sse, run.metrics["test/sse"], 1e-3)


def data_is_what_was_published(place: Place) -> str:
    """The archives' MD5 sums are the published ones, and the embedded digits are those that they were."""
    import torchvision.datasets

    images = Digits().read()
    sum_ = hashlib.sha256(b"".join(part.pixels.numpy().tobytes() for part in images)).hexdigest()
    expect(sum_ == DIGITS_SHA256, f"the digits have SHA-256 {sum_}")
    found = ["digits"]
    for name in ("MNIST", "FashionMNIST"):
        for archive, md5 in getattr(torchvision.datasets, name).resources:
            file = Path(place.data_dir) / name / "raw" / archive
            if file.is_file():
                own = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
                expect(own == md5, f"{file} has MD5 {own}, published {md5}")
                found.append(f"{name} {archive}")
    return f"{len(found)} files as published: {', '.join(found)}"


def gpu_and_cpu_agree(_: Place) -> str:
    """The same weights on the same images have the same loss and gradients on both."""
    _needs_gpu()
    return agree("cuda", "cpu")


def agree(one: str, other: str) -> str:
    """The same of any two devices, as near as single precision and the order of sums allow."""
    found: dict[str, tuple[float, Tensor]] = {}
    for name, device in (("one", one), ("other", other)):
        parts = parts_of("model=conv", f"device={device}")  # made on the CPU from the seed, so the weights are the same
        parts.model.eval()
        loss = parts.objective(parts.model, parts.model(digits(64, device)))["loss"]
        loss.backward()
        gradients = [p.grad.flatten().cpu() for p in parts.model.parameters() if p.grad is not None]
        found[name] = loss.item(), torch.cat(gradients)
    (ours, ours_by), (known, known_by) = found["one"], found["other"]
    gap = ((ours_by - known_by).norm() / known_by.norm()).item()
    expect(gap < 1e-2, f"the gradients differ by {gap:.2g} of their length")
    return near("loss", ours, known, 1e-3 * abs(known))


def resume_is_exact_on_gpu(place: Place) -> str:
    """Killed and gone on with, a run on the GPU comes to the same."""
    _needs_gpu()
    config, _, _ = library.composed([*DIGITS, "model=conv", "device=cuda", "dataset.subset=200", "epochs=3"])
    return interrupted(config, place.folder / "resume on gpu")


def _needs_gpu() -> None:
    if not torch.cuda.is_available():
        raise Skipped("torch finds no CUDA device here")


CHECKS: Mapping[str, Check] = {
    "linear = PCA": linear_is_pca,
    "tied is tied": tied_is_tied,
    "KL = Monte Carlo": kl_is_monte_carlo,
    "ELBO <= IWAE-5 <= IWAE-50": more_draws_are_a_tighter_bound,
    "contractive = autograd": contractive_is_autograd,
    "top-k has its L0": topk_has_its_l0,
    "unpooling": unpooling_puts_back,
    "CD-1 = outer product": cd1_is_the_outer_product,
    "same seed, same run": same_seed_same_run,
    "resume": resume_is_exact,
    "loading": loading_gives_the_same,
    "data": data_is_what_was_published,
    "GPU = CPU": gpu_and_cpu_agree,
    "resume on the GPU": resume_is_exact_on_gpu,
}
