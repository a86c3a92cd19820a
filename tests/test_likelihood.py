"""Likelihoods of variational models and the IWAE, against answers in closed form and torch.distributions."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import Tensor, distributions, nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.images import Images, Prepare, Splits
from aetrain.data.noise import NoNoise
from aetrain.evaluation.measures.likelihood import ImportanceSampled, bound, said
from aetrain.evaluation.measures.measure import EvalInputs
from aetrain.evaluation.metric_descriptions import explained
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.dense import dense
from aetrain.model.layers import TopK
from aetrain.model.likelihoods import Bernoulli, Likelihood
from aetrain.model.likelihoods import Gaussian as Normal
from aetrain.model.records import GaussianCode
from aetrain.objective.importance import IWAE, log_weights
from aetrain.objective.objective import Objective
from aetrain.runs import train
from aetrain.runs.build import Components, build

SHAPE = (1, 3, 4)
P, D = 12, 3


def small(likelihood: Likelihood | None = None, sparsifier: nn.Module | None = None, **settings: object) -> Autoencoder:
    given = {"hidden": [8], "code_dim": D, "bottleneck": Gaussian} | settings
    torch.manual_seed(0)
    scale = (0.0, 1.0) if likelihood is None else (getattr(likelihood, "low", 0.0), getattr(likelihood, "high", 1.0))
    return dense(SHAPE, likelihood or Bernoulli(), sparsifier or nn.Identity(), scale, **given)  # type: ignore[arg-type]


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).bernoulli(
        generator=torch.Generator().manual_seed(seed)
    )


def inputs(model: Autoencoder, x: Tensor) -> EvalInputs:
    stored = Images(x.mul(255).round().to(torch.uint8))
    return EvalInputs(
        model.eval(), Objective({}), NoNoise(), Splits(stored, stored[:0], stored), Prepare(), lambda: model, 0
    )


def parts_of(*overrides: str) -> Components:
    config, _, words = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, words))


def log_weights_by_hand(model: Autoencoder, x: Tensor, code: GaussianCode, z: Tensor) -> Tensor:
    """log p(x|z) + log p(z) - log q(z|x) of draws z [K, B, D], from torch.distributions, in float64: [K, B]."""
    q = distributions.Normal(code.mean.double(), (0.5 * code.log_var.double()).exp())
    prior = distributions.Normal(0.0, 1.0)
    decoded = torch.stack([model.decode(model.code_transform(each)) for each in z]).double()  # [K, B, C, H, W]
    if isinstance(model.likelihood, Normal):
        deviation = math.sqrt(model.likelihood.variance)
        target = model.likelihood.low + (model.likelihood.high - model.likelihood.low) * x.double()
        pixels: Tensor = distributions.Normal(model.likelihood.output(decoded), deviation).log_prob(target)
        pixels = pixels + math.log(model.likelihood.high - model.likelihood.low)  # a density of pixels in [0, 1]
    else:
        pixels = distributions.Bernoulli(logits=decoded).log_prob(x.double())
    z = z.double()
    return pixels.flatten(2).sum(2) + prior.log_prob(z).sum(2) - q.log_prob(z).sum(2)


def drawn(model: Autoencoder, code: GaussianCode, count: int, generator: torch.Generator) -> Tensor:
    """The draws that `log_weights` takes from a generator in that state, [K, B, D]."""
    noise = torch.empty(count * len(code.mean), code.mean.shape[1]).normal_(generator=generator)
    return code.mean + (0.5 * code.log_var).exp() * noise.unflatten(0, (count, -1))


@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [
        (Bernoulli(), {}),
        (Bernoulli(), {"code_activation": "sigmoid"}),
        (Normal(variance=0.1), {}),
        (Normal(variance=0.3, output="tanh", scale=(-1.0, 1.0)), {"code_activation": "tanh"}),
    ],
)
def test_log_weights_are_those_of_torch_distributions(likelihood: Likelihood, settings: dict[str, object]) -> None:
    model = small(likelihood, **settings).eval()
    x = images(5)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    ours = log_weights(model, x, code, 7, torch.Generator().manual_seed(3)) - likelihood.constant(P)
    known = log_weights_by_hand(model, x, code, drawn(model, code, 7, torch.Generator().manual_seed(3)))
    torch.testing.assert_close(ours.double(), known, rtol=1e-5, atol=1e-5)


def test_log_weights_go_through_a_sparsifier() -> None:
    model = small(sparsifier=TopK(1)).eval()
    x = images(4)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    known = log_weights_by_hand(model, x, code, drawn(model, code, 6, torch.Generator().manual_seed(3)))
    ours = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours.double(), known, rtol=1e-5, atol=1e-5)


def test_log_weights_do_not_depend_on_how_many_are_painted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small().eval()
    x = images(4)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    whole = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    monkeypatch.setattr("aetrain.objective.importance.AT_ONCE", 2 * x.numel())
    parts = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    # The generator is asked in other portions, so the draws differ; their number, shape and distribution do not.
    assert parts.shape == whole.shape == (6, 4)
    both = [bound(log_weights(model, x, code, 4000, torch.Generator().manual_seed(4)), 1)]
    monkeypatch.undo()
    both.append(bound(log_weights(model, x, code, 4000, torch.Generator().manual_seed(5)), 1))
    torch.testing.assert_close(*both, rtol=0, atol=0.2)


def linear_gaussian(scale: tuple[float, float] = (0.0, 1.0)) -> tuple[Autoencoder, Tensor, Tensor]:
    """p(y | z) = N(W z + b, v I) with the exact posterior's mean in the encoder; and W [P, D], b [P]."""
    model = small(Normal(variance=0.2, scale=scale), hidden=[])
    weight, bias = torch.randn(P, D) * 0.5, torch.rand(P)
    inverse = torch.linalg.inv(weight.t() @ weight + 0.2 * torch.eye(D))  # Tipping & Bishop (1999), eq. 6
    neck, layer = model.bottleneck, model.decoder.layers[0]  # type: ignore[attr-defined]
    assert isinstance(neck, Gaussian)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        neck.project.weight.copy_(inverse @ weight.t())
        neck.project.bias.copy_(-inverse @ weight.t() @ bias)
        neck.log_var.weight.zero_()
        neck.log_var.bias.copy_((0.2 * inverse).diagonal().log())
    return model, weight, bias


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0)])
def test_probabilistic_pca_has_the_likelihood_of_its_closed_form(scale: tuple[float, float]) -> None:
    """log p(x) = log N(y; b, W W' + v I) (Tipping & Bishop 1999, eq. 4), y = low + (high - low) x."""
    model, weight, bias = linear_gaussian(scale)
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    y = scale[0] + (scale[1] - scale[0]) * x.flatten(1).double()
    covariance = weight.double() @ weight.double().t() + 0.2 * torch.eye(P, dtype=torch.float64)
    log_p = distributions.MultivariateNormal(bias.double(), covariance).log_prob(y)
    known = -log_p.mean().item() - P * math.log(scale[1] - scale[0])
    figures = ImportanceSampled(samples=[1, 2000])(inputs(model, x))
    assert figures["is_nll_2000"] == pytest.approx(known, abs=0.03)
    assert figures["is_nll_1"] > known  # q is without the posterior's correlations


