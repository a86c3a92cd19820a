"""Contract checks of likelihoods and penalties."""

import torch
from torch import Tensor

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Bottleneck, DeterministicWithPrior, Gaussian, Quantized
from aetrain.model.codes import Code, GaussianCode, QuantizedCode, RandomCode
from aetrain.model.dense import MakeBottleneck
from aetrain.model.likelihoods import Likelihood
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import Critic, Penalty
from aetrain.testing.common import (
    expect,
    expect_close,
    expect_gradients,
    expect_same_in_shard,
    random_images,
    small_model,
)

CODE_DIM = 4


def _quantized(in_features: int, code_dim: int) -> Bottleneck:
    return Quantized(in_features, code_dim, groups=2, num_codewords=8)


# A bottleneck whose code a penalty can read, by the type that it states.
BOTTLENECKS: dict[type[Code], MakeBottleneck] = {
    Code: DeterministicWithPrior,
    RandomCode: Gaussian,
    GaussianCode: Gaussian,
    QuantizedCode: _quantized,
}


def check_likelihood(likelihood: Likelihood) -> None:
    """Check a likelihood: nll per example, least near the target, differentiable, consistent with mean and inverse.

    exp(-nll - constants) has the sum or the integral 1 over the values of its `support`. Missing values add nothing.
    """
    name, x = type(likelihood).__name__, _examples(likelihood)
    decoded = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nll = likelihood.nll(decoded, x)
    expect(tuple(nll.shape) == (5,), f"nll of {name} is {list(nll.shape)}, not [B]")
    expect(bool(nll.isfinite().all()), f"nll of {name} is not finite")
    (gradient,) = torch.autograd.grad(nll.sum(), decoded)
    expect(bool(gradient.isfinite().all() and (gradient != 0).any()), f"nll of {name} has no gradient")
    single = torch.cat([likelihood.nll(decoded[i : i + 1], x[i : i + 1]) for i in range(5)])
    expect_close(single, nll, f"nll of {name} of an image depends on the other images of its batch")
    expect(tuple(likelihood.nll(decoded[:0], x[:0]).shape) == (0,), f"nll of {name} fails on an empty batch")
    inside = _normalized(likelihood, x.clamp(0.05, 0.95))
    best = likelihood.inverse_mean(inside)
    expected = likelihood.expected(best, inside)
    expect_close(expected, inside, f"mean() of {name} does not undo inverse_mean()", 1e-3)
    least = likelihood.nll(best, inside)
    for step in (0.1, -0.1):
        higher = bool((likelihood.nll(best + step, inside) >= least - 1e-4).all())
        expect(higher, f"nll of {name} is not least where the expected pixels are the image")
    expect(likelihood.reduction in ("sum", "mean"), f"reduction of {name} is neither sum nor mean")
    expect(isinstance(likelihood.constant(x[0].numel()), float), f"constant() of {name} is no float")
    _check_normalized(name, likelihood)
    _check_missing_values(name, likelihood, decoded, x)
    if likelihood.linear:
        sum_of_means = likelihood.mean(decoded) + likelihood.mean(best) - likelihood.mean(0 * best)
        expect_close(likelihood.mean(decoded + best), sum_of_means, f"mean() of {name} is not affine, as linear states")


def _examples(likelihood: Likelihood) -> Tensor:
    """Return values [5, C, H, W] of the likelihood's support."""
    x = random_images(5)
    return _normalized(likelihood, (x * 255).round() / 255 if likelihood.support == "8-bit" else x)


