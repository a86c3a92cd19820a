"""Codes answer for themselves: the categorical code and the Gaussian one against torch.distributions."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributions

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.categorical import Categorical, CategoricalCode
from aetrain.model.codes import GaussianCode, RandomCode
from aetrain.objective.importance import log_weights
from aetrain.runs.build import Components, build
from aetrain.runs.entry import check
from aetrain.selfcheck.fingerprint import differences, fingerprint

CATEGORIES = "model.bottleneck.categories=4"
SMALL = (
    "dataset=digits",
    "model=categorical",
    "model.hidden=[16]",
    "model.code_dim=12",
    "model.bottleneck.categories=4",
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def categorical_code(temperature: float = 0.7) -> CategoricalCode:
    logits = 1.5 * torch.randn(2, 3, 4, generator=generator())
    return CategoricalCode(z=logits.softmax(2).flatten(1), logits=logits, temperature=temperature)


def gaussian_code() -> GaussianCode:
    mean, log_var = torch.randn(2, 5, generator=generator()), torch.randn(2, 5, generator=generator(1))
    return GaussianCode(z=mean, mean=mean, log_var=log_var)


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*SMALL, "device=cpu", "views=none", *overrides])
    return build(check(config, full_overrides))


def test_categorical_kl_is_that_of_torch() -> None:
    code = categorical_code()
    expected = distributions.kl_divergence(
        distributions.Categorical(logits=code.logits), distributions.Categorical(logits=torch.zeros(4))
    )
    torch.testing.assert_close(code.kl(), expected)


def test_categorical_kl_is_a_monte_carlo_mean() -> None:
    code = categorical_code()
    torch.manual_seed(0)
    posterior = distributions.Categorical(logits=code.logits)
    draws = posterior.sample(torch.Size([200_000]))
    terms = posterior.log_prob(draws) + math.log(4)
    error = terms.std(0) / math.sqrt(len(terms))
    assert ((terms.mean(0) - code.kl()).abs() < 5 * error).all()


def test_categorical_densities_are_those_of_torch() -> None:
    code = categorical_code()
    z = code.sample(generator(2))
    y = z.view_as(code.logits)
    temperature = torch.tensor(code.temperature)
    posterior = distributions.RelaxedOneHotCategorical(temperature, logits=code.logits)
    prior = distributions.RelaxedOneHotCategorical(temperature, logits=torch.zeros_like(code.logits))
    torch.testing.assert_close(code.log_posterior(z), posterior.log_prob(y).sum(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(code.log_prior(z), prior.log_prob(y).sum(1), rtol=1e-4, atol=1e-4)


def test_gumbel_argmax_follows_the_probabilities() -> None:
    code = categorical_code()
    z = code.repeat(50_000).sample(generator(3)).view(50_000, 2, 3, 4)
    frequency = torch.nn.functional.one_hot(z.argmax(3), 4).double().mean(0)
    assert (frequency - code.logits.softmax(2)).abs().max() < 0.01


def test_gaussian_code_is_that_of_torch() -> None:
    code = gaussian_code()
    posterior = distributions.Normal(code.mean, (0.5 * code.log_var).exp())
    prior = distributions.Normal(torch.zeros(5), torch.ones(5))
    z = code.sample(generator(4))
    torch.testing.assert_close(code.kl(), distributions.kl_divergence(posterior, prior))
    torch.testing.assert_close(code.log_posterior(z), posterior.log_prob(z).sum(1))
    torch.testing.assert_close(code.log_prior(z), prior.log_prob(z).sum(1))
    torch.testing.assert_close(code.log_prior_ratio(z), code.log_prior(z) - code.log_posterior(z))


@pytest.mark.parametrize("code", [categorical_code(), gaussian_code()], ids=["categorical", "gaussian"])
def test_map_and_repeat_reach_every_tensor(code: RandomCode) -> None:
    doubled = code.map(lambda tensor: tensor.double())
    assert doubled.kl().dtype == torch.float64
    assert torch.equal(doubled.to_float32().mean_z, code.mean_z)
    assert torch.equal(code.repeat(3).kl(), code.kl().repeat(3, 1))


@pytest.mark.slow
def test_loss_of_a_random_code_is_of_samples() -> None:
    components = components_of("model.penalties.kl.weight=0.3", "optimizer.lr=0.02")
    model, objective = components.model, components.objective
    for _ in range(200):
        components.optimizer_steps[0](components.dataset.prepare(components.dataset.load().train[:128].pixels))
    model.eval()
    images = components.dataset.load().test[:50]
    metrics = Evaluator(images, Prepare(), NoNoise()).evaluate_epoch(model, objective)
    x = Prepare()(images.pixels)
    code = model.encode(x)

    def nll(z: Tensor) -> Tensor:
        return model.likelihood.nll(model.decode(z), x).mean()

    sampled = nll(code.sample(generator(1))).item()
    kl = code.kl().sum(1).mean().item()
    assert metrics["loss"] == pytest.approx(sampled + 0.3 * kl, rel=1e-5)
    assert metrics["neg_elbo"] == pytest.approx(sampled + kl, rel=1e-5)
    assert metrics["nll"] == pytest.approx(nll(code.mean_z).item(), rel=1e-5)
    assert sampled != pytest.approx(metrics["nll"], rel=1e-3)


def test_more_importance_draws_are_a_tighter_bound() -> None:
    components = components_of()
    model = components.model.eval()
    x = Prepare()(components.dataset.load().test[:30].pixels)
    code = model.encode(x)
    assert isinstance(code, CategoricalCode)
    weights = log_weights(model, x, code, 64 * 50, generator()).detach().double()
    bounds = []
    for count in (1, 10, 50):
        groups = weights[: 64 * count].unflatten(0, (64, count)).logsumexp(1) - math.log(count)
        bounds.append(groups.mean().item())
    assert bounds == sorted(bounds)


def test_precision_leaves_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    from aetrain.training.backend import precision

    monkeypatch.setattr(precision, "_why_float32", lambda device, model: "")
    components = components_of()
    forward = precision.forward_pass("fast", torch.device("cpu"), components.model)
    x = torch.rand(4, 1, 8, 8)
    code = forward(x, x).code
    assert isinstance(code, CategoricalCode)
    assert code.logits.dtype == code.z.dtype == torch.float32


def test_temperature_falls_and_is_fixed_in_evaluation() -> None:
    bottleneck = Categorical(5, 8, categories=4, temperature=2.0, final_temperature=0.5, anneal=0.5)
    temperatures = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        bottleneck.set_progress(progress)
        temperatures.append(bottleneck(torch.zeros(1, 5)).temperature)
    assert temperatures == pytest.approx([2.0, 1.0, 0.5, 0.5])
    bottleneck.set_progress(0.0)
    assert bottleneck.eval()(torch.zeros(1, 5)).temperature == 0.5


@pytest.mark.slow
def test_resume_is_exact(run: Callable[..., Path]) -> None:
    # The temperature would follow another course with another number of epochs.
    constant = "model.bottleneck.final_temperature=1.0"
    few = ("dataset.subset=64", "dataset.test_subset=64", "batch_size=32")
    overrides = (*SMALL, constant, *few, "views=none", "device=cpu")
    whole = fingerprint(run(*overrides, "epochs=3", name="whole"))
    run(*overrides, "epochs=1", name="parts")
    resumed = run(*overrides, "epochs=3", name="parts")
    assert not differences(whole, fingerprint(resumed))
    assert aetrain.load(resumed).metrics["test/neg_elbo"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "override", ["model.bottleneck.categories=5", "model.bottleneck.final_temperature=2", "model.bottleneck.anneal=0"]
)
def test_wrong_settings_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        components_of(override)