def test_an_exact_posterior_makes_every_draw_exact() -> None:
    """With W of orthogonal columns the posterior is diagonal, and each weight is p(x) itself."""
    model, weight, bias = linear_gaussian()
    w = torch.linalg.qr(weight).Q
    with torch.no_grad():
        model.decoder.layers[0].weight.copy_(w)  # type: ignore[attr-defined]
        model.bottleneck.project.weight.copy_(w.t() / 1.2)
        model.bottleneck.project.bias.copy_(-w.t() @ bias / 1.2)
        model.bottleneck.log_var.bias.fill_(math.log(0.2 / 1.2))  # type: ignore[union-attr]
    x = torch.rand(10, *SHAPE)
    code = model.eval().encode(x)
    assert isinstance(code, GaussianCode)
    covariance = w.double() @ w.double().t() + 0.2 * torch.eye(P, dtype=torch.float64)
    log_p = distributions.MultivariateNormal(bias.double(), covariance).log_prob(x.flatten(1).double())
    ours = log_weights(model, x, code, 3).double() - model.likelihood.constant(P)
    torch.testing.assert_close(ours, log_p.expand(3, -1), rtol=1e-5, atol=1e-4)


def test_one_draw_is_the_negative_elbo_and_more_draws_are_less() -> None:
    model, x = small(), images(50)
    with torch.no_grad():
        model.bottleneck.log_var.bias.fill_(1.0)  # type: ignore[union-attr]  # a posterior that is far off
    figures = ImportanceSampled(samples=[1, 5, 50, 500])(inputs(model, x))
    values = list(figures.values())
    assert list(figures) == ["is_nll_1", "is_nll_5", "is_nll_50", "is_nll_500"]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.1
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    q = distributions.Normal(code.mean, (0.5 * code.log_var).exp())
    kl = distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum(1)
    torch.manual_seed(5)
    nll = torch.stack([-distributions.Bernoulli(logits=model.decode(q.sample())).log_prob(x).sum() for _ in range(500)])
    elbo = (kl.sum() + nll).mean().item() / len(x)
    assert values[0] == pytest.approx(elbo, abs=5 * nll.std().item() / len(x) / math.sqrt(500) * 2)


def test_many_draws_come_to_the_integral() -> None:
    """With one unit of code, p(x) is a sum over a fine grid of z."""
    model, x = small(code_dim=1), images(6)
    z = torch.linspace(-8, 8, 4001).double()[:, None]
    logits = model.double().decode(z).flatten(1)  # [Z, P]
    pixels = distributions.Bernoulli(logits=logits[:, None]).log_prob(x.flatten(1).double()).sum(2)  # [Z, B]
    prior = distributions.Normal(0.0, 1.0).log_prob(z)
    known = -(pixels + prior + math.log(16 / 4000)).logsumexp(0).mean().item()
    assert ImportanceSampled(samples=[5000])(inputs(model.float(), x))["is_nll_5000"] == pytest.approx(known, abs=0.02)


