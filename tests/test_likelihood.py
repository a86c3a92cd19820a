"""The likelihood of variational models and the IWAE, against closed forms and torch.distributions."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, layers_of
from test_ratings import write_ratings
from torch import Tensor, distributions, nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples, Prepare, Splits
from aetrain.data.noise import NoNoise
from aetrain.evaluation.measures.likelihood import ImportanceSampled, describe_values, importance_bound
from aetrain.evaluation.measures.measure import EvalInputs
from aetrain.evaluation.metric_names import find_pattern
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.codes import GaussianCode
from aetrain.model.dense import dense
from aetrain.model.layers import TopK
from aetrain.model.likelihoods import Bernoulli, Likelihood
from aetrain.model.likelihoods import Gaussian as Normal
from aetrain.objective.importance import IWAE, log_weights
from aetrain.objective.objective import Objective
from aetrain.runs import entry
from aetrain.runs.build import Components, build

SHAPE = (1, 3, 4)
P, D = 12, 3


def small_vae(
    likelihood: Likelihood | None = None, sparsifier: nn.Module | None = None, **settings: Any
) -> Autoencoder:
    arguments: dict[str, Any] = {"hidden": [8], "code_dim": D, "bottleneck": Gaussian} | settings
    torch.manual_seed(0)
    scale = (0.0, 1.0) if likelihood is None else (getattr(likelihood, "low", 0.0), getattr(likelihood, "high", 1.0))
    return dense(SHAPE, likelihood or Bernoulli(), sparsifier or nn.Identity(), scale, **arguments)


def binary_images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).bernoulli(
        generator=torch.Generator().manual_seed(seed)
    )


def eval_inputs(model: Autoencoder, x: Tensor) -> EvalInputs:
    stored = Examples(x.mul(255).round().to(torch.uint8))
    return EvalInputs(
        model.eval(), Objective({}), NoNoise(), Splits(stored, stored[:0], stored), Prepare(), lambda: model, 0
    )


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def log_weights_by_hand(model: Autoencoder, x: Tensor, code: GaussianCode, z: Tensor) -> Tensor:
    """Return log p(x|z) + log p(z) - log q(z|x) of draws z [K, B, D], by torch.distributions in float64: [K, B]."""
    q = distributions.Normal(code.mean.double(), (0.5 * code.log_var.double()).exp())
    prior = distributions.Normal(0.0, 1.0)
    decoded = torch.stack([model.decode(model.code_transform(draw)) for draw in z]).double()  # [K, B, C, H, W]
    if isinstance(model.likelihood, Normal):
        std = math.sqrt(model.likelihood.variance)
        target = model.likelihood.low + (model.likelihood.high - model.likelihood.low) * x.double()
        pixels: Tensor = distributions.Normal(model.likelihood.output(decoded), std).log_prob(target)
        pixels = pixels + math.log(model.likelihood.high - model.likelihood.low)  # a density of pixels in [0, 1]
    else:
        pixels = distributions.Bernoulli(logits=decoded).log_prob(x.double())
    z = z.double()
    return pixels.flatten(2).sum(2) + prior.log_prob(z).sum(2) - q.log_prob(z).sum(2)


def draw_codes(code: GaussianCode, count: int, generator: torch.Generator) -> Tensor:
    """Return the draws [K, B, D] that `log_weights` takes from a generator in the same state."""
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
def test_log_weights_equal_torch_distributions(likelihood: Likelihood, settings: dict[str, Any]) -> None:
    model = small_vae(likelihood, **settings).eval()
    x = binary_images(5)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    weights = log_weights(model, x, code, 7, torch.Generator().manual_seed(3)) - likelihood.constant(P)
    expected = log_weights_by_hand(model, x, code, draw_codes(code, 7, torch.Generator().manual_seed(3)))
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-5)


def test_log_weights_with_a_sparsifier() -> None:
    model = small_vae(sparsifier=TopK(1)).eval()
    x = binary_images(4)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    expected = log_weights_by_hand(model, x, code, draw_codes(code, 6, torch.Generator().manual_seed(3)))
    weights = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_log_weights_do_not_depend_on_the_number_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vae().eval()
    x = binary_images(4)
    code = model.encode(x)
    assert isinstance(code, GaussianCode)
    whole = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    monkeypatch.setattr("aetrain.objective.importance.MAX_DECODED_PIXELS", 2 * x.numel())
    in_parts = log_weights(model, x, code, 6, torch.Generator().manual_seed(3))
    # The generator draws in smaller portions, so the draws differ; their number, shape and distribution do not.
    assert in_parts.shape == whole.shape == (6, 4)
    bound_in_parts = importance_bound(log_weights(model, x, code, 4000, torch.Generator().manual_seed(4)), 1)
    monkeypatch.undo()
    bound = importance_bound(log_weights(model, x, code, 4000, torch.Generator().manual_seed(5)), 1)
    torch.testing.assert_close(bound_in_parts, bound, rtol=0, atol=0.2)


def gaussian_bottleneck(model: Autoencoder) -> Gaussian:
    assert isinstance(model.bottleneck, Gaussian)
    return model.bottleneck


def linear_gaussian(scale: tuple[float, float] = (0.0, 1.0)) -> tuple[Autoencoder, Tensor, Tensor]:
    """Return a model with p(y | z) = N(W z + b, v I) whose encoder has the exact posterior mean, W [P, D] and b [P]."""
    model = small_vae(Normal(variance=0.2, scale=scale), hidden=[])
    weight, bias = torch.randn(P, D) * 0.5, torch.rand(P)
    inverse = torch.linalg.inv(weight.t() @ weight + 0.2 * torch.eye(D))  # Tipping & Bishop (1999), eq. 6
    bottleneck, layer = gaussian_bottleneck(model), layers_of(model.decoder)[0]
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        bottleneck.project.weight.copy_(inverse @ weight.t())
        bottleneck.project.bias.copy_(-inverse @ weight.t() @ bias)
        bottleneck.log_var.weight.zero_()
        bottleneck.log_var.bias.copy_((0.2 * inverse).diagonal().log())
    return model, weight, bias


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0)])
def test_the_likelihood_of_probabilistic_pca_equals_its_closed_form(scale: tuple[float, float]) -> None:
    """log p(x) = log N(y; b, W W' + v I) (Tipping & Bishop 1999, eq. 4), y = low + (high - low) x."""
    model, weight, bias = linear_gaussian(scale)
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    y = scale[0] + (scale[1] - scale[0]) * x.flatten(1).double()
    covariance = weight.double() @ weight.double().t() + 0.2 * torch.eye(P, dtype=torch.float64)
    log_p = distributions.MultivariateNormal(bias.double(), covariance).log_prob(y)
    expected = -log_p.mean().item() - P * math.log(scale[1] - scale[0])
    metrics = ImportanceSampled(samples=[1, 2000])(eval_inputs(model, x))
    assert metrics["is_nll_2000"] == pytest.approx(expected, abs=0.03)
    assert metrics["is_nll_1"] > expected  # q lacks the correlations of the posterior


def test_with_the_exact_posterior_every_draw_is_exact() -> None:
    """If the columns of W are orthogonal, the posterior is diagonal and each weight is p(x)."""
    model, weight, bias = linear_gaussian()
    w = torch.linalg.qr(weight).Q
    with torch.no_grad():
        layers_of(model.decoder)[0].weight.copy_(w)
        model.bottleneck.project.weight.copy_(w.t() / 1.2)
        model.bottleneck.project.bias.copy_(-w.t() @ bias / 1.2)
        gaussian_bottleneck(model).log_var.bias.fill_(math.log(0.2 / 1.2))
    x = torch.rand(10, *SHAPE)
    code = model.eval().encode(x)
    assert isinstance(code, GaussianCode)
    covariance = w.double() @ w.double().t() + 0.2 * torch.eye(P, dtype=torch.float64)
    log_p = distributions.MultivariateNormal(bias.double(), covariance).log_prob(x.flatten(1).double())
    weights = log_weights(model, x, code, 3).double() - model.likelihood.constant(P)
    torch.testing.assert_close(weights, log_p.expand(3, -1), rtol=1e-5, atol=1e-4)


def test_one_draw_is_the_negative_elbo_and_more_draws_are_lower() -> None:
    model, x = small_vae(), binary_images(50)
    with torch.no_grad():
        gaussian_bottleneck(model).log_var.bias.fill_(1.0)  # far from the posterior
    metrics = ImportanceSampled(samples=[1, 5, 50, 500])(eval_inputs(model, x))
    values = list(metrics.values())
    assert list(metrics) == ["is_nll_1", "is_nll_5", "is_nll_50", "is_nll_500"]
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


def test_many_draws_approach_the_integral() -> None:
    """With a code of one unit, p(x) is a sum over a fine grid of z."""
    model, x = small_vae(code_dim=1), binary_images(6)
    z = torch.linspace(-8, 8, 4001).double()[:, None]
    logits = model.double().decode(z).flatten(1)  # [Z, P]
    pixels = distributions.Bernoulli(logits=logits[:, None]).log_prob(x.flatten(1).double()).sum(2)  # [Z, B]
    prior = distributions.Normal(0.0, 1.0).log_prob(z)
    expected = -(pixels + prior + math.log(16 / 4000)).logsumexp(0).mean().item()
    assert ImportanceSampled(samples=[5000])(eval_inputs(model.float(), x))["is_nll_5000"] == pytest.approx(
        expected, abs=0.02
    )


def test_a_second_call_returns_the_same_and_does_not_change_the_global_generator() -> None:
    inputs = eval_inputs(small_vae(), binary_images(20))
    before = torch.get_rng_state()
    first = ImportanceSampled(samples=[1, 4])(inputs)
    assert ImportanceSampled(samples=[1, 4])(inputs) == first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("data", ["counts", "hidden values"])
def test_one_draw_is_the_negative_elbo_of_targets(data: str, run: Callable[..., Path], tmp_path: Path) -> None:
    options = {
        "counts": (
            *("dataset=ratings", f"dataset.path='{write_ratings(tmp_path)}'", "dataset.implicit=true"),
            *("dataset.threshold=2", "dataset.min_ratings=2", "dataset.test_fraction=0.3"),
        ),
        "hidden values": ("dataset=wine", "dataset.missing=0.3"),
    }
    small = ("model=vae", "model.hidden=[]", "model.code_dim=2", "epochs=1", "views=none", "device=cpu")
    samples = "measures.likelihood.samples=[1,500]"
    metrics = json.loads((run(*options[data], *small, "measures=likelihood", samples) / "metrics.json").read_text())
    assert metrics["test/is_nll_1"] == pytest.approx(metrics["test/neg_elbo"], rel=0.15), "neg_elbo is of one draw"
    assert metrics["test/is_nll_500"] < metrics["test/is_nll_1"]


def test_missing_pixels_are_not_grey(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tiny("model=vae", "dataset.binarize=static", "dataset.missing=0.3", "measures=likelihood", "epochs=0")
    (message,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("is_nll"))
    assert "black and white" in message


def test_the_log_describes_the_pixels() -> None:
    assert "no likelihood" in describe_values(Bernoulli(), is_grey=True, constant=0.0)
    assert "black and white" in describe_values(Bernoulli(), is_grey=False, constant=0.0)
    assert "constant of -3.00" in describe_values(Normal(), is_grey=True, constant=-3.0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=deep"], "not drawn from a distribution"),
        (["model=wae"], "model=vae"),
        (["model=vae", "measures.likelihood.samples=[0]"], r"samples=\[0\]"),
        (["model=vae", "measures.likelihood.count=0"], "count=0"),
        (["model=conv_unpool", "model.bottleneck._target_=aetrain.model.bottlenecks.Gaussian"], "max-pool indices"),
    ],
)
def test_models_without_a_likelihood_are_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as error_info:
        components_of("measures=likelihood", *overrides)
    assert "measures.likelihood" in str(error_info.value)


def test_training_and_evaluation_have_the_same_metric(tiny: Callable[..., Path]) -> None:
    samples = "measures.likelihood.samples=[1,2]"
    directory = tiny("model=conv_vae", "measures=likelihood", samples, "dataset.binarize=static")
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["test/is_nll_2"] < metrics["test/is_nll_1"]
    evaluated = api.run([f"run={directory}", "mode=eval"]).metrics
    assert evaluated["test/is_nll_2"] == metrics["test/is_nll_2"]
    assert find_pattern("is_nll_2", ["is_nll_K"]) == "is_nll_K"


# --- the importance-weighted autoencoder ---


def iwae_by_hand(model: Autoencoder, x: Tensor, count: int) -> Tensor:
    """Return -log mean_k w_k with the random numbers of the penalty: the loss of Burda et al. (2016), eq. 8."""
    code = model(x).code
    assert isinstance(code, GaussianCode)
    noise = torch.randn(count * len(x), D).unflatten(0, (count, -1))
    z = code.mean + (0.5 * code.log_var).exp() * noise
    logits = torch.stack([model.decode(draw) for draw in z])
    p = distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(2).sum(2)
    prior = distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    q = distributions.Normal(code.mean, (0.5 * code.log_var).exp()).log_prob(z).sum(2)
    return -(p + prior - q).exp().mean(0).log().mean()


@pytest.mark.parametrize("count", [1, 5])
def test_the_gradient_is_that_of_the_log_mean_weight(count: int) -> None:
    model, x = small_vae().train(), binary_images(6)
    objective = Objective({"iwae": IWAE(count)})
    torch.manual_seed(2)
    loss = objective(model, model(x))["loss"]
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    torch.manual_seed(2)
    expected = iwae_by_hand(model, x, count)
    torch.testing.assert_close(loss, expected)
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_with_one_draw_the_gradient_is_that_of_the_variational_autoencoder() -> None:
    """The mean gradient over many draws is that of nll + KL in closed form, within five standard errors."""
    from aetrain.objective.penalties import KL

    model, x = small_vae().train(), binary_images(6)
    weight = model.bottleneck.project.weight

    def gradients(objective: Objective, seed: int, draws: int) -> Tensor:
        torch.manual_seed(seed)
        losses = (objective(model, model(x))["loss"] for _ in range(draws))
        return torch.stack([torch.autograd.grad(loss, weight)[0].flatten() for loss in losses])

    iwae = gradients(Objective({"iwae": IWAE(1)}), 1, 800)
    vae = gradients(Objective({"kl": KL()}), 2, 800)
    error = ((iwae.var(0) + vae.var(0)) / 800).sqrt()
    assert ((iwae.mean(0) - vae.mean(0)).abs() <= 5 * error).all()
    assert error.max() < 0.1 * vae.mean(0).abs().max()


def test_the_draws_in_evaluation_are_the_same_each_time() -> None:
    model, x = small_vae().eval(), binary_images(6)
    out, penalty = model(x), IWAE(5)
    before = torch.get_rng_state()
    torch.testing.assert_close(penalty(model, out), penalty(model, out), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_in_evaluation_is_the_bound(tiny: Callable[..., Path]) -> None:
    """The sum of nll and penalty is the loss, with the mean code and with a drawn code."""
    metrics = json.loads((tiny("model=iwae", "dataset.binarize=static") / "metrics.json").read_text())
    assert metrics["test/nll"] + metrics["test/iwae"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert metrics["test/loss"] < metrics["test/neg_elbo"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=iwae", "likelihood.reduction=mean"], "likelihood.reduction=mean"),
        (["model=iwae", "model.penalties.iwae.samples=0"], "samples=0"),
        (["model=iwae", "model.bottleneck._target_=aetrain.model.bottlenecks.DeterministicWithPrior"], "RandomCode"),
    ],
)
def test_settings_that_the_iwae_cannot_use_are_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        components_of(*overrides)
