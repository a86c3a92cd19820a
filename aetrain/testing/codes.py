"""Contract checks of bottlenecks and their codes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.data.examples import Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import Code
from aetrain.model.dense import MakeBottleneck
from aetrain.objective.importance import log_weights
from aetrain.objective.objective import Objective, recorded_losses
from aetrain.objective.penalties import KL
from aetrain.testing.common import (
    expect,
    expect_close,
    expect_gradients,
    expect_reloadable,
    expect_same_in_shard,
    labelled_images,
    random_images,
    small_model,
)

MakeModel = Callable[[], Autoencoder]

KL_WEIGHT = 0.3
NUM_DRAWS = 20_000  # of the Monte Carlo estimates
MAX_ERRORS = 6.0  # standard errors by which an estimate may differ


def check_bottleneck(make_bottleneck: MakeBottleneck, code_dim: int = 4, tied: bool = False) -> None:
    """Check a bottleneck that a function makes from (in_features, code_dim), and the code that it emits.

    A random code is sampled for the loss, `neg_elbo` is the nll of a sample plus the KL, its mean is used for `encode`,
    importance weights have the shape of its draws, and bfloat16 does not reach the loss. `tied` makes the decoder share
    the weights of the bottleneck.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_model = partial(small_model, make_bottleneck, code_dim, tied)
        _check_code(make_model, code_dim)
        _check_in_a_model(make_model)
        if make_model().bottleneck.emits.is_random:
            _check_random_code(make_model)
            _check_metrics(make_model)


def _check_code(make_model: MakeModel, code_dim: int) -> None:
    """Check shapes, the stated type of the code, the prior, and what `map` and `repeat` do."""
    model = make_model().eval()
    bottleneck, x = model.bottleneck, random_images(5)
    name, code = type(bottleneck).__name__, model.encode(random_images(5))
    expect(type(code) is bottleneck.emits, f"{name} states emits={bottleneck.emits} but returns {type(code)}")
    for what, z in (("z", code.z), ("mean_z", code.mean_z)):
        expect(tuple(z.shape) == (5, code_dim), f"{what} of {name} is {list(z.shape)}, not [B, {code_dim}]")
    expect(tuple(model.encode(x[:0]).z.shape) == (0, code_dim), f"{name} fails on an empty batch")
    doubled = code.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    expect(doubled.z.dtype == torch.float64, f"map() of {type(code).__name__} does not reach z")
    expect(torch.equal(code.repeat(3).z, code.z.repeat(3, 1)), f"repeat() of {type(code).__name__} does not repeat z")
    prior = bottleneck.prior(7, torch.Generator().manual_seed(0))
    if prior is not None:
        expect(tuple(prior.shape) == (7, code_dim), f"prior(7) of {name} is {list(prior.shape)}, not [7, {code_dim}]")
        again = bottleneck.prior(7, torch.Generator().manual_seed(0))
        expect(again is not None and torch.equal(prior, again), f"prior() of {name} ignores its generator")
    projected = bottleneck.project_to_code_space(code.z)
    expect_close(
        bottleneck.project_to_code_space(projected), projected, f"project_to_code_space() of {name} is no projection"
    )