def test_looking_twice_shows_the_same_and_leaves_the_global_generator_alone() -> None:
    seen = inputs(small(), images(20))
    before = torch.get_rng_state()
    first = ImportanceSampled(samples=[1, 4])(seen)
    assert ImportanceSampled(samples=[1, 4])(seen) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_it_says_what_pixels_it_is_a_likelihood_of() -> None:
    assert "no likelihood" in said(grey=True, constant=0.0)
    assert "black and white" in said(grey=False, constant=0.0)
    assert "constant of -3.00" in said(grey=True, constant=-3.0)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model=deep"], "not drawn from a normal distribution"),
        (["model=wae"], "model=vae"),
        (["model=vae", "measures.likelihood.samples=[0]"], r"samples=\[0\]"),
        (["model=vae", "measures.likelihood.count=0"], "count=0"),
        (["model=conv_unpool", "model.bottleneck._target_=aetrain.model.bottlenecks.Gaussian"], "switches"),
    ],
)
def test_models_without_a_likelihood_are_refused(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        parts_of("measures=likelihood", *overrides)
    assert "measures.likelihood" in str(refused.value)


def test_it_is_measured_at_the_end_of_training_and_by_eval(tiny: Callable[..., Path]) -> None:
    words = ("model=conv_vae", "measures=likelihood", "measures.likelihood.samples=[1,2]", "dataset.binarize=static")
    directory = tiny(*words)
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["test/is_nll_2"] < metrics["test/is_nll_1"]
    again = api.run([f"run={directory}", "mode=eval"]).metrics
    assert again["test/is_nll_2"] == metrics["test/is_nll_2"]
    assert explained("test/is_nll_2") == "is_nll_K"


# --- the importance-weighted autoencoder ---


def iwae_by_hand(model: Autoencoder, x: Tensor, count: int) -> Tensor:
    """-log mean_k w_k, from a pass like the penalty's own; the loss of Burda et al. (2016), eq. 8."""
    code = model(x).code
    assert isinstance(code, GaussianCode)
    noise = torch.randn(count * len(x), D).unflatten(0, (count, -1))
    z = code.mean + (0.5 * code.log_var).exp() * noise
    logits = torch.stack([model.decode(each) for each in z])
    p = distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(2).sum(2)
    prior = distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    q = distributions.Normal(code.mean, (0.5 * code.log_var).exp()).log_prob(z).sum(2)
    return -(p + prior - q).exp().mean(0).log().mean()


@pytest.mark.parametrize("count", [1, 5])
def test_the_gradient_is_that_of_the_log_of_the_mean_weight(count: int) -> None:
    model, x = small().train(), images(6)
    objective = Objective({"iwae": IWAE(count)})
    torch.manual_seed(2)
    terms = objective(model, model(x))
    gradients = torch.autograd.grad(terms["loss"], list(model.parameters()))
    torch.manual_seed(2)
    known = iwae_by_hand(model, x, count)
    torch.testing.assert_close(terms["loss"], known)
    for ours, theirs in zip(gradients, torch.autograd.grad(known, list(model.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_with_one_draw_it_is_the_variational_autoencoder() -> None:
    """The mean gradient over many draws is that of nll + KL in closed form, within five standard errors."""
    from aetrain.objective.penalties import GaussianKL

    model, x = small().train(), images(6)
    weight = model.bottleneck.project.weight

    def gradients(objective: Objective, seed: int, draws: int) -> Tensor:
        torch.manual_seed(seed)
        each = [torch.autograd.grad(objective(model, model(x))["loss"], weight)[0].flatten() for _ in range(draws)]
        return torch.stack(each)

    one = gradients(Objective({"iwae": IWAE(1)}), 1, 800)
    vae = gradients(Objective({"kl": GaussianKL()}), 2, 800)
    error = ((one.var(0) + vae.var(0)) / 800).sqrt()
    assert ((one.mean(0) - vae.mean(0)).abs() <= 5 * error).all()
    assert error.max() < 0.1 * vae.mean(0).abs().max()


def test_in_evaluation_the_draws_are_the_same_each_time() -> None:
    model, x = small().eval(), images(6)
    out, penalty = model(x), IWAE(5)
    before = torch.get_rng_state()
    torch.testing.assert_close(penalty(model, out), penalty(model, out), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_in_evaluation_is_the_bound(tiny: Callable[..., Path]) -> None:
    """nll and the penalty add up to it, with the mean code as with a drawn one."""
    metrics = json.loads((tiny("model=iwae", "dataset.binarize=static") / "metrics.json").read_text())
    assert metrics["test/nll"] + metrics["test/iwae"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert metrics["test/loss"] < metrics["test/neg_elbo"]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model=iwae", "likelihood.reduction=mean"], "likelihood.reduction=mean"),
        (["model=iwae", "model.penalties.iwae.samples=0"], "samples=0"),
        (["model=iwae", "model.bottleneck._target_=aetrain.model.bottlenecks.DeterministicWithPrior"], "GaussianCode"),
    ],
)
def test_an_iwae_that_cannot_be_is_refused(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parts_of(*overrides)
