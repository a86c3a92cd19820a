"""Each likelihood equals torch.distributions, with its constants, with and without missing values, and is learned."""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from generated_data import Categories, Counts, overrides_of
from safetensors.torch import load_file
from torch import Tensor, distributions

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples, Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.count_likelihoods import Categorical, Multinomial, Poisson
from aetrain.model.dense import dense
from aetrain.model.discretized_logistic import DiscretizedLogistic
from aetrain.model.likelihoods import MIN_VARIANCE, Bernoulli, Gaussian, Laplace, Likelihood
from aetrain.objective.objective import mean_data_constant, recorded_losses
from aetrain.runs import entry
from aetrain.runs.build import Components, build

SHAPE = (2, 1, 3)
GROUPS = [4, 2]
CATEGORIES = overrides_of(Categories)


def decoded_of(seed: int = 0) -> Tensor:
    return torch.randn(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def counts(largest: int, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(largest + 1, (count, *SHAPE), generator=generator).to(torch.float64)


def one_hot() -> Tensor:
    index = torch.arange(5)
    groups = [torch.nn.functional.one_hot(index % size, size) for size in GROUPS]
    return torch.cat(groups, 1).view(5, *SHAPE).to(torch.float64)


def with_spread(likelihood: Any, values: Tensor) -> Any:
    """Return a likelihood whose learned parameter is a function of `values`, in float64."""
    likelihood.double()
    (parameter,) = likelihood.parameters()
    parameter.data = values.to(torch.float64)
    return likelihood


def level_log_prob(likelihood: DiscretizedLogistic, m: Tensor, x: Tensor) -> Tensor:
    """Return log P of 8-bit values x from the CDF of a logistic distribution, with the tails at 0 and 255."""
    base = distributions.Uniform(torch.zeros_like(m), torch.ones_like(m), validate_args=False)
    transforms = [distributions.SigmoidTransform().inv, distributions.AffineTransform(m, likelihood.s.expand_as(m))]
    logistic = distributions.TransformedDistribution(base, transforms, validate_args=False)
    upper = torch.where(x == 1, 1.0, logistic.cdf(x + 1 / 510))
    lower = torch.where(x == 0, 0.0, logistic.cdf(x - 1 / 510))
    return (upper - lower).log()


@dataclass
class Case:
    """A likelihood, values, and log p of each value [5, C, H, W] by torch.distributions."""

    likelihood: Likelihood
    x: Tensor
    log_prob: Callable[[Tensor, Tensor], Tensor]


def independent_cases() -> dict[str, Case]:
    real, bits = decoded_of(7), counts(1)
    levels = torch.tensor([0, 1, 128, 254, 255, 30], dtype=torch.float64).div(255).expand(5, 6).reshape(5, *SHAPE)
    learned = with_spread(Gaussian("learned"), torch.tensor(-1.0))
    per_feature = with_spread(Gaussian("learned_per_feature", image_shape=SHAPE), torch.linspace(-2, 1, 6).view(SHAPE))
    laplace = with_spread(Laplace("learned_per_feature", image_shape=SHAPE), torch.linspace(-1, 1, 6).view(SHAPE))
    logistic = with_spread(DiscretizedLogistic(image_shape=SHAPE), torch.tensor([-2.0, -1.0]).view(2, 1, 1))

    def normal(likelihood: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda y, x: distributions.Normal(y, likelihood.variance.sqrt()).log_prob(x)

    return {
        "bernoulli": Case(Bernoulli(), bits, lambda y, x: distributions.Bernoulli(logits=y).log_prob(x)),
        "gaussian": Case(Gaussian(0.3), real, lambda y, x: distributions.Normal(y, math.sqrt(0.3)).log_prob(x)),
        "gaussian, one variance": Case(learned, real, normal(learned)),
        "gaussian, a variance for each": Case(per_feature, real, normal(per_feature)),
        "laplace": Case(Laplace(0.3), real, lambda y, x: distributions.Laplace(y, 0.3).log_prob(x)),
        "laplace, scaled": Case(  # the density of (v + 1) / 2 for a value v with a Laplace distribution
            Laplace(0.3, scale=(-1.0, 1.0)),
            real,
            lambda y, x: distributions.Laplace(y, 0.3).log_prob(2 * x - 1) + math.log(2),
        ),
        "laplace, learned": Case(laplace, real, lambda y, x: distributions.Laplace(y, laplace.deviation).log_prob(x)),
        "poisson": Case(Poisson(), counts(9), lambda y, x: distributions.Poisson(y.exp()).log_prob(x)),
        "discretized_logistic": Case(logistic, levels, lambda y, x: level_log_prob(logistic, y, x)),
    }


@pytest.mark.parametrize("name", independent_cases())
def test_nll_with_its_constants_equals_torch_distributions(name: str) -> None:
    case, decoded = independent_cases()[name], decoded_of()
    log_prob = case.log_prob(decoded, case.x)
    torch.testing.assert_close(case.likelihood.neg_log_prob(decoded, case.x), -log_prob.flatten(1).sum(1))
    case.likelihood.has_missing = True
    torch.testing.assert_close(case.likelihood.neg_log_prob(decoded, case.x), -log_prob.flatten(1).sum(1))
    missing = torch.rand(case.x.shape, generator=torch.Generator().manual_seed(2)) < 0.4
    missing[0], missing[1] = True, False
    observed = log_prob.detach().masked_fill(missing, 0).flatten(1).sum(1)
    with_gaps = case.x.masked_fill(missing, torch.nan)
    torch.testing.assert_close(case.likelihood.neg_log_prob(decoded, with_gaps), -observed)
    decoded.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: case.likelihood.nll(y, with_gaps), decoded)
    for parameter in case.likelihood.parameters():
        gradient = torch.autograd.grad(case.likelihood.nll(decoded, with_gaps).sum(), parameter)[0]
        assert gradient.isfinite().all()
        torch.testing.assert_close(
            gradient, difference_quotients(case, decoded, with_gaps, parameter), rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def difference_quotients(case: Case, decoded: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
    """Return the derivative of the nll of a batch with respect to a learned parameter from central differences."""
    quotients = torch.zeros_like(parameter)
    for index in itertools.product(*map(range, parameter.shape)):
        step = torch.zeros_like(parameter)
        step[index] = 1e-6
        sums = []
        for shift in (step, -step):
            parameter.add_(shift)
            sums.append(case.likelihood.nll(decoded, x).sum())
            parameter.sub_(shift)
        quotients[index] = (sums[0] - sums[1]) / 2e-6
    return quotients


def multinomial_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Return log p of counts [D] of which the missing ones are NaN: the others are draws among the observed."""
    seen = ~x.isnan()
    if not seen.any():
        return torch.zeros((), dtype=logits.dtype)
    return distributions.Multinomial(int(x[seen].sum()), logits=logits[seen]).log_prob(x[seen])


def categorical_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    parts = zip(logits.split(GROUPS), x.split(GROUPS), strict=True)
    return sum(
        (distributions.OneHotCategorical(logits=y).log_prob(v) for y, v in parts if not v.isnan().any()),
        start=torch.zeros((), dtype=logits.dtype),
    )


@pytest.mark.parametrize("option", ["multinomial", "categorical"])
def test_nll_of_a_softmax_equals_torch_distributions(option: str) -> None:
    is_multinomial = option == "multinomial"
    likelihood: Likelihood = Multinomial() if is_multinomial else Categorical(GROUPS)
    log_prob = multinomial_log_prob if is_multinomial else categorical_log_prob
    decoded, x = decoded_of(), counts(4) if is_multinomial else one_hot()
    with_gaps = x.clone()
    with_gaps[0] = torch.nan  # all
    with_gaps[1:3, 1, 0, 1:] = torch.nan  # the second group
    for values, has_missing in ((x, False), (x, True), (with_gaps, True)):
        likelihood.has_missing = has_missing
        rows = zip(decoded.flatten(1), values.flatten(1), strict=True)
        expected = -torch.stack([log_prob(*row) for row in rows])
        torch.testing.assert_close(likelihood.neg_log_prob(decoded, values), expected)
    assert torch.autograd.gradcheck(lambda y: likelihood.nll(y, with_gaps), decoded.requires_grad_())


def test_an_unknown_category_adds_nothing() -> None:
    likelihood, decoded, x = Categorical(GROUPS), decoded_of(), one_hot()
    x[:, 1, 0, 1:] = 0  # no category of the second group
    logits = decoded.flatten(1)[:, :4]
    expected = -distributions.OneHotCategorical(logits=logits).log_prob(x.flatten(1)[:, :4])
    torch.testing.assert_close(likelihood.nll(decoded, x), expected)
    torch.testing.assert_close(likelihood.mean(decoded).flatten(1)[:, :4], logits.softmax(1))
    with pytest.raises(ValueError, match=r"likelihood.groups=\[3, 2\] has 5 features, but an example has 6"):
        Categorical([3, 2]).check(SHAPE)


def test_levels_have_the_sum_1_and_the_stated_mean() -> None:
    levels = torch.arange(256, dtype=torch.float64).div(255).view(256, 1, 1, 1)
    likelihood = with_spread(DiscretizedLogistic(scale=(-1.0, 1.0)), torch.tensor([[[-3.0]]]))
    for m in (-1.5, -0.98, 0.1, 1.0, 3.0):
        decoded = torch.full_like(levels, m)
        p = (-likelihood.nll(decoded, levels)).exp()
        torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
        mean = likelihood.mean(decoded[:1]).flatten()
        torch.testing.assert_close(mean, (p * levels.flatten()).sum()[None], atol=1e-4, rtol=0)
        back = likelihood.mean(likelihood.inverse_mean(mean.view(1, 1, 1, 1))).flatten()
        torch.testing.assert_close(back, mean.clamp(1e-3, 1 - 1e-3))


def test_expected_counts_have_the_total_of_the_example() -> None:
    likelihood, decoded, x = Multinomial(), decoded_of(), counts(4)
    p = decoded.flatten(1).softmax(1)
    torch.testing.assert_close(likelihood.mean(decoded).flatten(1), p)
    torch.testing.assert_close(likelihood.expected(decoded, x).flatten(1), p * x.flatten(1).sum(1, keepdim=True))
    likelihood.has_missing = True
    x[:, 0] = torch.nan
    total = x.flatten(1)[:, 3:].sum(1)
    expected = likelihood.expected(decoded, x).flatten(1)
    torch.testing.assert_close(expected[:, 3:].sum(1), total)  # of the observed features
    torch.testing.assert_close(expected, p * (total / p[:, 3:].sum(1))[:, None])
    assert torch.equal(Poisson().expected(decoded, x), decoded.exp())


def test_weights_that_are_no_whole_numbers_have_no_constant() -> None:
    for likelihood in (Poisson(), Multinomial()):
        assert likelihood.data_constant(counts(4)) is not None
        likelihood.has_integers = False
        assert likelihood.data_constant(counts(4) / 3) is None


@pytest.mark.parametrize(
    ("likelihood", "fits", "does_not"),
    [
        (Bernoulli(), (0, 1), (-2.5, 1)),
        (Gaussian(), (-9, 9), None),
        (Laplace(), (-9, 9), None),
        (Poisson(), (0, 9), (-1, 9)),
        (Multinomial(), (0, 9), (-1, 9)),
        (Categorical(), (0, 1), (0, 2)),
        (DiscretizedLogistic(), (0, 1), (0, 255)),
    ],
)
def test_values_without_a_likelihood_are_refused(likelihood: Likelihood, fits: Any, does_not: Any) -> None:
    likelihood.check_values(*fits)
    if does_not is not None:
        with pytest.raises(ValueError, match=f"from {does_not[0]:g} to {does_not[1]:g}: use likelihood=gaussian"):
            likelihood.check_values(*does_not)


def test_a_learned_variance_is_that_of_the_errors_and_does_not_collapse() -> None:
    errors = torch.randn(4000, *SHAPE, generator=torch.Generator().manual_seed(0))
    errors = errors * torch.tensor([0.0, 0.1, 0.2, 0.5, 1.0, 2.0]).view(SHAPE)  # the first feature is constant
    decoded = torch.zeros_like(errors)
    for kind, expected in (("learned", errors.square().mean()), ("learned_per_feature", errors.square().mean(0))):
        likelihood = Gaussian(kind, image_shape=SHAPE)  # type: ignore[arg-type]  # from a tuple of strings
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            likelihood.nll(decoded, errors).mean().backward()
            optimizer.step()
        torch.testing.assert_close(likelihood.variance.detach(), expected.clamp_min(MIN_VARIANCE), rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("option", ["poisson", "multinomial"])
def test_counts_have_probabilities_in_every_file(option: str, tiny: Callable[..., Path]) -> None:
    """The recorded nll of a model is minus the log probability of its counts, for the training and the test split."""
    shared = ("model=linear", f"likelihood={option}", *overrides_of(Counts), "dataset.subset=null")
    run_dir = tiny(*shared, "pretrain=mean", "optimizer.lr=1e-30", "epochs=1")  # the weights stay as they are
    metrics = json.loads((run_dir / "metrics.json").read_text())
    line = json.loads((run_dir / "history.jsonl").read_text().splitlines()[-1])
    model, splits = api.load(run_dir).model, components_of(*shared).dataset.load()
    for split, value in (("train", line["train/nll"]), ("test", line["test/nll"]), ("test", metrics["test/nll"])):
        x = getattr(splits, split).values.float()
        decoded = model(x).decoded
        if option == "poisson":
            expected = -distributions.Poisson(decoded.exp()).log_prob(x).flatten(1).sum(1)
        else:
            rows = zip(decoded.flatten(1), x.flatten(1), strict=True)
            expected = -torch.stack([multinomial_log_prob(*row) for row in rows])
        assert value == pytest.approx(expected.mean().item(), rel=1e-4), split


def test_values_without_a_likelihood_are_refused_before_training(tiny: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"likelihood=bernoulli needs values from 0 to 1, but training examples have"):
        tiny("model=linear", "likelihood=bernoulli", *overrides_of(Counts))
    assert not (tmp_path / "run").exists()


def test_weights_of_words_are_no_counts(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text,label\nsea and land,x\nsea and sky and sky,y\nland and sky,x\nsea,y\n")
    for weighting, has_integers in (("counts", True), ("binary", True), ("tfidf", False), ("log", False)):
        components = components_of(
            *("dataset=text", f"dataset.path='{file}'", f"dataset.weighting={weighting}", "likelihood=multinomial")
        )
        assert components.model.likelihood.has_integers == has_integers


def small_model(likelihood: Likelihood) -> Any:
    torch.manual_seed(0)
    return dense(SHAPE, likelihood, torch.nn.Identity(), (0.0, 1.0), code_dim=2, hidden=[4])


def test_recorded_losses_have_the_constant_of_their_own_split() -> None:
    model, x = small_model(Multinomial()).double().eval(), counts(200, count=7)
    evaluator = Evaluator(Examples(counts(200, count=7).to(torch.uint8)), Prepare(), NoNoise(), batch_size=3)
    pixels = x / 255  # a byte is divided by 255, which the check of the constants undoes
    constant = mean_data_constant(model, x.split(3))
    logits = model(pixels).decoded.flatten(1)
    rows = zip(logits, x.flatten(1), strict=True)
    expected = -torch.stack([multinomial_log_prob(*row) for row in rows]).mean().item()
    losses = {"nll": model.likelihood.nll(logits.view_as(x), x).mean().item(), "kl": 1.0}
    assert recorded_losses(model, losses, constant) == {"nll": pytest.approx(expected), "kl": 1.0}
    model.likelihood.has_integers = False
    assert evaluator.data_constant(model) == 0
    assert mean_data_constant(model, x.split(3)) == 0


def test_bits_per_dim_are_the_negative_elbo_of_a_value(tiny: Callable[..., Path]) -> None:
    for model, total in (("vae", "neg_elbo"), ("deep", "nll")):
        run_dir = tiny(f"model={model}", "likelihood=discretized_logistic", name=model)
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert metrics["test/bits_per_dim"] == pytest.approx(metrics[f"test/{total}"] / (64 * math.log(2)))
    assert "test/bits_per_dim" not in json.loads((tiny("model=deep", name="other") / "metrics.json").read_text())


@pytest.mark.parametrize("overrides", [("likelihood.variance=learned",), ("likelihood.variance=learned_per_feature",)])
def test_a_learned_variance_is_trained_saved_and_averaged(
    overrides: tuple[str, ...], tiny: Callable[..., Path]
) -> None:
    settings = ("model=deep", "likelihood=gaussian", *overrides, "ema=0.5", "optimizer.lr=0.05", "epochs=2")
    run_dir = tiny(*settings)
    saved = load_file(run_dir / "checkpoint" / "model.safetensors")["likelihood.log_spread"]
    assert saved.shape == (() if overrides[0].endswith("=learned") else (1, 8, 8))
    assert (saved != math.log(0.1)).all()
    run = api.load(run_dir)
    assert torch.equal(dict(run.model.named_parameters())["likelihood.log_spread"], saved)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["nll_constant"] == 0


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def test_untrained_models_have_a_likelihood_of_their_own() -> None:
    components = components_of("likelihood=gaussian", "likelihood.variance=learned")
    assert components.make_untrained().likelihood is not components.model.likelihood


def test_mistakes_in_settings_have_one_message() -> None:
    for overrides, words in [
        (["likelihood=poisson", "dataset.scale=[-1,1]"], "likelihood=poisson needs values as they are"),
        (["likelihood=categorical", "likelihood.groups=[3,2]", *CATEGORIES], "likelihood.groups=[3, 2] has 5 features"),
        (["likelihood=categorical", "likelihood.groups=[0]", *CATEGORIES], "groups=[0]"),
        (["likelihood=laplace", "likelihood.deviation=0"], "deviation=0 is not positive"),
        (["likelihood=gaussian", "likelihood.variance=learnt"], "learned_per_feature"),
    ]:
        with pytest.raises(ConfigError) as refused:
            components_of(*overrides)
        assert words in str(refused.value), str(refused.value)