def _check_in_a_model(make_model: MakeModel) -> None:
    """Check independence of examples, gradients, saving and loading, and bfloat16."""
    model, x = make_model().eval(), random_images(5)
    name = type(model.bottleneck).__name__
    codes = model.mean_code(x)
    single = torch.cat([model.mean_code(row[None]) for row in x])
    expect_close(single, codes, f"{name} gives an example another code in another batch")
    expect_close(model.encode(x).z, codes, f"{name} in evaluation mode does not return the mean")
    model.train()
    out = model(x)
    loss = model.likelihood.nll(out.decoded, x).mean()
    expect(bool(loss.isfinite()), f"the loss of a model with {name} is not finite")
    expect_gradients(loss, model, f"the loss of a model with {name}")
    expect_same_in_shard(lambda x: model.encode(x).z, random_images(6), f"{name} gives an example another code")
    with torch.autocast("cpu", torch.bfloat16):
        code = model.encode(x)
    tensors: list[Tensor] = []
    code.to_float32().map(lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    expect(kinds == {torch.float32}, f"{type(code).__name__}.to_float32() leaves {kinds - {torch.float32}}")
    compute = cast(Callable[[nn.Module], Tensor], lambda module: module.mean_code(x))

    def make() -> nn.Module:
        model = make_model()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        return model

    expect_reloadable(make, compute, f"the code of {name}")


def _check_random_code(make_model: MakeModel) -> None:
    """Check samples, the KL and the densities of a random code."""
    model, x = make_model(), random_images(5)
    name, code = type(model.bottleneck).__name__, model.eval().bottleneck(model.encoder(random_images(5)).features)
    first, second = (code.sample(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expect(torch.equal(first, code.sample(torch.Generator().manual_seed(0))), f"sample() of {name} ignores generator")
    expect(not torch.equal(first, second), f"sample() of {name} is the same for every seed")
    expect(not torch.equal(model.train().encode(x).z, model.encode(x).z), f"{name} does not sample in training mode")
    kl = code.kl()
    expect(kl.dim() == 2 and len(kl) == 5, f"kl() of {name} is {list(kl.shape)}, not [B, units]")
    expect(bool((kl >= -1e-6).all()), f"kl() of {name} is negative")
    for what, value in (("log_prior", code.log_prior(first)), ("log_posterior", code.log_posterior(first))):
        expect(tuple(value.shape) == (5,), f"{what}() of {name} is {list(value.shape)}, not [B]")
        expect(bool(value.isfinite().all()), f"{what}() of {name} is not finite at a sample")
    ratio = code.log_prior(first) - code.log_posterior(first)
    expect_close(code.log_prior_ratio(first), ratio, f"log_prior_ratio() of {name} is another ratio", 1e-3)
    features = torch.randn(5, model.bottleneck.project.in_features, requires_grad=True)
    drawn = model.bottleneck.train()(features).z
    (gradient,) = torch.autograd.grad(drawn.square().sum(), features, allow_unused=True)
    expect(gradient is not None and bool((gradient != 0).any()), f"a sample of {name} passes no gradient to features")
    _check_distributions(model.eval(), name)
    weights = log_weights(model.eval(), x, code, 6, torch.Generator().manual_seed(0))
    expect(tuple(weights.shape) == (6, 5), f"importance weights of {name} are {list(weights.shape)}, not [draws, B]")


@torch.no_grad()
def _check_distributions(model: Autoencoder, name: str) -> None:
    """Compare samples with the mean, the KL and the densities, and draws from the prior with its moments."""
    code = model.bottleneck(model.encoder(random_images(1)).features).repeat(NUM_DRAWS)
    z = code.sample(torch.Generator().manual_seed(0))
    if not code.is_relaxed:
        _expect_mean(z, code.mean_z[0], f"the mean of samples of {name} is not mean_z")
        ratios = (code.log_posterior(z) - code.log_prior(z))[:, None]
        _expect_mean(ratios, code.kl()[0].sum()[None], f"kl() of {name} is not the mean of log_posterior - log_prior")
    if code.prior_moments is not None:
        draws = model.bottleneck.prior(NUM_DRAWS, torch.Generator().manual_seed(0))
        assert draws is not None
        mean, std = code.prior_moments
        _expect_mean(draws, mean, f"the mean of draws from the prior of {name} is not prior_moments[0]")
        _expect_mean((draws - mean).square(), std.square(), f"the variance of the prior of {name} is not as it states")


def _expect_mean(draws: Tensor, expected: Tensor, sentence: str) -> None:
    """Expect that the mean of draws [N, K] is the expected one [K], within the error of so many draws."""
    error = draws.std(0) / len(draws) ** 0.5
    close = (draws.mean(0) - expected).abs() <= MAX_ERRORS * error + 1e-4
    expect(bool(close.all()), sentence)


def _check_metrics(make_model: MakeModel) -> None:
    """Check that the evaluator's `loss` and `neg_elbo` are of a sample, and its `nll` of the mean."""
    model = make_model().eval()
    name, images = type(model.bottleneck).__name__, labelled_images(40)
    penalty = KL(KL_WEIGHT)
    metrics = Evaluator(images, Prepare(), NoNoise()).evaluate_epoch(model, Objective({"kl": penalty}))
    x = Prepare()(images.values)
    code: Code = model.encode(x)
    sampled = replace(code, z=model.code_transform(code.sample(torch.Generator().manual_seed(1))))
    nll = model.likelihood.nll(model.decode(sampled), x).mean().item()
    kl = code.kl().sum(1).mean().item()
    losses = {
        "loss": nll + KL_WEIGHT * kl,
        "neg_elbo": nll + kl,
        "kl": kl,
        "nll": model.likelihood.nll(model.decode(code), x).mean().item(),
    }
    for metric, value in recorded_losses(model, losses).items():
        close = abs(metrics[metric] - value) <= 1e-4 * max(1.0, abs(value))
        expect(close, f"{metric} of {name} is {metrics[metric]:.5g}, and by its definition {value:.5g}")