def _normalized(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Return x; for a distribution of one category, with the sum 1."""
    return x / x.flatten(1).sum(1).view(-1, 1, 1, 1) if likelihood.support == "one-hot" else x


@torch.no_grad()
def _check_normalized(name: str, likelihood: Likelihood) -> None:
    """Expect that exp(-nll - constants) has the sum or the integral 1 over the values of one or of three features."""
    one, three = torch.full((1, 1, 1, 1), 0.3), torch.tensor([0.2, 0.3, 0.5]).view(1, 1, 1, 3)

    def total(mean: Tensor, values: Tensor, weight: float = 1.0) -> float:
        x = values.to(torch.float32).view(-1, 1, 1, mean.numel())
        decoded = likelihood.inverse_mean(mean).expand_as(x)
        return weight * float((-likelihood.neg_log_prob(decoded, x).double()).exp().sum())

    line = torch.linspace(-50, 51, 2_000_001, dtype=torch.float64)
    inside = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    draws = [[i, j, 4 - i - j] for i in range(5) for j in range(5 - i)]  # of three features, 4 in all
    totals = {
        "real": [total(one, line, 101 / 2_000_000)],
        "unit interval": [total(one, torch.tensor([0.0, 1.0])), total(one, inside, 1 / 200_000)],
        "nonnegative": [total(one, torch.arange(100)), total(three, torch.tensor(draws))],
        "one-hot": [total(three, torch.eye(3))],
        "8-bit": [total(one, torch.arange(256) / 255)],
    }[likelihood.support]
    text = " or ".join(f"{value:.3g}" for value in totals)
    normalized = any(abs(value - 1) < 0.02 for value in totals)
    expect(normalized, f"exp(-nll - constants) of {name} has the sum {text}, not 1, over {likelihood.support} values")


def _check_missing_values(name: str, likelihood: Likelihood, decoded: Tensor, x: Tensor) -> None:
    """Expect a finite nll without a gradient at missing values, and the same as before where none is missing."""
    complete = likelihood.neg_log_prob(decoded, x)
    hidden = x.masked_fill(torch.arange(x[0].numel()).view(x[:1].shape) % 3 == 0, torch.nan)
    hidden[0] = torch.nan
    has_missing, likelihood.has_missing = likelihood.has_missing, True
    try:
        expect_close(likelihood.neg_log_prob(decoded, x), complete, f"has_missing changes the nll of {name}", 1e-3)
        nll = likelihood.neg_log_prob(decoded, hidden)
        (gradient,) = torch.autograd.grad(nll.sum(), decoded)
        expect(bool(nll.isfinite().all()), f"nll of {name} is not finite where values are missing")
        expect(float(nll[0].detach()) == 0, f"nll of {name} is not 0 where all values are missing")
        expect(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite where values are missing")
        expect(bool((gradient[hidden.isnan()] == 0).all()), f"missing values have a gradient under {name}")
    finally:
        likelihood.has_missing = has_missing


def check_penalty(penalty: Penalty, make_bottleneck: MakeBottleneck | None = None) -> None:
    """Check a penalty on a small model whose code it reads, or on one with the bottleneck that is given.

    It is a value per image or one for the batch, finite, differentiable, the same at every call in evaluation, and its
    mean over images is the term of the loss. Without `reads_batch` it is the same in one of several processes.
    """
    name = type(penalty).__name__
    expect(bool(penalty.description), f"{name} has no description, which is that of its metric")
    make = make_bottleneck or BOTTLENECKS.get(penalty.reads)
    expect(make is not None, f"{name} reads {penalty.reads.__name__}: give check_penalty a bottleneck that emits it")
    assert make is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = small_model(make, CODE_DIM), random_images(6)
        objective = Objective({"penalty": penalty})
        objective.check(model)
        _check_training(name, model, penalty)
        model.eval()
        objective.eval()
        out = model(x)
        value = penalty(model, out)
        expect(tuple(value.shape) in ((), (6,)), f"{name} returns {list(value.shape)}, not [B] or []")
        expect(bool(value.isfinite().all()), f"{name} is not finite")
        expect(torch.equal(value, penalty(model, out)), f"{name} differs between two calls in evaluation mode")
        losses = objective(model, out)
        term = penalty.loss_term(model, out)
        expected = losses["nll"] + penalty.weight * (value if term is None else term).mean()
        expect_close(losses["loss"], expected, f"the loss is not nll + weight * mean of {name}")
        _check_single_precision(name, model, penalty)
        if not penalty.reads_batch:
            model.train()
            penalty.train()
            text = f"{name} does not set reads_batch, and gives an example another value"
            expect_same_in_shard(lambda x: penalty(model, model(x)), x, text)


def _check_training(name: str, model: Autoencoder, penalty: Penalty) -> None:
    """Expect gradients in training mode: of the model by the penalty, and of a critic by its own losses."""
    model.train()
    penalty.train()
    x = random_images(6)
    value = penalty(model, model(x)).mean()
    if value.requires_grad:
        parameters = torch.nn.ModuleList([model, penalty])
        expect_gradients(value, parameters, name)
    else:
        expect(penalty.weight == 0 or float(value.detach()) == 0, f"{name} has no gradient in training mode")
    if isinstance(penalty, Critic):
        losses = penalty.losses(model, x)
        expect("loss" in losses, f"losses() of the critic {name} has no `loss`")
        expect(all(loss.dim() == 0 for loss in losses.values()), f"losses() of the critic {name} are not scalars")
        expect_gradients(losses["loss"], penalty, f"the losses of the critic {name}")


def _check_single_precision(name: str, model: Autoencoder, penalty: Penalty) -> None:
    """Expect that the penalty of an image does not depend on its batch, where it is one per image."""
    x = random_images(6)
    value = penalty(model, model(x))
    expect(value.dtype == torch.float32, f"{name} is {value.dtype}, not float32")
    if value.dim() == 0:
        return
    single = torch.cat([penalty(model, model(x[i : i + 1])) for i in range(6)])
    if single.shape == value.shape and not _draws(model, penalty):
        expect_close(single, value, f"{name} of an image depends on the other images of its batch", 1e-3)


def _draws(model: Autoencoder, penalty: Penalty) -> bool:
    """Return whether a penalty draws random numbers in evaluation, so that its value depends on the row of an image."""
    x = random_images(6)
    value, flipped = penalty(model, model(x)), penalty(model, model(x.flip(0)))
    return not torch.allclose(value, flipped.flip(0), rtol=1e-4, atol=1e-5)
